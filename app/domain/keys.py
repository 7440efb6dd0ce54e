"""API keys.

A key is `tgk_` + 43 base62 characters (32 random bytes) + 6 base62 characters (CRC-32 of all before).
The prefix lets secret scanners recognise a leaked key; the checksum turns away typos and scanner noise
without a database query. Only the SHA-256 digest is stored: 256 random bits cannot be searched at any
hash speed, so a slow password hash would add nothing but load.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass

KEY_PREFIX = "tgk_"
KEY_RANDOM_BYTES = 32
FIRST_KEY_NAME = "First key"
KEY_HINT_LENGTH = len(KEY_PREFIX) + 4

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_LENGTH = 43
_CHECKSUM_LENGTH = 6
KEY_PATTERN = re.compile(rf"{KEY_PREFIX}[0-9A-Za-z]{{{_BODY_LENGTH + _CHECKSUM_LENGTH}}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What the database keeps of a key: enough to find it and to name it in a list, not to use it."""

    digest: bytes
    hint: str


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
