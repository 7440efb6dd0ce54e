"""API keys, and the secrets that they are used by.

A secret is `tgk_` + 43 base62 characters (32 random bytes) + 6 base62 characters (CRC-32 of all before).
The prefix lets secret scanners recognise a leaked key; the checksum turns away typos and scanner noise
without a database query. Only the SHA-256 digest is stored: 256 random bits cannot be searched at any
hash speed, so a slow password hash would add nothing but load.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from app.domain.accounts import ApiKey, Scope
from app.domain.budgets import Budget, Spending
from app.domain.key_errors import ExpiresInThePast, KeyRestricted, OwnKey
from app.domain.orders import IdempotencyKey

KEY_PREFIX = "tgk_"
KEY_RANDOM_BYTES = 32
FIRST_KEY_NAME = "First key"
KEY_HINT_LENGTH = len(KEY_PREFIX) + 4
KEY_NAME_LENGTH_MAX = 100
OVERLAP_SECONDS_MAX = 604_800
# Of an account.
LIVE_KEYS_MAX = 100
SECRETS_A_DAY_MAX = 1_000

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_LENGTH = 43
_CHECKSUM_LENGTH = 6
KEY_PATTERN = re.compile(rf"{KEY_PREFIX}[0-9A-Za-z]{{{_BODY_LENGTH + _CHECKSUM_LENGTH}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What the database keeps of a key: enough to find it and to name it in a list, not to use it."""

    digest: bytes
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """What is decided about a key by whoever makes it."""

    name: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None
    budget: Budget | None = None


class KeyChanges(TypedDict, total=False):
    """What of the settings becomes another."""

    name: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    budget: Budget | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    id: UUID
    settings: KeySettings
    secret: StoredKey
    idempotency: IdempotencyKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as its account sees it."""

    id: UUID
    hint: str
    """Of its newest secret."""
    settings: KeySettings
    spending: Spending | None
    """None: it has no budget."""
    created_at: datetime
    last_used_at: datetime | None
    """To the minute."""


def check_may_change_keys(key: ApiKey, changed: UUID | None = None) -> None:
    """Raises KeyRestricted, and OwnKey where it is itself the key to be changed."""
    if not key.may_manage_keys:
        raise KeyRestricted
    if key.id == changed:
        raise OwnKey


def check_expiry(expires_at: datetime | None, now: datetime) -> None:
    """Raises ExpiresInThePast."""
    if expires_at is not None and expires_at <= now:
        raise ExpiresInThePast


def format_key(random_bytes: bytes) -> str:
    if len(random_bytes) != KEY_RANDOM_BYTES:
        raise ValueError(f"a key is made of {KEY_RANDOM_BYTES} random bytes")
    body = KEY_PREFIX + _base62(int.from_bytes(random_bytes), _BODY_LENGTH)
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    return bool(KEY_PATTERN.fullmatch(key)) and _checksum(key[:-_CHECKSUM_LENGTH]) == key[-_CHECKSUM_LENGTH:]


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def stored_form(key: str) -> StoredKey:
    return StoredKey(digest=digest_of(key), hint=key[:KEY_HINT_LENGTH])


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
