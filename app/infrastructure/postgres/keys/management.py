"""Changes of keys. Each is one transaction that locks the account, then the key, then its windows."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.ports.key_management import CreatedKey
from app.domain.accounts import ApiKey
from app.domain.budgets import NO_LIMITS, AccountLimits, Window
from app.domain.errors import AccountNotFound, IdempotencyKeyReused, InvalidApiKey
from app.domain.key_errors import KeyEnded, KeyNotFound, TooManyKeys
from app.domain.keys import (
    LIVE_KEYS_MAX,
    KeyChanges,
    KeyRecord,
    KeySettings,
    NewKey,
    StoredKey,
    check_expiry,
    check_may_change_keys,
)
from app.domain.orders import IdempotencyKey
from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.keys.issuing import add_secret, check_secrets_of_day, has_secret, revoke_secrets
from app.infrastructure.postgres.keys.reader import PostgresKeyReader, key_record, key_settings
from app.infrastructure.postgres.keys.repeating import until_known
from app.infrastructure.postgres.keys.rows import HIDDEN, IS_LIVE_KEY, KEY_COLUMNS, key_of
from app.infrastructure.postgres.keys.windows import Spent, WindowsNotSummed, renew_windows, sum_windows
from app.infrastructure.postgres.tables import accounts, api_keys, keys
from app.infrastructure.postgres.writes import count_write


class PostgresKeyManagement(PostgresKeyReader):
    def __init__(self, engine: AsyncEngine, limits: AccountLimits = NO_LIMITS) -> None:
        """`limits` are those of accounts that have none of their own."""
        super().__init__(engine)
        self._limits = limits

    async def create(self, account_id: UUID, new: NewKey, by: ApiKey | None) -> CreatedKey:
        return await until_known(partial(self._create, account_id, new, by))

    async def change(self, account_id: UUID, key_id: UUID, changes: KeyChanges, by: ApiKey | None) -> KeyRecord:
        return await until_known(partial(self._change, account_id, key_id, changes, by))

    async def rotate(
        self, account_id: UUID, key_id: UUID, secret: StoredKey, *, overlap_seconds: int, by: ApiKey | None
    ) -> KeyRecord:
        return await until_known(partial(self._rotate, account_id, key_id, secret, overlap_seconds, by))

    async def delete(self, account_id: UUID, key_id: UUID, by: ApiKey | None) -> None:
        async def again() -> None:
            try:
                await self._delete(account_id, key_id, by)
            except KeyNotFound:
                # The first try's doing, or that of somebody who wanted the same.
                return

        await until_known(partial(self._delete, account_id, key_id, by), again)

    async def end_own(self, account_id: UUID, key_id: UUID) -> None:
        await until_known(partial(self._end_own, account_id, key_id))

    async def _create(self, account_id: UUID, new: NewKey, by: ApiKey | None) -> CreatedKey:
        async with transaction(self.engine, "create_key") as connection:
            now = await _locked(connection, account_id)
            if await has_secret(connection, new.secret):
                return CreatedKey(key=await key_record(connection, account_id, new.id), is_replay=False)
            await _check_still_may(connection, account_id, by)
            if new.idempotency is not None:
                first = await _first_use(connection, account_id, new.idempotency)
                if first is not None:
                    return CreatedKey(key=first, is_replay=True)
            check_expiry(new.settings.expires_at, now)
            await _check_room(connection, account_id)
            await self._count(connection, account_id, by, now)
            await _insert(connection, account_id, new)
            return CreatedKey(key=await key_record(connection, account_id, new.id), is_replay=False)

    async def _change(self, account_id: UUID, key_id: UUID, changes: KeyChanges, by: ApiKey | None) -> KeyRecord:
        """Only what nothing else stands against is worth the sum of the jobs, and none is made that was not counted."""
        sums: dict[Window, Spent] = {}
        while True:
            try:
                return await self._change_with(sums, account_id, key_id, changes, by)
            except WindowsNotSummed as missing:
                if not sums:
                    await self._count_sum(account_id, by)
                async with transaction(self.engine, "sum_windows") as connection:
                    sums |= await sum_windows(connection, account_id, key_id, missing.windows)

    async def _count_sum(self, account_id: UUID, by: ApiKey | None) -> None:
        """As the write that it is for, whatever becomes of that."""
        async with transaction(self.engine, "count_sum") as connection:
            await _locked(connection, account_id)
            await _check_still_may(connection, account_id, by)
            await self._count(connection, account_id, by)

    async def _change_with(
        self,
        sums: Mapping[Window, Spent],
        account_id: UUID,
        key_id: UUID,
        changes: KeyChanges,
        by: ApiKey | None,
    ) -> KeyRecord:
        async with transaction(self.engine, "change_key") as connection:
            now = await _locked(connection, account_id)
            await _check_still_may(connection, account_id, by)
            before = await key_settings(connection, account_id, key_id)
            after = replace(before, **changes)
            if after != before:
                check_expiry(after.expires_at, now)
                if not sums:
                    await self._count(connection, account_id, by)
                await _update(connection, key_id, after)
                if after.budget != before.budget:
                    await renew_windows(connection, account_id, key_id, after.budget, sums)
            return await key_record(connection, account_id, key_id)

    async def _rotate(
        self, account_id: UUID, key_id: UUID, secret: StoredKey, overlap_seconds: int, by: ApiKey | None
    ) -> KeyRecord:
        async with transaction(self.engine, "rotate_key") as connection:
            now = await _locked(connection, account_id)
            if not await has_secret(connection, secret):
                await _check_still_may(connection, account_id, by)
                found = await connection.execute(
                    select(*KEY_COLUMNS).where(keys.c.id == key_id, keys.c.account_id == account_id, IS_LIVE_KEY)
                )
                row = found.mappings().one_or_none()
                if row is None:
                    raise KeyNotFound
                await self._count(connection, account_id, by, now)
                await _end_secrets(connection, key_id, overlap_seconds)
                is_hidden = not key_of(row, 0).may_manage_keys
                await add_secret(connection, key_id, account_id, secret, is_hidden=is_hidden)
            return await key_record(connection, account_id, key_id)

    async def _delete(self, account_id: UUID, key_id: UUID, by: ApiKey | None) -> None:
        async with transaction(self.engine, "delete_key") as connection:
            await _locked(connection, account_id)
            await _check_still_may(connection, account_id, by)
            if not await self._end(connection, account_id, key_id, is_write=by is not None):
                raise KeyNotFound

    async def _end_own(self, account_id: UUID, key_id: UUID) -> None:
        async with transaction(self.engine, "end_own_key") as connection:
            await _locked(connection, account_id)
            await self._end(connection, account_id, key_id, is_write=True)

    async def _end(self, connection: AsyncConnection, account_id: UUID, key_id: UUID, *, is_write: bool) -> bool:
        """False: it had ended already."""
        ended = await connection.execute(
            update(keys)
            .where(keys.c.id == key_id, keys.c.account_id == account_id, IS_LIVE_KEY)
            .values(deleted_at=func.now())
        )
        if not ended.rowcount:
            return False
        await revoke_secrets(connection, key_id)
        if is_write:
            await count_write(connection, account_id, self._limits, is_refusable=False)
        return True

    async def _count(
        self, connection: AsyncConnection, account_id: UUID, by: ApiKey | None, new_secret_at: datetime | None = None
    ) -> None:
        """What the operator does is nobody's write."""
        if by is None:
            return
        if new_secret_at is not None:
            await check_secrets_of_day(connection, account_id, new_secret_at)
        await count_write(connection, account_id, self._limits)


