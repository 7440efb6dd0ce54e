"""Forgets deliveries with the events that they are of, and endpoints that nothing is delivered to any more."""

from sqlalchemy import delete, exists, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.events import FORGOTTEN_AT_ONCE, old_horizon
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import deliveries, due_endpoints, webhook_endpoints

# While they go nobody gives events their places.
ENDPOINTS_AT_ONCE = 200
_D, _E = deliveries.c, webhook_endpoints.c
# Of those that were deleted, and of those that jobs had made.
_IS_PASSING = _E.deleted_at.is_not(None) | _E.origin.is_not(None)
# While it is held nobody addresses events, so that no endpoint goes that one has just been addressed to.
_ADDRESS_NOTHING = text("SELECT pg_advisory_xact_lock(hashtext('sequence_events'), hashtext(current_schema()))")


class PostgresDeliveryUpkeep:
    def __init__(self, engine: AsyncEngine, days_kept: int) -> None:
        self._engine = engine
        self._days_kept = days_kept

    async def forget(self) -> int:
        async with transaction(self._engine, "forget_deliveries") as connection:
            old = select(_D.endpoint_id, _D.event_seq).where(_D.event_seq < old_horizon(self._days_kept))
            left = (
                select(_D.endpoint_id, _D.event_seq)
                .join_from(webhook_endpoints, deliveries, _D.endpoint_id == _E.id)
                .where(_E.deleted_at.is_not(None))
            )
            count = 0
            for query in (old, left):
                gone = delete(deliveries).where(
                    tuple_(_D.endpoint_id, _D.event_seq).in_(query.limit(FORGOTTEN_AT_ONCE))
                )
                count += (await connection.execute(gone)).rowcount
        # Apart from the above: whoever takes deliveries has the endpoint locked, and may wait for one that goes.
        async with transaction(self._engine, "forget_endpoints") as connection:
            return count + await self._forget_endpoints(connection)

    async def _forget_endpoints(self, connection: AsyncConnection) -> int:
        await connection.execute(_ADDRESS_NOTHING)
        is_used = exists().where(_D.endpoint_id == _E.id)
        is_young = _E.created_at > func.now() - func.make_interval(0, 0, 0, self._days_kept)
        passing = select(_E.id).where(_IS_PASSING, ~is_used, _E.deleted_at.is_not(None) | ~is_young)
        of_nobody = delete(due_endpoints).where(~exists().where(_E.id == due_endpoints.c.endpoint_id))
        await connection.execute(of_nobody)
        gone = delete(webhook_endpoints).where(_E.id.in_(passing.limit(ENDPOINTS_AT_ONCE)))
        return (await connection.execute(gone)).rowcount

    async def requeue_lost(self) -> int:
        is_waiting = exists().where(_D.endpoint_id == _E.id, _D.state == constant("pending"))
        lost = update(webhook_endpoints).values(next_due_at=func.now())
        lost = lost.where(_E.next_due_at == text("'infinity'::timestamptz"), is_waiting)
        async with transaction(self._engine, "requeue_deliveries") as connection:
            return (await connection.execute(lost)).rowcount
