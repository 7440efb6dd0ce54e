"""Crediting payment events, many of them in one transaction: each event once, with its ledger entry."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.domain.errors import BalanceLimitExceeded, CommitUnknown, PaymentEventConflict
from app.domain.ledger import BALANCE_TOKENS_MAX
from app.domain.payments import PaymentEvent
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, driver_transaction

# Whether this delivery credited: False for an event that was credited before.
Decision = bool | PaymentEventConflict | BalanceLimitExceeded
Name = tuple[str, str]

_KNOWN_EVENTS = """
    SELECT known.source, known.event_id, account.external_user_id, known.amount
      FROM unnest($1::text[], $2::text[]) AS name (source, event_id)
      JOIN payment_events AS known ON (known.source, known.event_id) = (name.source, name.event_id)
      JOIN accounts AS account ON account.id = known.account_id
"""
# Before any account is locked, and in one order: whoever waits here for another transaction's new account holds
# nothing but new ones itself.
_ADD_ACCOUNTS = """
    INSERT INTO accounts (id, external_user_id)
    SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS wanted (id, external_user_id)
     WHERE NOT EXISTS (SELECT FROM accounts WHERE external_user_id = wanted.external_user_id)
     ORDER BY external_user_id
    ON CONFLICT DO NOTHING
"""
# In the order of their ids, so that two transactions never wait for each other.
_LOCK_ACCOUNTS = """
    SELECT external_user_id, id, balance_tokens FROM accounts WHERE external_user_id = ANY($1::uuid[])
     ORDER BY id FOR NO KEY UPDATE
"""
# A delivery of the same event for another user that runs right now makes this wait for its commit.
_INSERT_EVENTS = """
    INSERT INTO payment_events (source, event_id, account_id, amount)
    SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[])
        AS event (source, event_id, account_id, amount)
     ORDER BY source, event_id
    ON CONFLICT (source, event_id) DO NOTHING RETURNING source, event_id
"""
_INSERT_CREDITS = """
    INSERT INTO ledger_entries (payment_source, payment_event_id, account_id, amount, kind)
    SELECT source, event_id, account_id, amount, 'CREDIT'
      FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) AS event (source, event_id, account_id, amount)
"""


class PostgresPayments:
    def __init__(self, engine: AsyncEngine) -> None:
        self._credit: Batcher[PaymentEvent, bool] = Batcher(engine, credit_all)

    async def credit(self, event: PaymentEvent) -> bool:
        return await self._credit(event)


@dataclass(frozen=True, slots=True)
class _Books:
    """What the events are decided by; it changes with each decision, so that the next one sees it."""

    account_ids: dict[UUID, UUID]
    balances: dict[UUID, int]
    known: dict[Name, PaymentEvent]
    fresh: list[PaymentEvent] = field(default_factory=list)

    def decide(self, event: PaymentEvent) -> Decision:
        known = self.known.get(_name(event))
        if known is not None:
            return False if known == event else PaymentEventConflict()
        balance = self.balances.get(event.external_user_id, 0) + event.amount
        if balance > BALANCE_TOKENS_MAX:
            return BalanceLimitExceeded()
        self.balances[event.external_user_id] = balance
        self.known[_name(event)] = event
        self.fresh.append(event)
        return True


async def credit_all(
    driver: DriverConnection, events: Sequence[PaymentEvent], *, is_repeated: bool = False
) -> Sequence[Decision]:
    """Creates accounts where needed, and locks them in the order of their ids.

    A repeated try needs no more than the first one: should that still run, this waits for its accounts, or for its
    events, which are known then.
    """
    async with driver_transaction(driver, "credit"):
        books = await _open_books(driver, events)
        decisions = [books.decide(event) for event in events]
        overtaken = await _write(driver, books) if books.fresh else set()
    if not overtaken:
        return decisions
    # Another transaction recorded them first. They are known now.
    try:
        again = iter(await credit_all(driver, [event for event in events if _name(event) in overtaken]))
    except Exception as error:
        # The others are credited, and must not be told that nothing was done.
        raise CommitUnknown from error
    return [
        next(again) if _name(event) in overtaken else decision
        for event, decision in zip(events, decisions, strict=True)
    ]


async def _open_books(driver: DriverConnection, events: Sequence[PaymentEvent]) -> _Books:
    rows = await driver.fetch(_KNOWN_EVENTS, [event.source for event in events], [event.event_id for event in events])
    known = {(row[0], row[1]): PaymentEvent(*row) for row in rows}
    # No account for a user whose payment is refused: of one event id the first content counts.
    first = {_name(event): event for event in reversed(events)}
    fits = [event for name, event in first.items() if name not in known and event.amount <= BALANCE_TOKENS_MAX]
    users = list({event.external_user_id for event in fits})
    if not users:
        return _Books({}, {}, known)
    await driver.fetch(_ADD_ACCOUNTS, [uuid7() for _ in users], users)
    accounts = await driver.fetch(_LOCK_ACCOUNTS, users)
    return _Books(
        account_ids={row[0]: row[1] for row in accounts}, balances={row[0]: row[2] for row in accounts}, known=known
    )


async def _write(driver: DriverConnection, books: _Books) -> set[Name]:
    """The names of the events that were recorded by another transaction meanwhile; all others are credited."""
    rows = await driver.fetch(_INSERT_EVENTS, *_columns(books, books.fresh))
    recorded = {(row[0], row[1]) for row in rows}
    await driver.fetch(_INSERT_CREDITS, *_columns(books, [event for event in books.fresh if _name(event) in recorded]))
    return {_name(event) for event in books.fresh} - recorded


def _columns(books: _Books, events: Sequence[PaymentEvent]) -> tuple[list[str], list[str], list[UUID], list[int]]:
    return (
        [event.source for event in events],
        [event.event_id for event in events],
        [books.account_ids[event.external_user_id] for event in events],
        [event.amount for event in events],
    )


def _name(event: PaymentEvent) -> Name:
    return (event.source, event.event_id)
