"""Events that take tokens of a payment back. What they change is booked by triggers: see revision 0014."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

import asyncpg
from sqlalchemy import Select, Text, bindparam, exists, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import BalanceLimitExceeded, ReversalEventConflict
from app.domain.payments import KEY_SOURCE, WEBHOOK_SOURCE
from app.domain.reversals import PendingReversal, ReversalEvent, Reversed
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, driver_transaction, reading
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, constant
from app.infrastructure.postgres.tables import (
    BALANCE_LIMIT,
    accounts,
    payment_events,
    reversal_events,
)

_COLUMNS = [reversal_events.c[field.name] for field in fields(ReversalEvent)]
_SOURCE, _EVENT_ID, _PAYMENT_ID = (bindparam(name, type_=Text) for name in ("source", "event_id", "payment_event_id"))
_IS_NAMED = (reversal_events.c.source == _SOURCE) & (reversal_events.c.event_id == _EVENT_ID)


def _of_payment(query: Select[Any]) -> Select[Any]:
    return (
        query.where(any_of(payment_events.c.source, "sources"), payment_events.c.event_id == _PAYMENT_ID)
        # Of an id that once named a payment under each header, that of X-Event-Id is meant.
        .order_by(payment_events.c.source.desc())
        .limit(constant(1))
    )


_KNOWN = Statement(select(*_COLUMNS).where(_IS_NAMED))
_ACCOUNT_OF_PAYMENT = Statement(_of_payment(select(payment_events.c.account_id)))
_LOCK_ACCOUNT = Statement(
    select(accounts.c.id)
    .where(accounts.c.id == bindparam("id", type_=accounts.c.id.type))
    .with_for_update(key_share=True)
)
_LOCK_PAYMENT = Statement(select(func.lock_payment(_SOURCE, _PAYMENT_ID)))
_NEW = RowArrays("event", *_COLUMNS)
# If another transaction is just recording the same id, this waits for its commit.
_INSERT = Statement(
    upsert(reversal_events)
    .from_select([column.key for column in _COLUMNS], select(*_NEW.c))
    .on_conflict_do_nothing()
    .returning(reversal_events.c.event_id)
)
_STANDING = func.standing_reversals(_SOURCE, payment_events.c.event_id, literal_column("'{}'::text[]"))
_REVERSED = Statement(
    _of_payment(
        select(
            accounts.c.balance_tokens, func.least(payment_events.c.amount, _STANDING).label("reversed_tokens")
        ).join_from(payment_events, accounts, accounts.c.id == payment_events.c.account_id)
    )
)

_withdrawn = reversal_events.alias("withdrawn")
_HAS_REVERSAL = exists(constant(1)).where(
    _withdrawn.c.source == reversal_events.c.source,
    _withdrawn.c.event_id == reversal_events.c.withdraws,
    _withdrawn.c.payment_event_id == reversal_events.c.payment_event_id,
    _withdrawn.c.amount.is_not(None),
)
_HAS_PAYMENT = exists(constant(1)).where(
    payment_events.c.event_id == reversal_events.c.payment_event_id,
    (payment_events.c.source == reversal_events.c.source)
    | (payment_events.c.source == constant(KEY_SOURCE)) & (reversal_events.c.source == constant(WEBHOOK_SOURCE)),
)
_WAITS = ~_HAS_PAYMENT | (reversal_events.c.withdraws.is_not(None) & ~_HAS_REVERSAL)
_DOES_WAIT = Statement(select(_WAITS.label("waits")).where(_IS_NAMED))

# Payment providers send the event of a payment within minutes, and repeat what was not answered for hours.
OVERDUE_HOURS = 24


class PostgresReversals:
    def __init__(self, engine: AsyncEngine) -> None:
        self._record: Batcher[ReversalEvent, Reversed | None] = Batcher(engine, record_one, size_max=1)

    async def record(self, event: ReversalEvent) -> Reversed | None:
        return await self._record(event)


class PostgresPendingReversals:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def newest(self, *, limit: int) -> Sequence[PendingReversal]:
        query = (
            select(*_COLUMNS, reversal_events.c.received_at)
            .where(_WAITS)
            .order_by(reversal_events.c.received_at.desc(), reversal_events.c.event_id)
            .limit(limit)
        )
        async with reading(self._engine) as connection:
            found = (await connection.execute(query)).mappings()
            return [PendingReversal(event=_event_of(dict(row)), received_at=row["received_at"]) for row in found]

    async def overdue(self) -> Mapping[str, int]:
        """By source, how many have waited for more than OVERDUE_HOURS. None is ever dropped."""
        query = (
            select(reversal_events.c.source, func.count().label("reversals"))
            .where(reversal_events.c.received_at < func.now() - timedelta(hours=OVERDUE_HOURS), _WAITS)
            .group_by(reversal_events.c.source)
            .order_by(reversal_events.c.source)
        )
        async with reading(self._engine) as connection:
            return {row.source: row.reversals for row in await connection.execute(query)}


async def record_one(
    driver: DriverConnection, events: Sequence[ReversalEvent], *, is_repeated: bool = False
) -> Sequence[Reversed | Exception | None]:
    """One in each flush: they are few, and what becomes of one says nothing of the next.

    A repeated try finds what the first one has recorded. Raises BalanceLimitExceeded.
    """
    (event,) = events
    try:
        return [await _recorded(driver, event)]
    except asyncpg.CheckViolationError as error:
        if error.constraint_name == BALANCE_LIMIT:
            raise BalanceLimitExceeded from error
        raise


async def _recorded(driver: DriverConnection, event: ReversalEvent) -> Reversed | Exception | None:
    async with driver_transaction(driver, "reverse"):
        known = await _known(driver, event)
        is_there = known == event or (known is None and await _is_written(driver, event))
        outcome = await _outcome(driver, event) if is_there else None
    if is_there:
        return outcome
    if known is not None:
        return ReversalEventConflict()
    # The payment, or another event of this id, came in between. The next look finds it.
    return await _recorded(driver, event)


async def _known(driver: DriverConnection, event: ReversalEvent) -> ReversalEvent | None:
    rows = await _KNOWN(driver.fetch, source=event.source, event_id=event.event_id)
    return _event_of(rows[0]) if rows else None


async def _is_written(driver: DriverConnection, event: ReversalEvent) -> bool:
    """False: something came in between.

    Locks the payment's account; of a payment that is not known yet its name, on which whoever credits it waits. Who has
    the name does not wait for the account, because whoever waits for the name has locked that.
    """
    found = await _ACCOUNT_OF_PAYMENT(driver.fetch, **_payment_of(event))
    if found:
        await _LOCK_ACCOUNT(driver.fetch, id=found[0]["account_id"])
    else:
        await _LOCK_PAYMENT(driver.fetch, source=event.source, payment_event_id=event.payment_event_id)
        if await _ACCOUNT_OF_PAYMENT(driver.fetch, **_payment_of(event)):
            return False
    return bool(await _INSERT(driver.fetch, **_NEW.values([event])))


async def _outcome(driver: DriverConnection, event: ReversalEvent) -> Reversed | None:
    (row,) = await _DOES_WAIT(driver.fetch, source=event.source, event_id=event.event_id)
    if row["waits"]:
        return None
    (row,) = await _REVERSED(driver.fetch, source=event.source, **_payment_of(event))
    return Reversed(reversed_tokens=int(row["reversed_tokens"]), balance_tokens=row["balance_tokens"])


def _payment_of(event: ReversalEvent) -> Mapping[str, Any]:
    return {
        "sources": [name.source for name in event.payment.as_stored],
        "payment_event_id": event.payment_event_id,
    }


def _event_of(row: Mapping[str, Any]) -> ReversalEvent:
    return ReversalEvent(**{field.name: row[field.name] for field in fields(ReversalEvent)})
