"""Takes deliveries that are due, and writes what came of them.

Every endpoint is a queue of its own: `next_due_at` says when something of it is due, so that to look for work costs no
look at the queues that have none, and one that is full of what fails holds up no other. Whoever takes from a queue or
writes to it has its row locked before it looks at its deliveries. Where several are waited for, it is in the order of
their ids.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.events import Event
from app.domain.webhooks import (
    AT_ONCE_MAX,
    FAILING_DAYS_MAX,
    FAILURES_MIN,
    PAUSE_SECONDS_MAX,
    PAUSE_SECONDS_MIN,
    Attempt,
    ClaimedDelivery,
    DeliveryState,
    Verdict,
)
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, driver_connection, driver_transaction, reading
from app.infrastructure.postgres.events import complete
from app.infrastructure.postgres.statements import any_of
from app.infrastructure.postgres.tables import accounts, events, webhook_secrets
from app.infrastructure.postgres.webhooks.secrets import make_missing

log = structlog.get_logger(__name__)

CLAIM_SECONDS = 30
"""Longer than an attempt may take: then whoever has the claim is dead, and somebody else tries."""
ATTEMPTS_SHOWN_MAX = 20
# Only where nobody else has it, so that several processes take from different ones.
_LOCK = f"""
SELECT id, CASE WHEN failures < {FAILURES_MIN} THEN {AT_ONCE_MAX} ELSE 1 END AS at_once_max
  FROM webhook_endpoints
 WHERE next_due_at <= now() AND disabled_at IS NULL AND deleted_at IS NULL
   AND (account_id IS NULL OR account_id <> ALL ($2::uuid[]))
 ORDER BY next_due_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608
