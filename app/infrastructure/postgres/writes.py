"""The count of what an account writes in a minute, for requests that debit nothing: a debit counts by its entry."""

from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import AccountLimits
from app.domain.limits import TooManyWrites
from app.infrastructure.postgres.jobs.purses import MINUTE_OF_WRITES, WRITES_IN_MINUTE, WRITES_PER_MINUTE, defaults
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import accounts

_COUNT = update(accounts).values(writes=WRITES_IN_MINUTE + constant(1), writes_minute=MINUTE_OF_WRITES)
_FITS = or_(~(constant(0) < WRITES_PER_MINUTE), WRITES_IN_MINUTE < WRITES_PER_MINUTE)
_LIMIT = select(WRITES_PER_MINUTE.label("writes_per_minute"), func.now().label("now"))


async def count_write(
    connection: AsyncConnection, account_id: UUID, limits: AccountLimits, *, is_refusable: bool = True
) -> None:
    """Count one write, with the transaction that it is part of. Locks the account row.

    Raises TooManyWrites, unless it is not `is_refusable`.
    """
    is_of_account = accounts.c.id == account_id
    if not is_refusable:
        await connection.execute(_COUNT.where(is_of_account))
        return
    values = {"default_writes_per_minute": defaults(limits)["default_writes_per_minute"]}
    counted = await connection.execute(_COUNT.where(is_of_account, _FITS), values)
    if not counted.rowcount:
        row = (await connection.execute(_LIMIT.where(is_of_account), values)).one()
        raise TooManyWrites(row.writes_per_minute, retry_after_seconds=60 - row.now.second)