async def _locked(connection: AsyncConnection, account_id: UUID) -> datetime:
    """The moment at which the transaction began. What is read afterwards is what the one before has left."""
    now: datetime | None = await connection.scalar(
        select(func.now()).select_from(accounts).where(accounts.c.id == account_id).with_for_update(key_share=True)
    )
    if now is None:
        raise AccountNotFound
    return now


async def _check_still_may(connection: AsyncConnection, account_id: UUID, by: ApiKey | None) -> None:
    """Of a key that was let in before some key of the account changed. Raises InvalidApiKey, KeyRestricted."""
    if by is None:
        return
    version = await connection.scalar(select(accounts.c.keys_version).where(accounts.c.id == account_id))
    if version == by.version:
        return
    found = await connection.execute(select(*KEY_COLUMNS).where(keys.c.id == by.id, IS_LIVE_KEY))
    row = found.mappings().one_or_none()
    if row is None:
        raise InvalidApiKey
    check_may_change_keys(key_of(row, by.version))


async def _first_use(connection: AsyncConnection, account_id: UUID, idempotency: IdempotencyKey) -> KeyRecord | None:
    """Raises IdempotencyKeyReused, KeyEnded."""
    found = await connection.execute(
        select(keys.c.id, keys.c.fingerprint).where(
            keys.c.account_id == account_id, keys.c.idempotency_key == idempotency.key
        )
    )
    first = found.one_or_none()
    if first is None:
        return None
    if first.fingerprint != idempotency.fingerprint:
        raise IdempotencyKeyReused
    try:
        return await key_record(connection, account_id, first.id)
    except KeyNotFound:
        raise KeyEnded from None


