"""Writes what came of attempts: to the deliveries, to those that waited for them, and to their endpoints."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from app.domain.webhooks import Attempt, ClaimedDelivery, DeliveryState, DisabledReason, Health, Verdict
from app.infrastructure.postgres.database import DriverConnection, driver_transaction

log = structlog.get_logger(__name__)

ATTEMPTS_SHOWN_MAX = 20
_LOCK = """
SELECT id, account_id, url, disabled_at, failures, failing_since, last_failed_at, backs_off_until, asked_until,
       now() AS now
  FROM webhook_endpoints WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE
"""
_HELD = """
SELECT said.endpoint_id, said.event_seq FROM unnest($1::uuid[], $2::bigint[], $3::uuid[])
       AS said (endpoint_id, event_seq, claim) CROSS JOIN LATERAL (
       SELECT claim FROM deliveries
        WHERE deliveries.endpoint_id = said.endpoint_id AND deliveries.event_seq = said.event_seq OFFSET 0) AS held
 WHERE held.claim = said.claim
"""
_WRITE = f"""
UPDATE deliveries AS delivery
   SET state = said.state, claim = NULL, attempts = attempts + (said.attempt IS NOT NULL)::integer,
       due_at = CASE WHEN said.state = 'pending' THEN now() + make_interval(secs => said.retry_seconds)
                     ELSE due_at END,
       ended_at = CASE WHEN said.state <> 'pending' THEN now() END,
       attempt_log = CASE
           WHEN said.attempt IS NULL THEN attempt_log
           WHEN jsonb_array_length(attempt_log) < {ATTEMPTS_SHOWN_MAX} THEN attempt_log || said.attempt
           ELSE attempt_log - 0 || said.attempt END
  FROM (SELECT endpoint_id, event_seq, state, retry_seconds, attempt || jsonb_build_object('at', now()) AS attempt
          FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::float[], $5::jsonb[])
            AS said (endpoint_id, event_seq, state, retry_seconds, attempt)) AS said
 WHERE delivery.endpoint_id = said.endpoint_id AND delivery.event_seq = said.event_seq
RETURNING delivery.endpoint_id, delivery.job_id, delivery.state
"""  # noqa: S608
_LET_GO = """
UPDATE deliveries AS next SET due_at = now()
  FROM unnest($1::uuid[], $2::uuid[]) AS done (endpoint_id, job_id) CROSS JOIN LATERAL (
       SELECT event_seq FROM deliveries AS waiting
        WHERE waiting.endpoint_id = done.endpoint_id AND waiting.job_id = done.job_id AND waiting.state = 'pending'
          AND waiting.claim IS NULL
        ORDER BY waiting.event_seq LIMIT 1) AS waiting
 WHERE next.endpoint_id = done.endpoint_id AND next.event_seq = waiting.event_seq
"""
_JUDGE = """
UPDATE webhook_endpoints AS endpoint
   SET failures = judged.failures, failing_since = judged.failing_since, last_failed_at = judged.last_failed_at,
       backs_off_until = judged.backs_off_until, asked_until = judged.asked_until,
       next_due_at = greatest(judged.backs_off_until, judged.asked_until, coalesce((
           SELECT due_at FROM deliveries AS next
            WHERE next.endpoint_id = judged.id AND next.state = 'pending' ORDER BY due_at LIMIT 1), 'infinity')),
       disabled_at = coalesce(disabled_at, CASE WHEN judged.reason IS NOT NULL THEN now() END),
       disabled_reason = coalesce(disabled_reason, judged.reason),
       missed_after = CASE WHEN disabled_at IS NULL AND judged.reason IS NOT NULL
                           THEN coalesce(missed_after, (SELECT last_seq FROM event_log)) ELSE missed_after END
  FROM unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
              $7::text[])
       AS judged (id, failures, failing_since, last_failed_at, backs_off_until, asked_until, reason)
 WHERE endpoint.id = judged.id
