"""What was delivered to an endpoint, as its owner sees it."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.webhooks import DeliveryPage
from app.domain.budgets import NO_LIMITS, AccountLimits
from app.domain.events import EventType
from app.domain.newer_words import known
from app.domain.webhooks import Delivery, DeliveryNotFound, DeliveryState
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import deliveries, events, webhook_endpoints
from app.infrastructure.postgres.webhooks.endpoints import check_enabled, endpoint
from app.infrastructure.postgres.writes import count_write

_D = deliveries.c
_SHOWN = select(
    _D.event_seq,
    events.c.type.label("event_type"),
    _D.job_id,
    _D.state,
    _D.attempts,
    _D.attempt_log,
    _D.created_at,
    _D.due_at,
    _D.ended_at,
).join_from(deliveries, events, events.c.seq == _D.event_seq)
# Whatever came of it before.
DELIVERED_ANEW = {
    "state": DeliveryState.PENDING.value,
    "due_at": func.now(),
    "attempts": 0,
    "ended_at": None,
    "claim": None,
}


class PostgresDeliveries:
    def __init__(self, engine: AsyncEngine, limits: AccountLimits = NO_LIMITS) -> None:
        """`limits` are those of accounts that have none of their own."""
        self.engine = engine
        self._limits = limits

    async def page(
        self, account_id: UUID | None, endpoint_id: UUID, *, state: DeliveryState | None, before: int | None, limit: int
    ) -> DeliveryPage:
        query = _of(endpoint_id).order_by(_D.event_seq.desc()).limit(limit + 1)
        if state is not None:
            query = query.where(_D.state == state)
            if state is not DeliveryState.DELIVERED:
                # Few are left among many, and there is an index of those.
                query = query.where(_D.state != constant("delivered"))
        if before is not None:
            query = query.where(_D.event_seq < before)
        async with reading(self.engine) as connection:
            await endpoint(connection, account_id, endpoint_id)
            rows = (await connection.execute(query)).all()
        found = [_delivery_of(row) for row in rows[:limit]]
        return DeliveryPage(deliveries=found, next_before=found[-1].event_seq if len(rows) > limit else None)

    async def redeliver(self, account_id: UUID | None, endpoint_id: UUID, event_seq: int) -> Delivery:
        async with transaction(self.engine, "redeliver") as connection:
            if account_id is not None:
                await count_write(connection, account_id, self._limits)
            # It locks the endpoint, as whoever takes deliveries does.
            await check_enabled(connection, account_id, endpoint_id)
            is_it = (_D.endpoint_id == endpoint_id) & (_D.event_seq == event_seq)
            await connection.execute(update(deliveries).values(DELIVERED_ANEW).where(is_it))
            due = update(webhook_endpoints).values(next_due_at=func.now(), backs_off_until=None, asked_until=None)
            await connection.execute(due.where(webhook_endpoints.c.id == endpoint_id))
            row = (await connection.execute(_of(endpoint_id).where(is_it))).one_or_none()
            if row is None:
                raise DeliveryNotFound
            return _delivery_of(row)


def _of(endpoint_id: UUID) -> Select[Any]:
    return _SHOWN.where(_D.endpoint_id == endpoint_id)


def _delivery_of(row: Row[Any]) -> Delivery:
    return Delivery(
        event_seq=row.event_seq,
        event_type=known(EventType, row.event_type),
        job_id=row.job_id,
        state=known(DeliveryState, row.state),
        attempts=row.attempts,
        attempt_log=row.attempt_log,
        created_at=row.created_at,
        next_attempt_at=row.due_at if row.state == DeliveryState.PENDING else None,
        ended_at=row.ended_at,
    )
