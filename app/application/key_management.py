"""Keys of an account, made and changed by a key that may do everything, or by the operator."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.application.keys import new_key
from app.application.ports.accounts import AccountRecords
from app.application.ports.key_management import KeyManagement, KeyReader
from app.domain.accounts import Caller
from app.domain.keys import KeyChanges, KeyRecord, KeySettings, NewKey, check_may_change_keys, stored_form
from app.domain.orders import IdempotencyKey

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyWithSecret:
    """A key with its new secret, which nobody can show again."""

    key: KeyRecord
    secret: str | None
    """None where the request came before: what was shown then is stored nowhere."""


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Raises KeyRestricted, ExpiresInThePast, IdempotencyKeyReused, KeyEnded, TooManyKeys, TooManyNewSecrets,
    TooManyWrites, InvalidApiKey.

    The same idempotency key with the same settings leads to the same key, without its secret.
    """

    _keys: KeyManagement

    async def __call__(
        self, caller: Caller, settings: KeySettings, idempotency_key: str | None = None
    ) -> KeyWithSecret:
        check_may_change_keys(caller.key)
        secret, account_id = new_key(), caller.account.id
        idempotency = None if idempotency_key is None else IdempotencyKey(idempotency_key, _fingerprint(settings))
        new = NewKey(id=uuid7(), settings=settings, secret=stored_form(secret), idempotency=idempotency)
        created = await self._keys.create(account_id, new, caller.key)
        if created.is_replay:
            return KeyWithSecret(key=created.key, secret=None)
        _log("key_created", account_id, created.key.id, by=caller.key.id)
        return KeyWithSecret(key=created.key, secret=secret)


@dataclass(frozen=True, slots=True)
class ChangeKey:
    """Raises KeyRestricted, OwnKey, ExpiresInThePast, KeyNotFound, TooManyWrites, InvalidApiKey."""

    _keys: KeyManagement

    async def __call__(self, caller: Caller, key_id: UUID, changes: KeyChanges) -> KeyRecord:
        check_may_change_keys(caller.key, key_id)
        key = await self._keys.change(caller.account.id, key_id, changes, caller.key)
        _log("key_changed", caller.account.id, key_id, by=caller.key.id, changed=sorted(changes))
        return key


@dataclass(frozen=True, slots=True)
class RotateSecret:
    """Raises KeyRestricted, OwnKey, KeyNotFound, TooManyNewSecrets, TooManyWrites, InvalidApiKey."""

    _keys: KeyManagement

    async def __call__(self, caller: Caller, key_id: UUID, *, overlap_seconds: int) -> KeyWithSecret:
        check_may_change_keys(caller.key, key_id)
        secret, account_id = new_key(), caller.account.id
        key = await self._keys.rotate(
            account_id, key_id, stored_form(secret), overlap_seconds=overlap_seconds, by=caller.key
        )
        _log("key_rotated", account_id, key_id, by=caller.key.id, overlap_seconds=overlap_seconds)
        return KeyWithSecret(key=key, secret=secret)


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """Raises KeyRestricted, OwnKey, KeyNotFound, InvalidApiKey."""

    _keys: KeyManagement

    async def __call__(self, caller: Caller, key_id: UUID) -> None:
        check_may_change_keys(caller.key, key_id)
        await self._keys.delete(caller.account.id, key_id, caller.key)
        _log("key_deleted", caller.account.id, key_id, by=caller.key.id)

    async def own(self, caller: Caller) -> None:
        """Any key may end itself."""
        await self._keys.end_own(caller.account.id, caller.key.id)
        _log("key_deleted", caller.account.id, caller.key.id, by=caller.key.id)


@dataclass(frozen=True, slots=True)
class KeysOfUsers:
    """What the operator does with the keys of any user. Raises AccountNotFound, and what the port raises."""

    _accounts: AccountRecords
    _keys: KeyManagement

    async def live(self, external_user_id: UUID) -> Sequence[KeyRecord]:
        return await self._keys.live(await self._account_id(external_user_id))

    async def create(self, external_user_id: UUID, settings: KeySettings) -> KeyWithSecret:
        account_id, secret = await self._account_id(external_user_id), new_key()
        new = NewKey(id=uuid7(), settings=settings, secret=stored_form(secret))
        created = await self._keys.create(account_id, new, None)
        _log("key_created", account_id, created.key.id)
        return KeyWithSecret(key=created.key, secret=secret)

    async def rotate(self, external_user_id: UUID, key_id: UUID, *, overlap_seconds: int) -> KeyWithSecret:
        account_id, secret = await self._account_id(external_user_id), new_key()
        key = await self._keys.rotate(account_id, key_id, stored_form(secret), overlap_seconds=overlap_seconds, by=None)
        _log("key_rotated", account_id, key_id, overlap_seconds=overlap_seconds)
        return KeyWithSecret(key=key, secret=secret)

    async def delete(self, external_user_id: UUID, key_id: UUID) -> None:
        account_id = await self._account_id(external_user_id)
        await self._keys.delete(account_id, key_id, None)
        _log("key_deleted", account_id, key_id)

    async def _account_id(self, external_user_id: UUID) -> UUID:
        return (await self._accounts.usage(external_user_id)).account_id


@dataclass(frozen=True, slots=True)
class CustomerKeyManagement:
    """What `GET`, `POST`, `PATCH` and `DELETE` on keys do."""

    reader: KeyReader
    create: CreateKey
    change: ChangeKey
    rotate: RotateSecret
    delete: DeleteKey


def _fingerprint(settings: KeySettings) -> bytes:
    budget = settings.budget
    asked_for = {
        "name": settings.name,
        "scopes": sorted(settings.scopes),
        "expires_at": None if settings.expires_at is None else settings.expires_at.isoformat(),
        "budget": None if budget is None else [budget.tokens, budget.per],
    }
    return hashlib.sha256(json.dumps(asked_for, sort_keys=True).encode()).digest()


def _log(event: str, account_id: UUID, key_id: UUID, by: UUID | None = None, **facts: Any) -> None:
    log.info(event, account_id=str(account_id), key_id=str(key_id), by="operator" if by is None else str(by), **facts)