async def _check_room(connection: AsyncConnection, account_id: UUID) -> None:
    """Raises TooManyKeys. A key whose time is over makes room, and is over for good."""
    await connection.execute(
        update(keys)
        .where(keys.c.account_id == account_id, keys.c.deleted_at.is_(None), keys.c.expires_at <= func.now())
        .values(deleted_at=func.now())
    )
    live = select(func.count()).where(keys.c.account_id == account_id, keys.c.deleted_at.is_(None))
    if (await connection.scalar(live) or 0) >= LIVE_KEYS_MAX:
        raise TooManyKeys


async def _insert(connection: AsyncConnection, account_id: UUID, new: NewKey) -> None:
    inserted = await connection.execute(
        insert(keys)
        .values(
            id=new.id,
            account_id=account_id,
            idempotency_key=None if new.idempotency is None else new.idempotency.key,
            fingerprint=None if new.idempotency is None else new.idempotency.fingerprint,
            **_columns(new.settings),
        )
        .returning(*KEY_COLUMNS)
    )
    is_hidden = not key_of(inserted.mappings().one(), 0).may_manage_keys
    await add_secret(connection, new.id, account_id, new.secret, is_hidden=is_hidden)


async def _update(connection: AsyncConnection, key_id: UUID, settings: KeySettings) -> None:
    updated = await connection.execute(
        update(keys).where(keys.c.id == key_id).values(_columns(settings)).returning(*KEY_COLUMNS)
    )
    if not key_of(updated.mappings().one(), 0).may_manage_keys:
        # From now on the release before, which would let it do everything, finds none of them.
        await connection.execute(
            update(api_keys)
            .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None), ~api_keys.c.is_hidden)
            .values(digest=HIDDEN, is_hidden=True)
        )


def _columns(settings: KeySettings) -> Mapping[str, Any]:
    budget = settings.budget
    return {
        "name": settings.name,
        "scopes": sorted(settings.scopes),
        "expires_at": settings.expires_at,
        "budget_tokens": None if budget is None else budget.tokens,
        "budget_per": None if budget is None else budget.per,
    }


async def _end_secrets(connection: AsyncConnection, key_id: UUID, overlap_seconds: int) -> None:
    """All of them, but for the newest one, which lives for the overlap. The release before knows no such end."""
    kept: bytes | None = None
    if overlap_seconds:
        kept = await connection.scalar(
            select(api_keys.c.digest)
            .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None), api_keys.c.expires_at.is_(None))
            .order_by(api_keys.c.created_at.desc())
            .limit(1)
        )
    await revoke_secrets(connection, key_id, kept=kept)
    if kept is not None:
        await connection.execute(
            update(api_keys)
            .where(api_keys.c.digest == kept)
            .values(
                digest=case((api_keys.c.is_hidden, api_keys.c.digest), else_=HIDDEN),
                is_hidden=True,
                expires_at=func.now() + timedelta(seconds=overlap_seconds),
            )
        )
