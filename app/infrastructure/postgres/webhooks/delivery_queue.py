"""Takes deliveries that are due, and writes what came of them.

Every endpoint is a queue of its own: `next_due_at` says when something of it is due, so that to look for work costs no
look at the queues that have none, and one that is full of what fails holds up no other. Whoever takes from a queue or
writes to it has its row locked first, and looks at its deliveries by later statements: they see whatever was written
before the lock. Where several are waited for, it is in the order of their ids.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.events import Event
from app.domain.webhooks import (
    AT_ONCE_MAX,
    FAILURES_MIN,
    Attempt,
    ClaimedDelivery,
    DeliveryState,
    Verdict,
)
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import driver_connection, driver_transaction, reading
from app.infrastructure.postgres.events import complete
from app.infrastructure.postgres.statements import any_of
from app.infrastructure.postgres.tables import accounts, events, webhook_secrets
from app.infrastructure.postgres.webhooks.recording import Said, record_all
from app.infrastructure.postgres.webhooks.secrets import make_missing

log = structlog.get_logger(__name__)

CLAIM_SECONDS = 30
"""Longer than an attempt may take: then whoever has the claim is dead, and somebody else tries."""
# Of one endpoint, in one look. Those that wait for others of their job are put behind these.
LOOKED_AT_MAX = 200
# Where all that was looked at waits for others.
LOOKS_MAX = 5
# What the sequencer has left. An endpoint that somebody has locked is heard of by the next look.
_HEAR = """
WITH endpoint AS MATERIALIZED (
    SELECT id FROM webhook_endpoints WHERE id = ANY (ARRAY(SELECT DISTINCT endpoint_id FROM due_endpoints LIMIT 1000))
       FOR NO KEY UPDATE SKIP LOCKED
), heard AS (
    DELETE FROM due_endpoints USING endpoint WHERE endpoint_id = endpoint.id
)
UPDATE webhook_endpoints SET next_due_at = least(next_due_at, greatest(now(), backs_off_until, asked_until))
  FROM endpoint WHERE webhook_endpoints.id = endpoint.id
"""
# Only where nobody else has it, so that several processes take from different ones.
_LOCK = f"""
SELECT id, CASE WHEN failures < {FAILURES_MIN} THEN {AT_ONCE_MAX} ELSE 1 END AS at_once_max
  FROM webhook_endpoints
 WHERE next_due_at <= now() AND disabled_at IS NULL AND deleted_at IS NULL
   AND (account_id IS NULL OR account_id <> ALL ($2::uuid[]))
 ORDER BY next_due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608
# Each step is told to the planner by its keys: it knows little of a table whose rows come and go.
_CLAIM = f"""
WITH lane AS MATERIALIZED (
    SELECT lane.id, lane.at_once_max - (
           SELECT count(*) FROM deliveries AS held
            WHERE held.endpoint_id = lane.id AND held.claim IS NOT NULL AND held.due_at > now()) AS places
      FROM unnest($1::uuid[], $2::integer[]) AS lane (id, at_once_max)
), looked_at AS MATERIALIZED (
    SELECT lane.id, lane.places, due.event_seq, earlier.due_at AS waits_until
      FROM lane CROSS JOIN LATERAL (
        SELECT event_seq, job_id, due_at FROM deliveries
         WHERE endpoint_id = lane.id AND state = 'pending' AND due_at <= now()
         ORDER BY due_at, event_seq LIMIT {LOOKED_AT_MAX}) AS due
      LEFT JOIN LATERAL (
        SELECT before.due_at FROM deliveries AS before
         WHERE before.endpoint_id = lane.id AND before.job_id = due.job_id AND before.state = 'pending'
           AND before.event_seq < due.event_seq
         ORDER BY before.event_seq LIMIT 1) AS earlier ON true
     WHERE lane.places > 0
), turn AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY id, waits_until IS NULL ORDER BY event_seq) <= places
              AND waits_until IS NULL AS is_taken
      FROM looked_at
), moved AS (
    UPDATE deliveries AS delivery
       SET claim = CASE WHEN turn.is_taken THEN $3::uuid END,
           due_at = CASE WHEN turn.is_taken THEN now() + make_interval(secs => {CLAIM_SECONDS})
                         ELSE greatest(turn.waits_until, now() + interval '1 second') END
      FROM turn
     WHERE (turn.is_taken OR turn.waits_until IS NOT NULL)
       AND delivery.endpoint_id = turn.id AND delivery.event_seq = turn.event_seq
    RETURNING delivery.*
)
SELECT moved.endpoint_id, moved.event_seq, moved.attempts, endpoint.account_id,
       coalesce(endpoint.url, job.webhook_url) AS url, endpoint.origin IS NOT NULL AS is_of_job,
       coalesce(endpoint.secret, own.secret) AS secret,
       CASE WHEN coalesce(endpoint.old_secret_until, own.old_secret_until) > now()
            THEN coalesce(endpoint.old_secret, own.old_secret) END AS old_secret
  FROM moved
  JOIN webhook_endpoints AS endpoint ON endpoint.id = moved.endpoint_id
  LEFT JOIN jobs AS job ON job.id = moved.job_id AND endpoint.origin IS NOT NULL
  LEFT JOIN webhook_secrets AS own ON own.account_id = endpoint.account_id AND endpoint.origin IS NOT NULL
 WHERE moved.claim IS NOT NULL
 ORDER BY moved.event_seq
"""  # noqa: S608
# One that is full is woken by what it has under way, and by its claims where that dies.
_GO_ON = f"""
UPDATE webhook_endpoints AS endpoint
   SET next_due_at = CASE
       WHEN lane.at_once_max <= (
            SELECT count(*) FROM deliveries AS held
             WHERE held.endpoint_id = lane.id AND held.claim IS NOT NULL AND held.due_at > now())
       THEN now() + make_interval(secs => {CLAIM_SECONDS})
       ELSE coalesce((
            SELECT due_at FROM deliveries AS next
             WHERE next.endpoint_id = lane.id AND next.state = 'pending' ORDER BY due_at LIMIT 1), 'infinity') END
  FROM unnest($1::uuid[], $2::integer[]) AS lane (id, at_once_max)
 WHERE endpoint.id = lane.id
"""  # noqa: S608


