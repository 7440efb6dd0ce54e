"""Payments that were refused for good, until somebody has dealt with them."""

from collections.abc import Collection, Sequence
from dataclasses import fields

from sqlalchemy import case, exists, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.payments import PaymentEvent, RefusedPayment
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.tables import accounts, payment_events, refused_payments

# One row takes some 200 bytes. Whoever has the secret of a source can make up as many payments as they like.
REFUSED_PAYMENTS_MAX = 10_000

_COLUMNS = [refused_payments.c[field.name] for field in fields(RefusedPayment)]
_WAITS = refused_payments.c.resolved_at.is_(None)
_AGAIN = {
    "deliveries": refused_payments.c.deliveries + 1,
    "last_seen_at": func.now(),
    # Without an id it may be another payment of the same user and amount.
    "resolved_at": case((refused_payments.c.event_id == "", null()), else_=refused_payments.c.resolved_at),
}
_WAS_CREDITED = exists().where(
    payment_events.c.source == refused_payments.c.source,
    payment_events.c.event_id == refused_payments.c.event_id,
    payment_events.c.amount == refused_payments.c.amount,
    payment_events.c.account_id == accounts.c.id,
    accounts.c.external_user_id == refused_payments.c.external_user_id,
)


async def record_refusal(engine: AsyncEngine, event: PaymentEvent, reason: str) -> int | None:
    refusal = {
        refused_payments.c.source: event.source,
        refused_payments.c.event_id: event.event_id,
        refused_payments.c.external_user_id: event.external_user_id,
        refused_payments.c.amount: event.amount,
        refused_payments.c.reason: reason,
    }
    is_same = [column == value for column, value in refusal.items()]
    async with transaction(engine, "record_refusal") as connection:
        again = update(refused_payments).where(*is_same).values(_AGAIN).returning(refused_payments.c.deliveries)
        deliveries: int | None = await connection.scalar(again)
        if deliveries is None and not await _is_full(connection, event.source):
            # Another delivery of it may have been added meanwhile.
            added = insert(refused_payments).values(refusal)
            added = added.on_conflict_do_update(index_elements=list(refusal), set_=_AGAIN)
            deliveries = await connection.scalar(added.returning(refused_payments.c.deliveries))
    return deliveries


async def _is_full(connection: AsyncConnection, source: str) -> bool:
    """For each source apart, and by the rows that `newest` shows."""
    is_shown = (refused_payments.c.source == source, _WAITS, ~_WAS_CREDITED)
    waiting = select(refused_payments.c.id).where(*is_shown).limit(REFUSED_PAYMENTS_MAX).subquery()
    return bool(await connection.scalar(select(func.count() >= REFUSED_PAYMENTS_MAX).select_from(waiting)))


class PostgresRefusedPayments:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def newest(self, *, limit: int, with_resolved: bool = False) -> Sequence[RefusedPayment]:
        query = select(*_COLUMNS).order_by(refused_payments.c.last_seen_at.desc(), refused_payments.c.id.desc())
        if not with_resolved:
            query = query.where(_WAITS, ~_WAS_CREDITED)
        async with reading(self._engine) as connection:
            found = await connection.execute(query.limit(limit))
            return [RefusedPayment(**row) for row in found.mappings()]

    async def resolve(self, ids: Collection[int]) -> Sequence[int]:
        resolved = (
            update(refused_payments)
            .where(refused_payments.c.id.in_(ids), _WAITS)
            .values(resolved_at=func.now())
            .returning(refused_payments.c.id)
        )
        async with transaction(self._engine, "resolve_refusals") as connection:
            return sorted(await connection.scalars(resolved))
