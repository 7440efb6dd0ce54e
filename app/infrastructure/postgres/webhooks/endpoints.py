"""Endpoints of customers and of the operator. Each change is one transaction that locks the account, then the endpoint.

An account of NULL is the operator: nothing counts for it, and nothing bounds it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, case, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.budgets import NO_LIMITS, AccountLimits
from app.domain.events import EventsForgotten, EventType
from app.domain.newer_words import known
from app.domain.webhooks import (
    ENDPOINTS_MAX,
    DisabledReason,
    Endpoint,
    EndpointChanges,
    EndpointDisabled,
    EndpointNotFound,
    NewEndpoint,
    TooManyEndpoints,
)
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.keys.repeating import until_known
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import (
    deliveries,
    event_inbox,
    event_log,
    forgotten_events,
    webhook_endpoints,
)
from app.infrastructure.postgres.writes import count_write

_E, _D = webhook_endpoints.c, deliveries.c
# Others are made by jobs that name a URL themselves, and nobody sees those.
IS_LIVE = _E.url.is_not(None) & _E.deleted_at.is_(None)
_SHOWN = select(
    _E.id,
    _E.url,
    _E.types,
    _E.description,
    _E.created_at,
    _E.disabled_at,
    _E.disabled_reason,
    _E.missed_after,
    _E.failing_since,
    _E.replay_after.is_not(None).label("is_replaying"),
)
LAST_SEQ = select(event_log.c.last_seq).scalar_subquery()
# Whatever it was that kept the endpoint from its deliveries.
ENABLED_ANEW: Mapping[str, Any] = {
    "failures": 0,
    "failing_since": None,
    "last_failed_at": None,
    "backs_off_until": None,
    "asked_until": None,
    "next_due_at": func.now(),
}
# So many of those that wait are due at once where an endpoint begins anew; the others come by their plan.
DUE_AT_ONCE_MAX = 10_000


class PostgresWebhookEndpoints:
    def __init__(self, engine: AsyncEngine, limits: AccountLimits = NO_LIMITS) -> None:
        """`limits` are those of accounts that have none of their own."""
        self.engine = engine
        self._limits = limits

    async def create(self, account_id: UUID | None, new: NewEndpoint) -> Endpoint:
        return await until_known(partial(self._create, account_id, new))

    async def live(self, account_id: UUID | None) -> Sequence[Endpoint]:
        async with reading(self.engine) as connection:
            query = _SHOWN.where(is_of(account_id), IS_LIVE).order_by(_E.created_at, _E.id)
            return [_endpoint_of(row) for row in await connection.execute(query)]

    async def get(self, account_id: UUID | None, endpoint_id: UUID) -> Endpoint:
        async with reading(self.engine) as connection:
            return await endpoint(connection, account_id, endpoint_id)

    async def change(self, account_id: UUID | None, endpoint_id: UUID, changes: EndpointChanges) -> Endpoint:
        return await until_known(partial(self._change, account_id, endpoint_id, changes))

    async def rotate_secret(
        self, account_id: UUID | None, endpoint_id: UUID, secret: str, *, overlap_seconds: int
    ) -> Endpoint:
        return await until_known(partial(self._rotate, account_id, endpoint_id, secret, overlap_seconds))

    async def delete(self, account_id: UUID | None, endpoint_id: UUID) -> None:
        """What is written of its deliveries goes later, in batches."""

        async def again() -> None:
            try:
                await self._delete(account_id, endpoint_id)
            except EndpointNotFound:
                # The first try's doing, or that of somebody who wanted the same.
                return

        await until_known(partial(self._delete, account_id, endpoint_id), again)

    async def test(self, account_id: UUID, endpoint_id: UUID) -> None:
        async with transaction(self.engine, "test_endpoint") as connection:
            await count_write(connection, account_id, self._limits)
            await check_enabled(connection, account_id, endpoint_id)
            facts = {"endpoint_id": str(endpoint_id)}
            event = insert(event_inbox).values(account_id=account_id, type=EventType.WEBHOOK_TEST.value, facts=facts)
            await connection.execute(event)

    async def replay(self, account_id: UUID, endpoint_id: UUID, after: int) -> Endpoint:
        async with transaction(self.engine, "replay_endpoint") as connection:
            await count_write(connection, account_id, self._limits)
            await check_enabled(connection, account_id, endpoint_id)
            forgotten = select(forgotten_events.c.last_seq).where(forgotten_events.c.account_id == account_id)
            if after and after < (await connection.scalar(forgotten) or 0):
                raise EventsForgotten
            # Waits for whoever gives events their places: what is addressed to nobody by then has its place.
            last_seq = await connection.scalar(select(event_log.c.last_seq).with_for_update(read=True))
            # Of two replays that overlap, one that goes through both.
            values = {
                "replay_after": func.least(_E.replay_after, after),
                "replay_until": last_seq,
                "missed_after": case((_E.missed_after >= after, null()), else_=_E.missed_after),
            }
            await connection.execute(update(webhook_endpoints).values(values).where(_E.id == endpoint_id))
            return await endpoint(connection, account_id, endpoint_id)

    async def _create(self, account_id: UUID | None, new: NewEndpoint) -> Endpoint:
        async with transaction(self.engine, "create_endpoint") as connection:
            # It locks the account, so that the count after it is of all that others have made.
            await self._count(connection, account_id)
            count = await connection.execute(
                select(func.count(), func.count().filter(_E.id == new.id)).where(is_of(account_id), IS_LIVE)
            )
            others, own = count.one()
            if not own:
                if others >= ENDPOINTS_MAX and account_id is not None:
                    raise TooManyEndpoints
                values = {
                    "id": new.id,
                    "account_id": account_id,
                    "url": new.url,
                    "types": new.types,
                    "description": new.description,
                    "secret": new.secret,
                }
                await connection.execute(insert(webhook_endpoints).values(values))
            return await endpoint(connection, account_id, new.id)

    async def _change(self, account_id: UUID | None, endpoint_id: UUID, changes: EndpointChanges) -> Endpoint:
        async with transaction(self.engine, "change_endpoint") as connection:
            await self._count(connection, account_id)
            before = await locked(connection, account_id, endpoint_id)
            values: dict[str, Any] = {name: value for name, value in changes.items() if name != "is_enabled"}
            is_enabled = changes.get("is_enabled")
            if is_enabled is False and before.disabled_at is None:
                # What was missed before it was enabled the last time was perhaps not replayed yet.
                missed_after = func.coalesce(_E.missed_after, LAST_SEQ)
                values |= {
                    "disabled_at": func.now(),
                    "disabled_reason": DisabledReason.BY_YOU.value,
                    "replay_after": None,
                }
                values["missed_after"] = missed_after
            if is_enabled is True and before.disabled_at is not None:
                values |= {"disabled_at": None, "disabled_reason": None}
            if changes.get("url", before.url) != before.url or "disabled_at" in values:
                values |= ENABLED_ANEW
                await _make_due(connection, endpoint_id)
            if values:
                await connection.execute(update(webhook_endpoints).values(values).where(_E.id == endpoint_id))
            return await endpoint(connection, account_id, endpoint_id)

    async def _rotate(self, account_id: UUID | None, endpoint_id: UUID, secret: str, overlap_seconds: int) -> Endpoint:
        async with transaction(self.engine, "rotate_endpoint") as connection:
            await self._count(connection, account_id)
            values = rotated(_E, secret, overlap_seconds)
            statement = update(webhook_endpoints).values(values)
            await connection.execute(statement.where(_E.id == endpoint_id, is_of(account_id), IS_LIVE))
            return await endpoint(connection, account_id, endpoint_id)

    async def _count(self, connection: AsyncConnection, account_id: UUID | None) -> None:
        """Locks the account. The operator's changes count for nobody."""
        if account_id is not None:
            await count_write(connection, account_id, self._limits)

    async def _delete(self, account_id: UUID | None, endpoint_id: UUID) -> None:
        async with transaction(self.engine, "delete_endpoint") as connection:
            gone = update(webhook_endpoints).values(deleted_at=func.now(), replay_after=None)
            done = await connection.execute(gone.where(_E.id == endpoint_id, is_of(account_id), IS_LIVE))
            if not done.rowcount:
                raise EndpointNotFound