"""


@dataclass(frozen=True, slots=True)
class Said:
    delivery: ClaimedDelivery
    attempt: Attempt | None
    """None: nothing was tried."""
    verdict: Verdict
    chance: float
    """Between 0 and 1: it spreads what comes back."""


@dataclass(frozen=True, slots=True)
class _Judgement:
    health: Health
    reason: DisabledReason | None


async def record_all(driver: DriverConnection, said: Sequence[Said], *, is_repeated: bool) -> Sequence[None]:
    """A repeated one finds the claims gone, and writes nothing. Locks the endpoints, then writes deliveries."""
    del is_repeated
    async with driver_transaction(driver, "record_deliveries", has_news=False):
        rows = await driver.fetch(_LOCK, sorted({one.delivery.endpoint_id for one in said}))
        endpoints = {row["id"]: row for row in rows}
        held = await _held(driver, said)
        judgements = _judge(held, endpoints)
        if held:
            await _write(driver, held, judgements)
            await _write_judgements(driver, judgements)
    for endpoint_id, judgement in judgements.items():
        if judgement.reason is not None and endpoints[endpoint_id]["disabled_at"] is None:
            account_id = endpoints[endpoint_id]["account_id"]
            log.warning(
                "webhook_endpoint_disabled",
                endpoint_id=str(endpoint_id),
                account_id=None if account_id is None else str(account_id),
                reason=judgement.reason.value,
            )
    return [None] * len(said)


async def _held(driver: DriverConnection, said: Sequence[Said]) -> Sequence[Said]:
    """Those whose claim has not passed to somebody else."""
    rows = await driver.fetch(
        _HELD,
        [one.delivery.endpoint_id for one in said],
        [one.delivery.event_seq for one in said],
        [one.delivery.claim for one in said],
    )
    held = {(row["endpoint_id"], row["event_seq"]) for row in rows}
    return [one for one in said if (one.delivery.endpoint_id, one.delivery.event_seq) in held]


def _judge(held: Sequence[Said], endpoints: Mapping[UUID, Any]) -> Mapping[UUID, _Judgement]:
    by_endpoint: defaultdict[UUID, list[Said]] = defaultdict(list)
    for one in held:
        by_endpoint[one.delivery.endpoint_id].append(one)
    return {endpoint_id: _judged(endpoints[endpoint_id], some) for endpoint_id, some in by_endpoint.items()}


def _judged(row: Mapping[str, Any], some: Sequence[Said]) -> _Judgement:
    now: datetime = row["now"]
    before = Health(
        failures=row["failures"],
        failing_since=row["failing_since"],
        last_failed_at=row["last_failed_at"],
        backs_off_until=row["backs_off_until"],
        asked_until=row["asked_until"],
    )
    # What an old URL has answered says nothing of the new one.
    verdicts = [one.verdict for one in some if row["url"] in (None, one.delivery.url)]
    health = before.after(verdicts, now, chance=some[0].chance)
    is_of_jobs = row["url"] is None
    return _Judgement(health, None if is_of_jobs else health.reason_to_disable(verdicts, now))


async def _write(driver: DriverConnection, held: Sequence[Said], judgements: Mapping[UUID, _Judgement]) -> None:
    def state_of(one: Said) -> DeliveryState:
        is_disabled = judgements[one.delivery.endpoint_id].reason is not None
        # Whoever enables the endpoint again gets it once more.
        if one.verdict.state is DeliveryState.EXHAUSTED and is_disabled:
            return DeliveryState.PENDING
        return one.verdict.state

    rows = await driver.fetch(
        _WRITE,
        [one.delivery.endpoint_id for one in held],
        [one.delivery.event_seq for one in held],
        [state_of(one).value for one in held],
        [one.verdict.retry_seconds for one in held],
        [None if one.attempt is None else json.dumps(_shown(one.attempt)) for one in held],
    )
    ended = [row for row in rows if row["job_id"] is not None and row["state"] != DeliveryState.PENDING]
    if ended:
        await driver.execute(_LET_GO, [row["endpoint_id"] for row in ended], [row["job_id"] for row in ended])


async def _write_judgements(driver: DriverConnection, judgements: Mapping[UUID, _Judgement]) -> None:
    healths = [judgement.health for judgement in judgements.values()]
    await driver.execute(
        _JUDGE,
        list(judgements),
        [health.failures for health in healths],
        [health.failing_since for health in healths],
        [health.last_failed_at for health in healths],
        [health.backs_off_until for health in healths],
        [health.asked_until for health in healths],
        [None if it.reason is None else it.reason.value for it in judgements.values()],
    )


def _shown(attempt: Attempt) -> Mapping[str, Any]:
    return {
        "status": attempt.status,
        "error": attempt.error,
        "answer": attempt.answer,
        "milliseconds": attempt.milliseconds,
    }
