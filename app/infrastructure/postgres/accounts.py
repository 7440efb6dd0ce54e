from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from app.domain.accounts import Account, StoredKey
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.tables import accounts, api_keys

_find_by_key_digest = select(accounts.c.id, accounts.c.external_user_id, accounts.c.balance_tokens).join_from(
    api_keys, accounts, accounts.c.id == api_keys.c.account_id
)


async def ensure_account(connection: AsyncConnection, external_user_id: UUID) -> None:
    await connection.execute(
        insert(accounts).values(id=uuid7(), external_user_id=external_user_id).on_conflict_do_nothing()
    )


async def _lock_account(connection: AsyncConnection, external_user_id: UUID) -> UUID | None:
    """Two calls for one user take turns: what the second one reads afterwards is what the first one left.

    The weaker lock does not wait for the jobs that the user starts meanwhile, which refer to the account.
    """
    account_id: UUID | None = await connection.scalar(
        select(accounts.c.id).where(accounts.c.external_user_id == external_user_id).with_for_update(key_share=True)
    )
    return account_id


@dataclass(frozen=True, slots=True)
class PostgresAccounts:
    engine: AsyncEngine

    async def find_by_key(self, digest: bytes) -> Account | None:
        async with reading(self.engine) as connection:
            found = await connection.execute(
                _find_by_key_digest.where(api_keys.c.digest == digest, api_keys.c.revoked_at.is_(None))
            )
            row = found.one_or_none()
        return Account(*row) if row else None

    async def add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        async with transaction(self.engine, "add_first_key") as connection:
            await ensure_account(connection, external_user_id)
            account_id = await _lock_account(connection, external_user_id)
            if await connection.scalar(select(exists().where(api_keys.c.account_id == account_id))):
                return False
            await connection.execute(insert(api_keys).values(digest=key.digest, hint=key.hint, account_id=account_id))
            return True

    async def replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        async with transaction(self.engine, "replace_key") as connection:
            account_id = await _lock_account(connection, external_user_id)
            if account_id is None:
                return False
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
