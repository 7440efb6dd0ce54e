from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.ledger import EntryKind, LedgerEntry, Violation
from app.domain.newer_words import known
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.tables import accounts, adjustments, ledger_entries


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
            return [LedgerEntry(**{**row, "kind": known(EntryKind, row["kind"])}) for row in found]

    async def violations(self) -> Sequence[Violation]:
        async with transaction(self.engine, "violations") as connection:
            # The view reads whole tables. The limits are for requests.
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(text("SET LOCAL enable_seqscan = on"))
            found = await connection.execute(text("SELECT invariant, subject FROM ledger_violations"))
            return [Violation(**row) for row in found.mappings()]
