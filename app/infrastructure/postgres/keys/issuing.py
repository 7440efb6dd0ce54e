"""First keys, and keys that are replaced by whoever proves the right to them."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import RowMapping, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from app.domain.accounts import ALL_SCOPES, Caller
from app.domain.budgets import NO_LIMITS, AccountLimits
from app.domain.keys import FIRST_KEY_NAME, SECRETS_A_DAY_MAX, StoredKey
from app.domain.limits import TooManyNewSecrets
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.keys.lookup import find_all
from app.infrastructure.postgres.keys.memory import CallerMemory
from app.infrastructure.postgres.keys.repeating import until_known
from app.infrastructure.postgres.keys.rows import IS_CURRENT_SECRET, IS_LIVE_KEY, KEY_COLUMNS, hidden, key_of
from app.infrastructure.postgres.keys.uses import KeyUses
from app.infrastructure.postgres.statements import any_of
from app.infrastructure.postgres.tables import accounts, api_keys, keys
from app.infrastructure.postgres.writes import count_write


async def ensure_account(connection: AsyncConnection, external_user_id: UUID) -> None:
    await connection.execute(
        insert(accounts).values(id=uuid7(), external_user_id=external_user_id).on_conflict_do_nothing()
    )


async def lock_account(connection: AsyncConnection, external_user_id: UUID) -> UUID | None:
    """Let two calls for one user take turns: what the second one reads afterwards is what the first one left.

    The weaker lock does not wait for the jobs that the user starts meanwhile, which refer to the account.
    """
    account_id: UUID | None = await connection.scalar(
        select(accounts.c.id).where(accounts.c.external_user_id == external_user_id).with_for_update(key_share=True)
    )
    return account_id


async def add_secret(
    connection: AsyncConnection, key_id: UUID, account_id: UUID, secret: StoredKey, *, is_hidden: bool
) -> None:
    """`is_hidden`: the release before shall not find it, because the key may not do everything."""
    digest = hidden(secret.digest) if is_hidden else secret.digest
    await connection.execute(
        insert(api_keys).values(
            digest=digest, hint=secret.hint, account_id=account_id, key_id=key_id, is_hidden=is_hidden
        )
    )


async def has_secret(connection: AsyncConnection, key: StoredKey) -> bool:
    """Whether an earlier try wrote the key: nobody else ever makes the same one."""
    return bool(
        await connection.scalar(select(exists().where(api_keys.c.digest.in_([key.digest, hidden(key.digest)]))))
    )


async def check_secrets_of_day(connection: AsyncConnection, account_id: UUID, now: datetime) -> None:
    """Raises TooManyNewSecrets."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    made = select(func.count()).where(api_keys.c.account_id == account_id, api_keys.c.created_at >= midnight)
    if (await connection.scalar(made) or 0) >= SECRETS_A_DAY_MAX:
        wait = midnight + timedelta(days=1) - now
        raise TooManyNewSecrets(SECRETS_A_DAY_MAX, retry_after_seconds=int(wait.total_seconds()) + 1)