# A statement after the lock, which sees whatever was addressed before: `next_due_at` would else be written as if that
# were not there, and nobody would ever look for it. What the claims of others have taken is no longer due, and a
# delivery waits for those before it of the same job.
_CLAIM = f"""
WITH lane AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[]) AS lane (id, at_once_max)
), room AS MATERIALIZED (
    SELECT id, greatest(at_once_max - (
        SELECT count(*) FROM deliveries AS held
         WHERE held.endpoint_id = lane.id AND held.claim IS NOT NULL AND held.due_at > now()), 0) AS places
      FROM lane
), claimed AS (
    UPDATE deliveries AS delivery SET claim = $3, due_at = now() + make_interval(secs => {CLAIM_SECONDS})
      FROM room CROSS JOIN LATERAL (
        SELECT due.event_seq FROM deliveries AS due
         WHERE due.endpoint_id = room.id AND due.state = 'pending' AND due.due_at <= now() AND NOT EXISTS (
               SELECT FROM deliveries AS earlier
                WHERE earlier.endpoint_id = due.endpoint_id AND earlier.job_id = due.job_id
                  AND earlier.state = 'pending' AND earlier.event_seq < due.event_seq)
         ORDER BY due.due_at, due.event_seq LIMIT room.places) AS due
     WHERE delivery.endpoint_id = room.id AND delivery.event_seq = due.event_seq
       AND delivery.state = 'pending' AND delivery.due_at <= now()
    RETURNING delivery.*
), rest AS (
    SELECT room.id, CASE
        WHEN taken.count = room.places THEN now() + make_interval(secs => {CLAIM_SECONDS})
        ELSE least(
            (SELECT min(due_at) FROM deliveries AS later
              WHERE later.endpoint_id = room.id AND later.state = 'pending' AND later.due_at > now()),
            CASE WHEN taken.count > 0 THEN now() + make_interval(secs => {CLAIM_SECONDS}) END,
            'infinity') END AS next_due_at
      FROM room CROSS JOIN LATERAL (SELECT count(*) FROM claimed WHERE claimed.endpoint_id = room.id) AS taken
), moved AS (
    UPDATE webhook_endpoints SET next_due_at = rest.next_due_at FROM rest WHERE rest.id = webhook_endpoints.id
)
SELECT claimed.endpoint_id, claimed.event_seq, claimed.attempts, endpoint.account_id,
       coalesce(endpoint.url, job.webhook_url) AS url, endpoint.origin IS NOT NULL AS is_of_job,
       coalesce(endpoint.secret, own.secret) AS secret,
       CASE WHEN coalesce(endpoint.old_secret_until, own.old_secret_until) > now()
            THEN coalesce(endpoint.old_secret, own.old_secret) END AS old_secret
  FROM claimed
  JOIN webhook_endpoints AS endpoint ON endpoint.id = claimed.endpoint_id
  LEFT JOIN jobs AS job ON job.id = claimed.job_id AND endpoint.origin IS NOT NULL
  LEFT JOIN webhook_secrets AS own ON own.account_id = endpoint.account_id AND endpoint.origin IS NOT NULL
 ORDER BY claimed.event_seq
"""  # noqa: S608
# Those after it of the same job come when it comes again, or now.
_RECORD = f"""
WITH said AS MATERIALIZED (
    SELECT endpoint_id, event_seq, claim, state, retry_seconds, pause_seconds, is_gone,
           attempt || jsonb_build_object('at', now()) AS attempt
      FROM unnest(
        $1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::float[], $6::jsonb[], $7::float[], $8::boolean[])
        AS said (endpoint_id, event_seq, claim, state, retry_seconds, attempt, pause_seconds, is_gone)
), lane AS MATERIALIZED (
    SELECT id, url, failures, failing_since FROM webhook_endpoints
     WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE
), done AS (
    UPDATE deliveries AS delivery
       SET state = said.state, claim = NULL, attempts = attempts + (said.attempt IS NOT NULL)::integer,
           due_at = CASE WHEN said.state = 'pending' THEN now() + make_interval(secs => said.retry_seconds)
                         ELSE due_at END,
           ended_at = CASE WHEN said.state <> 'pending' THEN now() END,
           attempt_log = CASE
               WHEN said.attempt IS NULL THEN attempt_log
               WHEN jsonb_array_length(attempt_log) < {ATTEMPTS_SHOWN_MAX} THEN attempt_log || said.attempt
               ELSE attempt_log - 0 || said.attempt END
      FROM said JOIN lane ON lane.id = said.endpoint_id
     WHERE delivery.endpoint_id = said.endpoint_id AND delivery.event_seq = said.event_seq
       AND delivery.claim = said.claim
    RETURNING delivery.endpoint_id, delivery.event_seq, delivery.job_id, delivery.state, delivery.due_at,
              said.attempt IS NULL AS is_given_back, said.pause_seconds, said.is_gone
), followers AS (
    UPDATE deliveries AS later
       SET due_at = CASE WHEN done.state = 'pending' THEN greatest(later.due_at, done.due_at) ELSE now() END
      FROM done
     WHERE later.endpoint_id = done.endpoint_id AND later.job_id = done.job_id AND later.event_seq > done.event_seq
       AND later.state = 'pending' AND later.claim IS NULL
), news AS (
    SELECT done.endpoint_id, count(*) FILTER (WHERE done.state <> 'delivered' AND NOT done.is_given_back) AS failed,
           bool_or(done.state = 'delivered') AS has_delivered, bool_or(done.is_gone) AS is_gone,
           max(done.pause_seconds) AS pause_seconds
      FROM done GROUP BY done.endpoint_id
), counted AS (
    SELECT lane.id, news.is_gone, news.pause_seconds, news.failed,
           CASE WHEN news.has_delivered THEN 0 ELSE lane.failures + news.failed END AS failures,
           CASE WHEN news.has_delivered THEN NULL WHEN news.failed > 0 THEN coalesce(lane.failing_since, now())
                ELSE lane.failing_since END AS failing_since
      FROM news JOIN lane ON lane.id = news.endpoint_id
), judged AS (
    SELECT counted.*, greatest(
               CASE WHEN failed > 0 AND failures >= {FAILURES_MIN} THEN
                   least({PAUSE_SECONDS_MIN} * 2 ^ least(failures - {FAILURES_MIN}, 10), {PAUSE_SECONDS_MAX})
                   * (0.75 + random() / 2) END,
               pause_seconds) AS seconds,
           CASE WHEN is_gone THEN 'gone'
                WHEN failing_since < now() - interval '{FAILING_DAYS_MAX} days' THEN 'failing' END AS reason
      FROM counted
)
UPDATE webhook_endpoints AS endpoint
   SET failures = judged.failures, failing_since = judged.failing_since,
       paused_until = CASE WHEN judged.failures = 0 AND judged.seconds IS NULL THEN NULL
                           ELSE greatest(paused_until, now() + make_interval(secs => judged.seconds)) END,
       next_due_at = greatest(now(), CASE WHEN judged.failures > 0 THEN paused_until END,
                              now() + make_interval(secs => judged.seconds)),
       disabled_at = CASE WHEN endpoint.url IS NULL THEN NULL WHEN judged.reason IS NOT NULL
                          THEN coalesce(endpoint.disabled_at, now()) ELSE endpoint.disabled_at END,
       disabled_reason = CASE WHEN endpoint.url IS NOT NULL THEN coalesce(endpoint.disabled_reason, judged.reason) END,
       missed_after = CASE WHEN endpoint.url IS NOT NULL AND endpoint.disabled_at IS NULL AND judged.reason IS NOT NULL
                           THEN (SELECT last_seq FROM event_log) ELSE endpoint.missed_after END
  FROM judged WHERE judged.id = endpoint.id
RETURNING endpoint.id, endpoint.account_id, CASE WHEN judged.reason IS NOT NULL THEN endpoint.disabled_reason END
          AS disabled_reason
"""  # noqa: S608


