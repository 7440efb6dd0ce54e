"""Accounts as their holders and the operator see them."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.accounts import AccountOverview, AccountUsage, Limit, LimitChanges
from app.domain.budgets import AccountLimits
from app.domain.errors import AccountNotFound
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.jobs.purses import WRITES_IN_MINUTE
from app.infrastructure.postgres.tables import accounts
from app.infrastructure.postgres.writes import count_write

_USAGE = select(
    accounts.c.id,
    accounts.c.unfinished_jobs,
    accounts.c.unfinished_jobs_max,
    WRITES_IN_MINUTE.label("writes_in_this_minute"),
    accounts.c.writes_per_minute,
    accounts.c.reads_per_second,
    accounts.c.weight,
)
_WEIGHT = 1


_OVERVIEW = select(accounts.c.external_user_id, accounts.c.balance_tokens, accounts.c.balance_low_tokens)


class PostgresAccountSettings:
    def __init__(self, engine: AsyncEngine, limits: AccountLimits) -> None:
        """The limits are those of accounts that have none of their own."""
        self.engine = engine
        self._limits = limits

    async def overview(self, account_id: UUID) -> AccountOverview:
        async with reading(self.engine) as connection:
            return await _overview(connection, account_id)

    async def set_balance_low(self, account_id: UUID, tokens: int | None) -> AccountOverview:
        async with transaction(self.engine, "change_account") as connection:
            await count_write(connection, account_id, self._limits)
            await connection.execute(
                update(accounts).where(accounts.c.id == account_id).values(balance_low_tokens=tokens)
            )
            return await _overview(connection, account_id)


async def _overview(connection: AsyncConnection, account_id: UUID) -> AccountOverview:
    row = (await connection.execute(_OVERVIEW.where(accounts.c.id == account_id))).mappings().one()
    return AccountOverview(**row)


class PostgresAccountRecords:
    def __init__(self, engine: AsyncEngine, limits: AccountLimits, reads_per_second: int) -> None:
        """The limits are those of accounts that have none of their own."""
        self.engine = engine
        self._limits = limits
        self._reads_per_second = reads_per_second

    async def usage(self, external_user_id: UUID) -> AccountUsage:
        async with reading(self.engine) as connection:
            return await self._usage(connection, external_user_id)

    async def set_limits(self, external_user_id: UUID, changes: LimitChanges) -> AccountUsage:
        async with transaction(self.engine, "set_limits") as connection:
            if changes:
                await connection.execute(
                    update(accounts).where(accounts.c.external_user_id == external_user_id).values(dict(changes))
                )
            return await self._usage(connection, external_user_id)

    async def _usage(self, connection: AsyncConnection, external_user_id: UUID) -> AccountUsage:
        row = (await connection.execute(_USAGE.where(accounts.c.external_user_id == external_user_id))).one_or_none()
        if row is None:
            raise AccountNotFound
        return self._usage_of(row)

    def _usage_of(self, row: Row[Any]) -> AccountUsage:
        return AccountUsage(
            account_id=row.id,
            unfinished_jobs=row.unfinished_jobs,
            unfinished_jobs_max=_limit(row.unfinished_jobs_max, self._limits.unfinished_jobs_max),
            writes_in_this_minute=row.writes_in_this_minute,
            writes_per_minute=_limit(row.writes_per_minute, self._limits.writes_per_minute),
            reads_per_second=_limit(row.reads_per_second, self._reads_per_second),
            weight=_limit(row.weight, _WEIGHT),
        )


def _limit(own: int | None, default: int) -> Limit:
    return Limit(amount=default if own is None else own, is_own=own is not None)
