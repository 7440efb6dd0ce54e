from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.budgets import Window
from app.domain.ledger import EntryKind, LedgerEntry, Recounted, Violation
from app.domain.newer_words import known
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.keys.windows import Spent, recount_windows, sum_running_windows
from app.infrastructure.postgres.tables import accounts, adjustments, jobs, keys, ledger_entries


def _of_adjustment(name: str) -> ColumnElement[Any]:
    """By a subquery, so that no plan reads all adjustments."""
    is_its_own = adjustments.c.id == ledger_entries.c.adjustment_id
    return select(adjustments.c[name]).where(is_its_own).scalar_subquery().label(name)


_OTHERS: Mapping[str, ColumnElement[Any]] = {
    "payment_source": func.coalesce(ledger_entries.c.payment_source, ledger_entries.c.reversed_source).label(
        "payment_source"
    ),
    "reason": _of_adjustment("reason"),
    "actor": _of_adjustment("actor"),
}
_COLUMNS = [
    _OTHERS[field.name] if field.name in _OTHERS else ledger_entries.c[field.name] for field in fields(LedgerEntry)
]

# What the view calls them.
_COUNTER_OF_ACCOUNT = "the account counts its unfinished jobs"
_COUNTER_OF_KEY = "a window counts what its jobs cost"


class PostgresLedger:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def entries(
        self, external_user_id: UUID, *, limit: int, before_seq: int | None = None
    ) -> Sequence[LedgerEntry]:
        query = (
            select(*_COLUMNS)
            # With a subquery instead of a join the entries come in order from their index, however many there are.
            .where(
                ledger_entries.c.account_id
                == select(accounts.c.id).where(accounts.c.external_user_id == external_user_id).scalar_subquery()
            )
            .order_by(ledger_entries.c.seq.desc())
            .limit(limit)
        )
        if before_seq is not None:
            query = query.where(ledger_entries.c.seq < before_seq)
        async with reading(self.engine) as connection:
            found = (await connection.execute(query)).mappings()
            return [_entry_of(row) for row in found]

    async def violations(self) -> Sequence[Violation]:
        async with transaction(self.engine, "violations") as connection:
            # The view reads whole tables. The limits are for requests.
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(text("SET LOCAL enable_seqscan = on"))
            found = await connection.execute(text("SELECT invariant, subject FROM ledger_violations"))
            return [Violation(**row) for row in found.mappings()]

    async def recount(self) -> AsyncIterator[Recounted]:
        named = await self.violations()
        account_ids = {UUID(each.subject) for each in named if each.invariant == _COUNTER_OF_ACCOUNT}
        key_ids = [UUID(each.subject) for each in named if each.invariant == _COUNTER_OF_KEY]
        async with reading(self.engine) as connection:
            account_ids.update(await connection.scalars(select(keys.c.account_id).where(keys.c.id.in_(key_ids))))
        for account_id in sorted(account_ids):
            # Of many jobs it takes long, and the account goes on meanwhile.
            async with transaction(self.engine, "sum_running_windows") as connection:
                await connection.execute(text("SET LOCAL statement_timeout = 0"))
                sums = await sum_running_windows(connection, account_id)
            async with transaction(self.engine, "recount") as connection:
                changed = await _recount_account(connection, account_id, sums)
            for each in changed:
                yield each


async def entries_of(
    connection: AsyncConnection, keys_of_entries: Sequence[tuple[UUID, int]]
) -> Mapping[tuple[UUID, int], LedgerEntry]:
    """By account and number."""
    key = tuple_(ledger_entries.c.account_id, ledger_entries.c.seq)
    query = select(ledger_entries.c.account_id, *_COLUMNS).where(key.in_(keys_of_entries))
    found = (await connection.execute(query)).mappings()
    return {(row["account_id"], row["seq"]): _entry_of(row) for row in found}


def _entry_of(row: Mapping[Any, Any]) -> LedgerEntry:
    values = {field.name: row[field.name] for field in fields(LedgerEntry)}
    return LedgerEntry(**{**values, "kind": known(EntryKind, row["kind"])})


async def _recount_account(
    connection: AsyncConnection, account_id: UUID, sums: Mapping[tuple[UUID, Window], Spent]
) -> Sequence[Recounted]:
    """Whoever accepts or ends a job changes the counters under the lock of the account, and keeps it until the commit:
    what is counted once the lock is there is what the counters have been told.
    """
    await connection.execute(text("SET LOCAL statement_timeout = 0"))
    is_account = accounts.c.id == account_id
    before = await connection.scalar(
        select(accounts.c.unfinished_jobs).where(is_account).with_for_update(key_share=True)
    )
    after = await connection.scalar(
        select(func.count()).select_from(jobs).where(jobs.c.account_id == account_id, ~jobs.c.is_final)
    )
    windows = await recount_windows(connection, account_id, sums)
    if before is None or after is None or before == after:
        return windows
    await connection.execute(update(accounts).where(is_account).values(unfinished_jobs=after))
    return [Recounted(counter="unfinished_jobs", subject=account_id, before=before, after=after), *windows]