class PostgresKeys:
    def __init__(self, engine: AsyncEngine, limits: AccountLimits = NO_LIMITS) -> None:
        """`limits` are those of accounts that have none of their own."""
        self.engine = engine
        self._limits = limits
        self.uses = KeyUses(engine)
        self._find: Batcher[bytes, Caller | None] = Batcher(engine, find_all, flushes_max=1)
        self._memory = CallerMemory()

    async def find_by_key(self, digest: bytes) -> Caller | None:
        caller = await self._find(digest)
        if caller is None:
            self._memory.forget(digest)
        else:
            self._memory.add(digest, caller)
            self.uses.note(caller.key.id)
        return caller

    def remembered(self, digest: bytes) -> Caller | None:
        caller = self._memory.get(digest)
        if caller is not None:
            self.uses.note(caller.key.id)
        return caller

    def forget(self, digest: bytes) -> None:
        self._memory.forget(digest)

    async def versions(self, account_ids: Collection[UUID]) -> Mapping[UUID, int]:
        query = select(accounts.c.id, accounts.c.keys_version).where(any_of(accounts.c.id, "account_ids"))
        async with reading(self.engine) as connection:
            rows = await connection.execute(query, {"account_ids": list(account_ids)})
            return {row.id: row.keys_version for row in rows}

    async def add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        return await until_known(partial(self._add_first_key, external_user_id, key))

    async def replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        return await until_known(partial(self._replace_key, external_user_id, key, current))

    async def _add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        async with transaction(self.engine, "add_first_key") as connection:
            await ensure_account(connection, external_user_id)
            account_id = await lock_account(connection, external_user_id)
            assert account_id is not None
            if await has_secret(connection, key):
                return True
            of_account = (exists().where(table.c.account_id == account_id) for table in (keys, api_keys))
            if await connection.scalar(select(or_(*of_account))):
                return False
            await _add_first(connection, account_id, key)
            return True

    async def _replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        async with transaction(self.engine, "replace_key") as connection:
            account_id = await lock_account(connection, external_user_id)
            if account_id is None:
                return False
            if await has_secret(connection, key):
                return True
            if current is None:
                await _replace_first(connection, account_id, key)
                return True
            found = await connection.execute(
                select(*KEY_COLUMNS, func.now().label("now"))
                .join(api_keys, api_keys.c.key_id == keys.c.id)
                .where(
                    api_keys.c.digest.in_([current, hidden(current)]),
                    api_keys.c.account_id == account_id,
                    # One that only works on for an overlap would outlive it, and end the one that came for it.
                    IS_CURRENT_SECRET,
                    IS_LIVE_KEY,
                )
            )
            row = found.mappings().one_or_none()
            if row is None:
                return False
            # What the operator vouches for is nobody's write.
            await check_secrets_of_day(connection, account_id, row["now"])
            await count_write(connection, account_id, self._limits)
            await _replace_secrets(connection, account_id, row, key)
            return True

    async def revoke_keys(self, external_user_id: UUID) -> int:
        async with transaction(self.engine, "revoke_keys") as connection:
            account_id = await lock_account(connection, external_user_id)
            ended = await connection.execute(
                update(keys)
                .where(keys.c.account_id == account_id, keys.c.deleted_at.is_(None))
                .values(deleted_at=func.now())
            )
            await connection.execute(
                update(api_keys)
                .where(api_keys.c.account_id == account_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=func.now())
            )
            return ended.rowcount


async def _add_first(connection: AsyncConnection, account_id: UUID, secret: StoredKey) -> None:
    key_id = uuid7()
    await connection.execute(
        insert(keys).values(
            id=key_id, account_id=account_id, name=FIRST_KEY_NAME, scopes=sorted(ALL_SCOPES), is_first=True
        )
    )
    await add_secret(connection, key_id, account_id, secret, is_hidden=False)


async def _replace_first(connection: AsyncConnection, account_id: UUID, secret: StoredKey) -> None:
    """Whoever vouches for the user gets a key that may do everything, whatever became of the first one.

    Before revision 0018 a secret may have no key yet. It is one of the first key's, and would become that again.
    """
    await connection.execute(
        update(api_keys)
        .where(api_keys.c.account_id == account_id, api_keys.c.key_id.is_(None), api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    found = await connection.execute(
        select(*KEY_COLUMNS).where(keys.c.account_id == account_id, keys.c.is_first, keys.c.deleted_at.is_(None))
    )
    row = found.mappings().one_or_none()
    if row is not None and key_of(row, 0).may_manage_keys:
        await _replace_secrets(connection, account_id, row, secret)
        return
    if row is not None:
        await connection.execute(update(keys).where(keys.c.id == row["key_id"]).values(deleted_at=func.now()))
        await revoke_secrets(connection, row["key_id"])
    await _add_first(connection, account_id, secret)


async def _replace_secrets(connection: AsyncConnection, account_id: UUID, key: RowMapping, secret: StoredKey) -> None:
    await revoke_secrets(connection, key["key_id"])
    is_hidden = not key_of(key, 0).may_manage_keys
    await add_secret(connection, key["key_id"], account_id, secret, is_hidden=is_hidden)


async def revoke_secrets(connection: AsyncConnection, key_id: UUID, *, kept: bytes | None = None) -> None:
    """All of them, but for the one whose digest is `kept`."""
    is_live = [api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None)]
    if kept is not None:
        is_live.append(api_keys.c.digest != kept)
    await connection.execute(update(api_keys).where(*is_live).values(revoked_at=func.now()))