class PostgresDeliveryQueue:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._record: Batcher[_Said, None] = Batcher(engine, _record_all, flushes_max=1)

    async def claim(self, endpoints_max: int, *, leave_out: Collection[UUID]) -> Sequence[ClaimedDelivery]:
        claim = uuid4()
        async with driver_connection(self.engine) as driver, driver_transaction(driver, "claim_deliveries"):
            lanes = await driver.fetch(_LOCK, endpoints_max, list(leave_out))
            places = [[lane["id"] for lane in lanes], [lane["at_once_max"] for lane in lanes]]
            rows = await driver.fetch(_CLAIM, *places, claim) if lanes else []
        if not rows:
            return []
        async with reading(self.engine) as connection:
            missing = {row["account_id"] for row in rows if row["secret"] is None}
            made = await _made_secrets(connection, missing) if missing else {}
            found = await connection.execute(
                select(events).where(any_of(events.c.seq, "seqs")), {"seqs": [row["event_seq"] for row in rows]}
            )
            by_seq = {event.seq: event for event in await complete(connection, found.all())}
            claimed = [_claimed(row, claim, by_seq.get(row["event_seq"]), made) for row in rows]
            return await _with_owners(connection, claimed)

    async def record(self, delivery: ClaimedDelivery, attempt: Attempt, verdict: Verdict) -> None:
        await self._record(_Said(delivery, attempt, verdict))

    async def give_back(self, delivery: ClaimedDelivery) -> None:
        await self._record(_Said(delivery, None, Verdict(state=DeliveryState.PENDING, retry_seconds=0)))


@dataclass(frozen=True, slots=True)
class _Said:
    delivery: ClaimedDelivery
    attempt: Attempt | None
    """None: nothing was tried."""
    verdict: Verdict


async def _record_all(driver: DriverConnection, said: Sequence[_Said], *, is_repeated: bool) -> Sequence[None]:
    """A repeated one finds the claims gone, and writes nothing."""
    async with driver_transaction(driver, "record_deliveries"):
        rows = await driver.fetch(
            _RECORD,
            [one.delivery.endpoint_id for one in said],
            [one.delivery.event_seq for one in said],
            [one.delivery.claim for one in said],
            [one.verdict.state.value for one in said],
            [one.verdict.retry_seconds for one in said],
            [None if one.attempt is None else json.dumps(_shown(one.attempt)) for one in said],
            [one.verdict.pause_seconds for one in said],
            [one.verdict.is_gone for one in said],
        )
    for row in rows:
        if row["disabled_reason"] is not None:
            log.warning(
                "webhook_endpoint_disabled",
                endpoint_id=str(row["id"]),
                account_id=None if row["account_id"] is None else str(row["account_id"]),
                reason=row["disabled_reason"],
            )
    return [None] * len(said)


def _shown(attempt: Attempt) -> Mapping[str, Any]:
    return {
        "status": attempt.status,
        "error": attempt.error,
        "answer": attempt.answer,
        "milliseconds": attempt.milliseconds,
    }


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
        attempts=row["attempts"],
        url=row["url"],
        secrets=[secret] if row["old_secret"] is None else [secret, row["old_secret"]],
        event=event,
    )
