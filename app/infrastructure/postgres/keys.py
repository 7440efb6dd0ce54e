from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from app.domain.accounts import Account
from app.domain.errors import CommitUnknown, Unavailable
from app.domain.keys import StoredKey
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, transaction
from app.infrastructure.postgres.statements import Statement, any_of
from app.infrastructure.postgres.tables import accounts, api_keys

_FIND_BY_DIGEST = Statement(
    select(api_keys.c.digest, accounts.c.id, accounts.c.external_user_id, accounts.c.balance_tokens)
    .join(accounts, accounts.c.id == api_keys.c.account_id)
    .where(any_of(api_keys.c.digest, "digests"), api_keys.c.revoked_at.is_(None))
)


async def ensure_account(connection: AsyncConnection, external_user_id: UUID) -> None:
    await connection.execute(
        insert(accounts).values(id=uuid7(), external_user_id=external_user_id).on_conflict_do_nothing()
    )


async def _lock_account(connection: AsyncConnection, external_user_id: UUID) -> UUID | None:
    """Let two calls for one user take turns: what the second one reads afterwards is what the first one left.

    The weaker lock does not wait for the jobs that the user starts meanwhile, which refer to the account.
    """
    account_id: UUID | None = await connection.scalar(
        select(accounts.c.id).where(accounts.c.external_user_id == external_user_id).with_for_update(key_share=True)
    )
    return account_id


async def _find_all(
    driver: DriverConnection, digests: Sequence[bytes], *, is_repeated: bool = False
) -> Sequence[Account | None]:
    found = {row["digest"]: _account_of(row) for row in await _FIND_BY_DIGEST(driver.fetch, digests=digests)}
    return [found.get(digest) for digest in digests]


def _account_of(row: Mapping[str, Any]) -> Account:
    return Account(id=row["id"], external_user_id=row["external_user_id"], balance_tokens=row["balance_tokens"])


async def _has_key(connection: AsyncConnection, key: StoredKey) -> bool:
    """Whether an earlier try wrote the key: nobody else ever makes the same one."""
    return bool(await connection.scalar(select(exists().where(api_keys.c.digest == key.digest))))


class PostgresKeys:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._find: Batcher[bytes, Account | None] = Batcher(engine, _find_all, flushes_max=1)

    async def find_by_key(self, digest: bytes) -> Account | None:
        return await self._find(digest)

    async def add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        return await self._written(partial(self._add_first_key, external_user_id, key))

    async def replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        return await self._written(partial(self._replace_key, external_user_id, key, current))

    async def _written(self, write: Callable[[], Awaitable[bool]]) -> bool:
        """Try again if the COMMIT got no answer: the key may be live, and if it were refused, nobody would know it.

        The second try waits for the account, so for the end of the first one, and finds its own key there.
        """
        try:
            return await write()
        except CommitUnknown:
            try:
                return await write()
            except Unavailable as error:
                raise CommitUnknown from error

    async def _add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        async with transaction(self.engine, "add_first_key") as connection:
            await ensure_account(connection, external_user_id)
            account_id = await _lock_account(connection, external_user_id)
            if await _has_key(connection, key):
                return True
            if await connection.scalar(select(exists().where(api_keys.c.account_id == account_id))):
                return False
            await connection.execute(insert(api_keys).values(digest=key.digest, hint=key.hint, account_id=account_id))
            return True

    async def _replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        async with transaction(self.engine, "replace_key") as connection:
            account_id = await _lock_account(connection, external_user_id)
            if account_id is None:
                return False
            if await _has_key(connection, key):
                return True
            live = update(api_keys).where(api_keys.c.account_id == account_id, api_keys.c.revoked_at.is_(None))
            if current is not None:
                live = live.where(api_keys.c.digest == current)
            revoked = await connection.execute(live.values(revoked_at=func.now()))
            if current is not None and not revoked.rowcount:
                return False
            await connection.execute(insert(api_keys).values(digest=key.digest, hint=key.hint, account_id=account_id))
            return True

    async def revoke_key(self, external_user_id: UUID) -> bool:
        async with transaction(self.engine, "revoke_key") as connection:
            account_id = await _lock_account(connection, external_user_id)
            revoked = await connection.execute(
                update(api_keys)
                .where(api_keys.c.account_id == account_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=func.now())
            )
            return bool(revoked.rowcount)
