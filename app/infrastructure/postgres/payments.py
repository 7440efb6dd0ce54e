"""Crediting payment events, many of them in one transaction: each event once, with its ledger entry."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import exists, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.domain.errors import CommitUnknown
from app.domain.ledger import BALANCE_TOKENS_MAX, EntryKind
from app.domain.payments import (
    WEBHOOK_SOURCE,
    CreditDecision,
    EventName,
    PaymentEvent,
    current_source,
    decide_credits,
)
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.refused_payments import record_refusal
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, constant
from app.infrastructure.postgres.tables import accounts, ledger_entries, payment_events


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewAccount:
    id: UUID
    external_user_id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class _EventRow:
    source: str
    event_id: str
    account_id: UUID
    amount: int

    @classmethod
    def of(cls, event: PaymentEvent, account_id: UUID) -> "_EventRow":
        return cls(source=event.source, event_id=event.event_id, account_id=account_id, amount=event.amount)


_NAMES = RowArrays("named", payment_events.c.source, payment_events.c.event_id)
_KNOWN_EVENTS = Statement(
    select(payment_events.c.source, payment_events.c.event_id, accounts.c.external_user_id, payment_events.c.amount)
    .join_from(
        _NAMES.table,
        payment_events,
        (payment_events.c.source == _NAMES.c.source) & (payment_events.c.event_id == _NAMES.c.event_id),
    )
    .join(accounts, accounts.c.id == payment_events.c.account_id)
)
_NEW_ACCOUNTS = RowArrays("wanted", accounts.c.id, accounts.c.external_user_id)
# Accounts are added before any is locked, and in one order: whoever waits here for another transaction's new account
# holds nothing but new ones.
_ADD_ACCOUNTS = Statement(
    upsert(accounts)
    .from_select(
        ["id", "external_user_id"],
        select(*_NEW_ACCOUNTS.c)
        .where(~exists(select(accounts.c.id).where(accounts.c.external_user_id == _NEW_ACCOUNTS.c.external_user_id)))
        .order_by(_NEW_ACCOUNTS.c.external_user_id),
    )
    .on_conflict_do_nothing()
)
# Locked in the order of their ids, so that two transactions never wait for each other.
_LOCK_ACCOUNTS = Statement(
    select(accounts.c.external_user_id, accounts.c.id, accounts.c.balance_tokens)
    .where(any_of(accounts.c.external_user_id, "external_user_ids"))
    .order_by(accounts.c.id)
    .with_for_update(key_share=True)
)
_EVENT_COLUMNS = (
    payment_events.c.source,
    payment_events.c.event_id,
    payment_events.c.account_id,
    payment_events.c.amount,
)
_NEW_EVENTS = RowArrays("event", *_EVENT_COLUMNS)
# If another transaction is just recording the same event, this waits for its commit. So it does if a process of an
# older release records it under the name of the other header: then a trigger leaves the row out.
_INSERT_EVENTS = Statement(
    upsert(payment_events)
    .from_select(
        [*(column.key for column in _EVENT_COLUMNS), payment_events.c.is_of_plain_webhook.key],
        select(*_NEW_EVENTS.c, _NEW_EVENTS.c.source == constant(WEBHOOK_SOURCE)).order_by(
            _NEW_EVENTS.c.source, _NEW_EVENTS.c.event_id
        ),
    )
    .on_conflict_do_nothing()
    .returning(payment_events.c.source, payment_events.c.event_id)
)
_INSERT_CREDITS = Statement(
    insert(ledger_entries).from_select(
        ["payment_source", "payment_event_id", "account_id", "amount", "kind"],
        select(*_NEW_EVENTS.c, constant(EntryKind.CREDIT)),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Books:
    """What the events are decided by, under the locks of the accounts."""

    recorded: Collection[PaymentEvent]
    account_ids: Mapping[UUID, UUID]
    balances_tokens: Mapping[UUID, int]


class PostgresPayments:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._credit: Batcher[PaymentEvent, bool] = Batcher(engine, credit_all)

    async def credit(self, event: PaymentEvent) -> bool:
        return await self._credit(event)

    async def record_refusal(self, event: PaymentEvent, reason: str) -> int | None:
        return await record_refusal(self._engine, event, reason)


async def credit_all(
    driver: DriverConnection, events: Sequence[PaymentEvent], *, is_repeated: bool = False
) -> Sequence[CreditDecision]:
    """Creates accounts where needed, and locks them in the order of their ids.

    A repeated try needs no more than the first one: should that still run, this waits for its accounts, or for its
    events, which are known then.
    """
    async with driver_transaction(driver, "credit"):
        books = await _open_books(driver, events)
        decisions = decide_credits(events, known=books.recorded, balances_tokens=books.balances_tokens)
        credited = [event for event, decision in zip(events, decisions, strict=True) if decision is True]
        overtaken = await _write(driver, books, credited) if credited else set()
    if not overtaken:
        return decisions
    # Another transaction recorded these events first. They are known now.
    try:
        again = iter(await credit_all(driver, [event for event in events if event.name in overtaken]))
    except Exception as error:
        # The other events are credited, and their callers must not be told that nothing was done.
        raise CommitUnknown from error
    return [
        next(again) if event.name in overtaken else decision for event, decision in zip(events, decisions, strict=True)
    ]


async def _open_books(driver: DriverConnection, events: Sequence[PaymentEvent]) -> _Books:
    names = [name for event in events for name in event.name.as_stored]
    rows = await _KNOWN_EVENTS(driver.fetch, **_NAMES.values(names))
    recorded = [PaymentEvent(**{**row, "source": current_source(row["source"])}) for row in rows]
    known = {event.name for event in recorded}
    fits = [event for event in events if event.name not in known and event.amount <= BALANCE_TOKENS_MAX]
    if not fits:
        return _Books(recorded=recorded, account_ids={}, balances_tokens={})
    # A user whose payment is refused gets no account. Of one event id the first content counts, as a rule.
    first = {event.name: event for event in reversed(fits)}
    await _add_accounts(driver, {event.external_user_id for event in first.values()})
    locked = await _LOCK_ACCOUNTS(driver.fetch, external_user_ids=list({event.external_user_id for event in fits}))
    return _Books(
        recorded=recorded,
        account_ids={row["external_user_id"]: row["id"] for row in locked},
        balances_tokens={row["external_user_id"]: row["balance_tokens"] for row in locked},
    )


async def _add_accounts(driver: DriverConnection, users: Collection[UUID]) -> None:
    """For those who have none."""
    new_accounts = [_NewAccount(id=uuid7(), external_user_id=user) for user in users]
    await _ADD_ACCOUNTS(driver.fetch, **_NEW_ACCOUNTS.values(new_accounts))


async def _account_ids(
    driver: DriverConnection, books: _Books, credited: Collection[PaymentEvent]
) -> Mapping[UUID, UUID]:
    """By user. One of them may have none yet, where the first content of an event did not fit that user's balance."""
    missing = {event.external_user_id for event in credited} - books.account_ids.keys()
    if not missing:
        return books.account_ids
    await _add_accounts(driver, missing)
    locked = await _LOCK_ACCOUNTS(driver.fetch, external_user_ids=list(missing))
    return {**books.account_ids, **{row["external_user_id"]: row["id"] for row in locked}}


async def _write(driver: DriverConnection, books: _Books, credited: Collection[PaymentEvent]) -> set[EventName]:
    """The names of the events that were recorded by another transaction meanwhile; all others are credited."""
    account_ids = await _account_ids(driver, books, credited)
    rows = [_EventRow.of(event, account_ids[event.external_user_id]) for event in credited]
    inserted = await _INSERT_EVENTS(driver.fetch, **_NEW_EVENTS.values(rows))
    recorded = {EventName(row["source"], row["event_id"]) for row in inserted}
    entries = [row for row in rows if EventName(row.source, row.event_id) in recorded]
    await _INSERT_CREDITS(driver.fetch, **_NEW_EVENTS.values(entries))
    return {event.name for event in credited} - recorded