def is_of(account_id: UUID | None) -> ColumnElement[bool]:
    return _E.account_id.is_(None) if account_id is None else _E.account_id == account_id


async def endpoint(connection: AsyncConnection, account_id: UUID | None, endpoint_id: UUID) -> Endpoint:
    """Raises EndpointNotFound."""
    return await _only(connection, _SHOWN.where(_E.id == endpoint_id, is_of(account_id), IS_LIVE))


async def locked(connection: AsyncConnection, account_id: UUID | None, endpoint_id: UUID) -> Endpoint:
    """As whoever takes its deliveries does. Raises EndpointNotFound."""
    query = _SHOWN.where(_E.id == endpoint_id, is_of(account_id), IS_LIVE)
    return await _only(connection, query.with_for_update(key_share=True))


async def check_enabled(connection: AsyncConnection, account_id: UUID | None, endpoint_id: UUID) -> None:
    """Locks the endpoint. Raises EndpointNotFound, EndpointDisabled."""
    if (await locked(connection, account_id, endpoint_id)).disabled_at is not None:
        raise EndpointDisabled


async def _make_due(connection: AsyncConnection, endpoint_id: UUID) -> None:
    """What is due already is left as it is, so that to do this again and again writes nothing."""
    waits = (_D.state == constant("pending")) & _D.claim.is_(None) & (_D.due_at > func.now())
    waiting = (
        select(_D.event_seq).where(_D.endpoint_id == endpoint_id, waits).order_by(_D.due_at).limit(DUE_AT_ONCE_MAX)
    )
    due = update(deliveries).values(due_at=func.now())
    await connection.execute(due.where(_D.endpoint_id == endpoint_id, _D.event_seq.in_(waiting)))


def rotated(of: Any, new_secret: str, overlap_seconds: int) -> dict[str, Any]:
    """The values of a rotation, of the columns `of` a table. One whose COMMIT got no answer may be repeated: the old
    secret stays the old one.
    """
    is_done = of.secret == new_secret
    ends_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, overlap_seconds)
    return {
        "secret": new_secret,
        "old_secret": case((is_done, of.old_secret), else_=of.secret if overlap_seconds else null()),
        "old_secret_until": case((is_done, of.old_secret_until), else_=ends_at if overlap_seconds else null()),
    }


async def _only(connection: AsyncConnection, query: Select[Any]) -> Endpoint:
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise EndpointNotFound
    return _endpoint_of(row)


def _endpoint_of(row: Row[Any]) -> Endpoint:
    reason = row.disabled_reason
    return Endpoint(
        id=row.id,
        url=row.url,
        types=row.types,
        description=row.description,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        disabled_reason=None if reason is None else known(DisabledReason, reason),
        missed_after=row.missed_after,
        failing_since=row.failing_since,
        is_replaying=row.is_replaying,
    )
