"""The count of what an account writes in a minute, for requests that debit nothing: a debit counts by its entry."""

from collections.abc import Mapping
from typing import Any
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
_LIMIT = select(WRITES_PER_MINUTE.label("writes_per_minute"), _FITS.label("fits"), func.now().label("now"))


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
    counted = await connection.execute(_COUNT.where(is_of_account, _FITS), _defaults(limits))
    if not counted.rowcount:
        await check_writes(connection, account_id, limits)


async def check_writes(connection: AsyncConnection, account_id: UUID, limits: AccountLimits) -> None:
    """For what counts later, or only if it fails. Raises TooManyWrites."""
    row = (await connection.execute(_LIMIT.where(accounts.c.id == account_id), _defaults(limits))).one()
    if not row.fits:
        raise TooManyWrites(row.writes_per_minute, retry_after_seconds=60 - row.now.second)


def _defaults(limits: AccountLimits) -> Mapping[str, Any]:
    return {"default_writes_per_minute": defaults(limits)["default_writes_per_minute"]}
