"""The windows of a budget that becomes another one. What was spent is what the jobs of the key cost, less refunds.

However many jobs a key has, its account is locked for a moment only: their sum is made before, and the lock sees what
has been booked since. The sum of both is exact, because each change of it is an entry of the account's ledger:

- A job and its debit, and what a job gives back and its refund, are each written by one transaction, and neither ever
  changes afterwards: foreign keys and triggers hold that, whoever writes.
- An entry takes its number while it holds the account, which it keeps until it commits. So entries become visible in
  the order of their numbers, and none below `entry_count` is still to come.
- A statement sees the jobs, the entries and that number as of one moment. What it sums up is therefore what the entries
  up to that number make, no more and no less, and the entries after it are exactly what is missing.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.budgets import Budget, Window
from app.domain.errors import Overloaded
from app.domain.ledger import EntryKind, Recounted
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import accounts, jobs, key_windows, keys, ledger_entries

# Accepts that began so long ago may still wait for the account, and count in the window of their own moment.
_LATE_ACCEPT = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a key had spent in a window, as of the entry of its account that has this number."""

    tokens: int
    entry_count: int


class WindowsNotSummed(Exception):
    """The account must not be locked while the sums of these windows are made."""

    def __init__(self, windows: Set[Window]) -> None:
        super().__init__(windows)
        self.windows = windows


async def sum_windows(
    connection: AsyncConnection, account_id: UUID, key_id: UUID, windows: Set[Window]
) -> Mapping[Window, Spent]:
    """Reads all jobs of the account in the windows, and locks no row.

    Raises Overloaded while another sum of the account is made, in any process: each takes a processor, and whoever
    waited for it here would keep a connection from others.
    """
    if not await connection.scalar(select(func.pg_try_advisory_xact_lock(_turn_of(account_id)))):
        raise Overloaded(
            "Another change of a budget of your account is still being worked out. Nothing was changed. "
            "Try again in a few seconds."
        )
    sums = {window: await _sum_of_jobs(connection, account_id, key_id, window) for window in windows}
    # Where that took long, much was booked meanwhile, which nobody has to wait for either.
    return {window: await _brought_up(connection, account_id, key_id, window, spent) for window, spent in sums.items()}


async def renew_windows(
    connection: AsyncConnection, account_id: UUID, key_id: UUID, budget: Budget | None, sums: Mapping[Window, Spent]
) -> None:
    """Make the windows of the key those of this budget. The account is locked, so that nothing is spent meanwhile.

    Raises WindowsNotSummed, for which the transaction has to be rolled back.
    """
    moments = (await connection.execute(select(func.now().label("began"), func.clock_timestamp().label("now")))).one()
    since = moments.began - _LATE_ACCEPT
    wanted = set() if budget is None else {budget.window(it) for it in (since, moments.began, moments.now)}
    found = await connection.execute(
        select(key_windows.c.starts_at, key_windows.c.ends_at).where(
            key_windows.c.key_id == key_id, key_windows.c.ends_at > since
        )
    )
    known = {Window(row.starts_at, row.ends_at) for row in found}
    if not wanted - known <= sums.keys():
        raise WindowsNotSummed(wanted - known - sums.keys())
    for window in known - wanted:
        await connection.execute(delete(key_windows).where(*_is(key_id, window)))
    if budget is None:
        return
    for window in known & wanted:
        await connection.execute(update(key_windows).where(*_is(key_id, window)).values(limit_tokens=budget.tokens))
    for window in wanted - known:
        spent = await _brought_up(connection, account_id, key_id, window, sums[window])
        await _add(connection, key_id, window, limit_tokens=budget.tokens, spent_tokens=spent.tokens)


async def sum_running_windows(connection: AsyncConnection, account_id: UUID) -> Mapping[tuple[UUID, Window], Spent]:
    """What each window of the account's keys should count. Locks no row."""
    sums = {}
    for row in (await connection.execute(_running_windows(account_id))).all():
        window = Window(row.starts_at, row.ends_at)
        sums[row.key_id, window] = await _sum_of_jobs(connection, account_id, row.key_id, window)
    return sums