class PostgresDeliveryQueue:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._record: Batcher[Said, None] = Batcher(engine, record_all, flushes_max=1)

    async def claim(self, endpoints_max: int, *, leave_out: Collection[UUID]) -> Sequence[ClaimedDelivery]:
        claim = uuid4()
        for _ in range(LOOKS_MAX):
            lanes, rows = await self._look(endpoints_max, leave_out, claim)
            if rows or not lanes:
                break
        if not rows:
            return []
        async with reading(self.engine) as connection:
            missing = {row["account_id"] for row in rows if row["secret"] is None}
            made = await _made_secrets(connection, missing) if missing else {}
            found = await connection.execute(
                select(events).where(any_of(events.c.seq, "seqs")), {"seqs": [row["event_seq"] for row in rows]}
            )
            kept = found.all()
            by_seq = {event.seq: event for event in await _readable(connection, kept)}
            unreadable = {event.seq for event in kept} - by_seq.keys()
            claimed = [
                _claimed(row, claim, by_seq.get(row["event_seq"]), made)
                for row in rows
                if row["event_seq"] not in unreadable
            ]
            return await _with_owners(connection, claimed)

    async def _look(
        self, endpoints_max: int, leave_out: Collection[UUID], claim: UUID
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """The endpoints of which something was due, and what is taken of that."""
        async with (
            driver_connection(self.engine) as driver,
            driver_transaction(driver, "claim_deliveries", has_news=False),
        ):
            await driver.execute(_HEAR)
            lanes = await driver.fetch(_LOCK, endpoints_max, list(leave_out))
            if not lanes:
                return lanes, []
            taken = [[lane["id"] for lane in lanes], [lane["at_once_max"] for lane in lanes]]
            rows = await driver.fetch(_CLAIM, *taken, claim)
            await driver.execute(_GO_ON, *taken)
            return lanes, rows

    async def record(self, delivery: ClaimedDelivery, attempt: Attempt, verdict: Verdict) -> None:
        await self._record(Said(delivery, attempt, verdict, random.random()))

    async def give_back(self, delivery: ClaimedDelivery) -> None:
        await self._record(Said(delivery, None, Verdict(state=DeliveryState.PENDING), random.random()))


async def _readable(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> Sequence[Event]:
    """One that cannot be read holds up none of those that were taken with it: it is taken again after its claim."""
    try:
        return await complete(connection, rows)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        if len(rows) == 1:
            log.exception("event_unreadable", event_id=f"evt_{rows[0].seq}", error=type(error).__name__)
            return []
    return [event for row in rows for event in await _readable(connection, [row])]


async def _with_owners(connection: AsyncConnection, claimed: Sequence[ClaimedDelivery]) -> Sequence[ClaimedDelivery]:
    """The operator's endpoints hear of many accounts."""
    wanted = {it.event.account_id for it in claimed if it.account_id is None and it.event is not None}
    if not wanted:
        return claimed
    query = select(accounts.c.id, accounts.c.external_user_id).where(accounts.c.id.in_(wanted))
    owners = {row.id: row.external_user_id for row in await connection.execute(query)}
    return [
        it
        if it.account_id is not None or it.event is None
        else replace(it, external_user_id=owners.get(it.event.account_id))
        for it in claimed
    ]


async def _made_secrets(connection: AsyncConnection, account_ids: Collection[UUID]) -> Mapping[UUID, str]:
    """Nobody has asked for the secrets of these accounts yet; whoever does finds them."""
    await make_missing(connection, account_ids)
    query = select(webhook_secrets.c.account_id, webhook_secrets.c.secret)
    rows = await connection.execute(query.where(webhook_secrets.c.account_id.in_(account_ids)))
    return {row.account_id: row.secret for row in rows}


def _claimed(row: Any, claim: UUID, event: Event | None, made: Mapping[UUID, str]) -> ClaimedDelivery:
    secret = row["secret"] or made[row["account_id"]]
    return ClaimedDelivery(
        endpoint_id=row["endpoint_id"],
        event_seq=row["event_seq"],
        claim=claim,
        account_id=row["account_id"],
        is_of_job=row["is_of_job"],
        attempts=row["attempts"],
        url=row["url"],
        secrets=[secret] if row["old_secret"] is None else [secret, row["old_secret"]],
        event=event,
    )
