"""The windows of a budget that becomes another one. What was spent is what the jobs of the key cost, less refunds."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import Budget, Window
from app.domain.ledger import Recounted
from app.infrastructure.postgres.tables import jobs, key_windows, keys

# Accepts that began so long ago may still wait for the account, and count in the window of their own moment.
_LATE_ACCEPT = timedelta(minutes=1)


async def renew_windows(connection: AsyncConnection, account_id: UUID, key_id: UUID, budget: Budget | None) -> None:
    """Make the windows of the key those of this budget. The account is locked, so that nothing is spent meanwhile."""
    moments = (await connection.execute(select(func.now().label("began"), func.clock_timestamp().label("now")))).one()
    since = moments.began - _LATE_ACCEPT
    wanted = set() if budget is None else {budget.window(it) for it in (since, moments.began, moments.now)}
    found = await connection.execute(
        select(key_windows.c.starts_at, key_windows.c.ends_at).where(
            key_windows.c.key_id == key_id, key_windows.c.ends_at > since
        )
    )
    known = {Window(row.starts_at, row.ends_at) for row in found}
    for window in known - wanted:
        await connection.execute(delete(key_windows).where(*_is(key_id, window)))
    if budget is None:
        return
    for window in known & wanted:
        await connection.execute(update(key_windows).where(*_is(key_id, window)).values(limit_tokens=budget.tokens))
    for window in wanted - known:
        spent_tokens = await _spent_tokens(connection, account_id, key_id, window)
        await _add(connection, key_id, window, limit_tokens=budget.tokens, spent_tokens=spent_tokens)


async def recount_windows(connection: AsyncConnection, account_id: UUID) -> Sequence[Recounted]:
    """Make the running windows of the account's keys count what was spent. The account is locked."""
    found = await connection.execute(
        select(key_windows)
        .join(keys, keys.c.id == key_windows.c.key_id)
        .where(keys.c.account_id == account_id, key_windows.c.ends_at > func.now())
        .order_by(key_windows.c.key_id, key_windows.c.starts_at)
        .with_for_update(of=key_windows)
    )
    changed = []
    for row in found.all():
        window = Window(row.starts_at, row.ends_at)
        spent_tokens = await _spent_tokens(connection, account_id, row.key_id, window)
        if spent_tokens == row.spent_tokens:
            continue
        # A row that counted too little may have let too much through, and none may be changed to more than its limit.
        await connection.execute(delete(key_windows).where(*_is(row.key_id, window)))
        await _add(connection, row.key_id, window, limit_tokens=row.limit_tokens, spent_tokens=spent_tokens)
        changed.append(
            Recounted(counter="spent_tokens", subject=row.key_id, before=row.spent_tokens, after=spent_tokens)
        )
    return changed


async def _add(
    connection: AsyncConnection, key_id: UUID, window: Window, *, limit_tokens: int, spent_tokens: int
) -> None:
    await connection.execute(
        insert(key_windows).values(
            key_id=key_id,
            starts_at=window.starts_at,
            ends_at=window.ends_at,
            limit_tokens=limit_tokens,
            spent_tokens=spent_tokens,
        )
    )


async def _spent_tokens(connection: AsyncConnection, account_id: UUID, key_id: UUID, window: Window) -> int:
    spent = await connection.scalar(
        select(func.sum(jobs.c.cost_tokens - jobs.c.refunded_tokens)).where(
            jobs.c.account_id == account_id,
            jobs.c.key_id == key_id,
            jobs.c.created_at >= window.starts_at,
            jobs.c.created_at < window.ends_at,
        )
    )
    return int(spent or 0)


def _is(key_id: UUID, window: Window) -> tuple[ColumnElement[bool], ...]:
    return (
        key_windows.c.key_id == key_id,
        key_windows.c.starts_at == window.starts_at,
        key_windows.c.ends_at == window.ends_at,
    )