async def recount_windows(
    connection: AsyncConnection, account_id: UUID, sums: Mapping[tuple[UUID, Window], Spent]
) -> Sequence[Recounted]:
    """Make the running windows of the account's keys count what was spent. The account is locked.

    One that is not among the sums, because it has begun since, has few jobs.
    """
    found = await connection.execute(_running_windows(account_id).with_for_update(of=key_windows))
    changed = []
    for row in found.all():
        window = Window(row.starts_at, row.ends_at)
        before = sums.get((row.key_id, window))
        if before is None:
            before = await _sum_of_jobs(connection, account_id, row.key_id, window)
        spent_tokens = (await _brought_up(connection, account_id, row.key_id, window, before)).tokens
        if spent_tokens == row.spent_tokens:
            continue
        # A row that counted too little may have let too much through, and none may be changed to more than its limit.
        await connection.execute(delete(key_windows).where(*_is(row.key_id, window)))
        await _add(connection, row.key_id, window, limit_tokens=row.limit_tokens, spent_tokens=spent_tokens)
        changed.append(
            Recounted(counter="spent_tokens", subject=row.key_id, before=row.spent_tokens, after=spent_tokens)
        )
    return changed


def _running_windows(account_id: UUID) -> Select[Any]:
    return (
        select(key_windows)
        .join(keys, keys.c.id == key_windows.c.key_id)
        .where(keys.c.account_id == account_id, key_windows.c.ends_at > func.now())
        .order_by(key_windows.c.key_id, key_windows.c.starts_at)
    )


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


async def _sum_of_jobs(connection: AsyncConnection, account_id: UUID, key_id: UUID, window: Window) -> Spent:
    tokens = select(func.sum(jobs.c.cost_tokens - jobs.c.refunded_tokens)).where(
        jobs.c.account_id == account_id, *_are_charged_to(key_id, window)
    )
    return await _spent(connection, account_id, tokens)


async def _brought_up(
    connection: AsyncConnection, account_id: UUID, key_id: UUID, window: Window, before: Spent
) -> Spent:
    """Adds what has been booked since. The time that it takes is that of these entries."""
    change = case(
        (ledger_entries.c.kind == constant(EntryKind.DEBIT), ledger_entries.c.amount),
        (ledger_entries.c.kind == constant(EntryKind.REFUND), -ledger_entries.c.amount),
    )
    # By a subquery, so that no plan reads all jobs of the account for the few that these entries are of.
    is_charged = select(and_(*_are_charged_to(key_id, window))).where(jobs.c.id == ledger_entries.c.job_id)
    changes = select(func.sum(change)).where(
        ledger_entries.c.account_id == account_id,
        ledger_entries.c.seq > before.entry_count,
        is_charged.scalar_subquery(),
    )
    since = await _spent(connection, account_id, changes)
    return Spent(before.tokens + since.tokens, since.entry_count)


async def _spent(connection: AsyncConnection, account_id: UUID, tokens: Select[tuple[int]]) -> Spent:
    """In one statement, so that the sum and the number are of one moment."""
    entry_count: ScalarSelect[int] = select(accounts.c.entry_count).where(accounts.c.id == account_id).scalar_subquery()
    found = await connection.execute(
        select(func.coalesce(tokens.scalar_subquery(), constant(0)).label("tokens"), entry_count.label("entry_count"))
    )
    row = found.one()
    return Spent(int(row.tokens), row.entry_count)


def _are_charged_to(key_id: UUID, window: Window) -> tuple[ColumnElement[bool], ...]:
    return (
        jobs.c.key_id == key_id,
        jobs.c.created_at >= window.starts_at,
        jobs.c.created_at < window.ends_at,
    )


def _turn_of(account_id: UUID) -> ColumnElement[int]:
    return func.hashtextextended(f"sums of {account_id}", constant(0))


def _is(key_id: UUID, window: Window) -> tuple[ColumnElement[bool], ...]:
    return (
        key_windows.c.key_id == key_id,
        key_windows.c.starts_at == window.starts_at,
        key_windows.c.ends_at == window.ends_at,
    )
