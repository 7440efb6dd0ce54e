from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.errors import BalanceLimitExceeded, PaymentEventConflict
from app.domain.ledger import EntryKind, LedgerEntry, PaymentEvent, Violation
from app.infrastructure.postgres.accounts import ensure_account
from app.infrastructure.postgres.database import reading, transaction, violated_constraint
from app.infrastructure.postgres.tables import BALANCE_LIMIT, accounts, ledger_entries, payment_events


@dataclass(frozen=True, slots=True)
class PostgresTokens:
    engine: AsyncEngine

    async def credit(self, event: PaymentEvent) -> bool:
        try:
            async with transaction(self.engine, "credit") as connection:
                return await _credit(connection, event)
        except IntegrityError as error:
            if violated_constraint(error) == BALANCE_LIMIT:
                raise BalanceLimitExceeded from error
            raise

    async def entries(
        self, external_user_id: UUID, *, limit: int, before_seq: int | None = None
    ) -> Sequence[LedgerEntry]:
        query = (
            select(
                ledger_entries.c.seq,
                ledger_entries.c.kind,
                ledger_entries.c.amount,
                ledger_entries.c.balance_after,
                ledger_entries.c.job_id,
                ledger_entries.c.payment_event_id,
                ledger_entries.c.created_at,
            )
            .join(accounts, accounts.c.id == ledger_entries.c.account_id)
            .where(accounts.c.external_user_id == external_user_id)
            .order_by(ledger_entries.c.seq.desc())
            .limit(limit)
        )
        if before_seq is not None:
            query = query.where(ledger_entries.c.seq < before_seq)
        async with reading(self.engine) as connection:
            found = await connection.execute(query)
            return [LedgerEntry(seq, EntryKind(kind), *rest) for seq, kind, *rest in found]

    async def violations(self) -> Sequence[Violation]:
        async with transaction(self.engine, "violations") as connection:
            # Reads everything there is; the limit is for requests.
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            found = await connection.execute(text("SELECT invariant, subject FROM ledger_violations"))
            return [Violation(*row) for row in found]


async def _credit(connection: AsyncConnection, event: PaymentEvent) -> bool:
    await ensure_account(connection, event.external_user_id)
    account_id = await connection.scalar(
        select(accounts.c.id).where(accounts.c.external_user_id == event.external_user_id)
    )
    # A delivery of the same event that runs right now makes this wait for its commit.
    recorded = await connection.execute(
        upsert(payment_events)
        .values(source=event.source, event_id=event.event_id, account_id=account_id, amount=event.amount)
        .on_conflict_do_nothing(index_elements=["source", "event_id"])
    )
    if not recorded.rowcount:
        known = await connection.execute(
            select(payment_events.c.account_id, payment_events.c.amount).where(
                payment_events.c.source == event.source, payment_events.c.event_id == event.event_id
            )
        )
        if tuple(known.one()) != (account_id, event.amount):
            raise PaymentEventConflict
        return False
    await connection.execute(
        insert(ledger_entries).values(
            account_id=account_id,
            kind=EntryKind.CREDIT.value,
            amount=event.amount,
            payment_source=event.source,
            payment_event_id=event.event_id,
        )
    )
    return True
