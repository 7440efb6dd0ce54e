"""The steps of jobs, many of them in one transaction.

Locks are taken in the order jobs, accounts, and among each in the order of their ids, so that no two transactions
wait for each other in a circle. Jobs are locked as fully as the updates need them: no lock is made stronger later.
"""

import json
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from uuid import UUID

from app.application.execution import Step
from app.application.ports import Claim, JobState, LargeInput, ProviderRequest
from app.domain.catalogue import GenerationKind
from app.domain.generations import JobStatus, Outcome
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.queue_items import insert_items

# An update of many rows takes them in any order; joined to this one, in the order of their ids.
_LOCKED = "locked AS (SELECT id FROM jobs WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE)"
# As stored, which is compressed: nothing is unpacked to see this. What gets through is a few megabytes at the most, of
# one byte repeated.
_IS_SMALL = "pg_column_size(jobs.parameters) <= 8192"
_LARGE = f"SELECT id FROM jobs WHERE id = ANY($1::uuid[]) AND NOT {_IS_SMALL}"  # noqa: S608 - our own text
# The same claim again is granted: the answer to the first one was lost.
_CLAIM = f"""
    WITH {_LOCKED}
    UPDATE jobs SET
           status = 'SUBMITTING',
           attempts = jobs.attempts + CASE jobs.status WHEN 'QUEUED' THEN 1 ELSE 0 END,
           attempt_token = wish.attempt_token,
           claimed_at = clock_timestamp(),
           deadline_at = clock_timestamp() + make_interval(secs => jobs.time_limit_seconds),
           status_reason = NULL
      FROM locked
      JOIN unnest($1::uuid[], $2::uuid[], $3::bool[]) AS wish (job_id, attempt_token, may_be_large)
           ON wish.job_id = locked.id
     WHERE jobs.id = locked.id
       AND (wish.may_be_large OR {_IS_SMALL})
       AND (jobs.status = 'QUEUED' OR (jobs.status = 'SUBMITTING' AND jobs.attempt_token = wish.attempt_token
                                       AND jobs.submit_unknown_at IS NULL))
    RETURNING jobs.id, jobs.attempt_token, jobs.kind, jobs.model_id, jobs.parameters, jobs.attempts,
              jobs.time_limit_seconds
"""  # noqa: S608 - our own text
# Also an attempt that fal's answer made us give back.
_RECORD = f"""
    WITH {_LOCKED}, recorded AS (
        UPDATE jobs SET
               status = 'SUBMITTED',
               fal_request_id = request.id,
               fal_status_url = request.status_url,
               fal_response_url = request.response_url,
               fal_cancel_url = request.cancel_url,
               submit_unknown_at = NULL,
               status_reason = NULL
          FROM locked
          JOIN unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[])
               AS request (job_id, attempt_token, id, status_url, response_url, cancel_url, look_after_seconds)
               ON request.job_id = locked.id
         WHERE jobs.id = locked.id
           AND jobs.status IN ('SUBMITTING', 'QUEUED') AND jobs.attempt_token = request.attempt_token
        RETURNING jobs.id AS job_id, jobs.attempt_token, request.look_after_seconds AS after_seconds
    ), look AS ({insert_items(Step.FOLLOW, "recorded")})
    SELECT job_id, attempt_token FROM recorded
"""  # noqa: S608 - our own text
_RECORDED = "SELECT id, attempt_token, fal_request_id FROM jobs WHERE id = ANY($1::uuid[])"
# Compare-and-set into a final status; the refund is the same statement's second half. Not by `is_final`: while few jobs
# are unfinished the planner may go through all of those, and keeps to that plan when they are many.
# The look that waits for such an end has nothing left to see, unless fal's request is not known and will be searched
# for. The item of a look under way is the runner's. Locked ones are left alone: who waits for no item is in no circle
# of those that wait.
_SETTLE = f"""
    WITH {_LOCKED}, settled AS (
        UPDATE jobs SET
               status = outcome.status,
               refunded_tokens = CASE outcome.status WHEN 'COMPLETED' THEN outcome.refunded_tokens
                                                     ELSE jobs.cost_tokens END,
               result = outcome.result,
               error_code = outcome.error_code,
               error_message = outcome.error_message,
               status_reason = NULL
          FROM locked
          JOIN unnest($1::uuid[], $2::text[], $3::bigint[], $4::jsonb[], $5::text[], $6::text[])
               AS outcome (job_id, status, refunded_tokens, result, error_code, error_message)
               ON outcome.job_id = locked.id
         WHERE jobs.id = locked.id AND jobs.status NOT IN ('COMPLETED', 'FAILED', 'CANCELED')
        RETURNING jobs.id, jobs.account_id, jobs.refunded_tokens, jobs.fal_request_id
    ), refund AS (
        INSERT INTO ledger_entries (account_id, kind, amount, job_id)
        SELECT account_id, 'REFUND', refunded_tokens, id FROM settled WHERE refunded_tokens > 0
         ORDER BY account_id
    ), look AS (
        DELETE FROM pgqueuer WHERE id IN (
            SELECT item.id
              FROM settled JOIN pgqueuer AS item ON item.dedupe_key = '{Step.FOLLOW.value}:' || settled.id
             WHERE item.status = 'queued' AND settled.fal_request_id IS NOT NULL
               FOR UPDATE OF item SKIP LOCKED
        )
    )
    SELECT id FROM settled
"""  # noqa: S608 - our own text
_ENDED = "SELECT id, status, error_code FROM jobs WHERE id = ANY($1::uuid[])"
_STATE = """
    SELECT id, kind, model_id, status, attempt_token, fal_request_id, fal_status_url, fal_response_url, fal_cancel_url,
           cancel_requested_at IS NOT NULL AS cancel_requested,
           cost_tokens,
           outputs_requested,
           coalesce(extract(epoch FROM clock_timestamp() - claimed_at), 0)::float8 AS seconds_since_claim,
           extract(epoch FROM clock_timestamp() - cancel_sent_at)::float8 AS seconds_since_cancel_sent,
           submit_unknown_at IS NOT NULL AS is_submit_unknown,
           coalesce(extract(epoch FROM deadline_at - clock_timestamp()), 'infinity')::float8 AS seconds_to_deadline,
           extract(epoch FROM clock_timestamp() - overdue_noticed_at)::float8 AS seconds_since_overdue_noticed
      FROM jobs
"""
_STATE_OF_JOBS = f"{_STATE} WHERE id = ANY($1::uuid[])"
_STATE_OF_ATTEMPTS = f"{_STATE} WHERE attempt_token = ANY($1::uuid[])"

# A job and one attempt to submit it.
Attempt = tuple[UUID, UUID]
Won = TypeVar("Won", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Wish:
    """To claim a job."""

    job_id: UUID
    attempt_token: UUID
    may_be_large: bool

    @property
    def attempt(self) -> Attempt:
        return (self.job_id, self.attempt_token)


@dataclass(frozen=True, slots=True)
class Submission:
    job_id: UUID
    attempt_token: UUID
    request: ProviderRequest
    look_after_seconds: float

    @property
    def attempt(self) -> Attempt:
        return (self.job_id, self.attempt_token)


@dataclass(frozen=True, slots=True)
class Ending:
    job_id: UUID
    outcome: Outcome
    result: str | None
    """The outcome's, as JSON."""

    @classmethod
    def of(cls, job_id: UUID, outcome: Outcome) -> Self:
        return cls(job_id, outcome, None if outcome.result is None else json.dumps(outcome.result))

    @property
    def size_bytes(self) -> int:
        return 0 if self.result is None else len(self.result)


async def claim_all(
    driver: DriverConnection, wishes: Sequence[Wish], *, is_repeated: bool = False
) -> Sequence[Claim | LargeInput | None]:
    """One of those that want the same job gets it. A repeated try is granted what the first one was."""
    async with driver_transaction(driver, "claim"):
        rows = await driver.fetch(
            _CLAIM,
            [wish.job_id for wish in wishes],
            [wish.attempt_token for wish in wishes],
            [wish.may_be_large for wish in wishes],
        )
        claims = {(row[0], row[1]): Claim(GenerationKind(row[2]), *row[3:]) for row in rows}
        refused = [wish.job_id for wish in wishes if wish.attempt not in claims and not wish.may_be_large]
        large = {row[0] for row in await driver.fetch(_LARGE, refused)} if refused else set()
    return [
        claims.get(wish.attempt) or (LargeInput() if wish.job_id in large and not wish.may_be_large else None)
        for wish in wishes
    ]


async def record_all(
    driver: DriverConnection, submissions: Sequence[Submission], *, is_repeated: bool = False
) -> Sequence[bool]:
    """Raises UniqueViolationError for all of them where one names the request of another job."""
    first = {submission.attempt: submission for submission in reversed(submissions)}
    job_ids = [job_id for job_id, _ in first]
    async with driver_transaction(driver, "record_submission"):
        rows = await driver.fetch(_RECORD, job_ids, [token for _, token in first], *_columns(first.values()))
        won = {(row[0], row[1]) for row in rows}
        if is_repeated:
            for job_id, token, request_id in await driver.fetch(_RECORDED, job_ids):
                earlier = first.get((job_id, token))
                if earlier is not None and earlier.request.id == request_id:
                    won.add((job_id, token))
    return _one_for_each(won, [submission.attempt for submission in submissions])


async def settle_all(
    driver: DriverConnection, endings: Sequence[Ending], *, is_repeated: bool = False
) -> Sequence[bool]:
    """Of those that end the same job the first one wins, unless the job is final already."""
    first = {ending.job_id: ending for ending in reversed(endings)}
    async with driver_transaction(driver, "settle"):
        won = await settle_through(driver.fetch, list(first.values()))
        if is_repeated:
            for job_id, status, error_code in await driver.fetch(_ENDED, list(first)):
                if (status, error_code) == (first[job_id].outcome.status.value, first[job_id].outcome.error_code):
                    # The first try's doing, or that of somebody who came to the same end.
                    won.add(job_id)
    return _one_for_each(won, [ending.job_id for ending in endings])


async def settle_through(fetch: Callable[..., Awaitable[Sequence[Any]]], endings: Sequence[Ending]) -> set[UUID]:
    """In the caller's transaction, at most one for each job; those that were not final before."""
    outcomes = [ending.outcome for ending in endings]
    rows = await fetch(
        _SETTLE,
        [ending.job_id for ending in endings],
        [outcome.status.value for outcome in outcomes],
        [outcome.refunded_tokens for outcome in outcomes],
        [ending.result for ending in endings],
        [outcome.error_code for outcome in outcomes],
        [outcome.error_message for outcome in outcomes],
    )
    return {row["id"] for row in rows}


async def load_all(
    driver: DriverConnection, job_ids: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[JobState | None]:
    states = {row["id"]: _state_of(row) for row in await driver.fetch(_STATE_OF_JOBS, job_ids)}
    return [states.get(job_id) for job_id in job_ids]


async def load_all_attempts(
    driver: DriverConnection, tokens: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[JobState | None]:
    states = {row["attempt_token"]: _state_of(row) for row in await driver.fetch(_STATE_OF_ATTEMPTS, tokens)}
    return [states.get(token) for token in tokens]


def _columns(submissions: Collection[Submission]) -> tuple[list[str], list[str], list[str], list[str], list[float]]:
    requests = [submission.request for submission in submissions]
    return (
        [request.id for request in requests],
        [request.status_url for request in requests],
        [request.response_url for request in requests],
        [request.cancel_url for request in requests],
        [submission.look_after_seconds for submission in submissions],
    )


def _one_for_each(won: Set[Won], named: Sequence[Won]) -> Sequence[bool]:
    """Whoever comes first with a name that won; who comes later with the same one was too late."""
    left = set(won)
    answers = []
    for name in named:
        answers.append(name in left)
        left.discard(name)
    return answers


def _state_of(row: Any) -> JobState:
    request = (
        ProviderRequest(row["fal_request_id"], row["fal_status_url"], row["fal_response_url"], row["fal_cancel_url"])
        if row["fal_request_id"] is not None
        else None
    )
    return JobState(
        id=row["id"],
        kind=GenerationKind(row["kind"]),
        model_id=row["model_id"],
        status=JobStatus(row["status"]),
        attempt_token=row["attempt_token"],
        request=request,
        cancel_requested=row["cancel_requested"],
        cost_tokens=row["cost_tokens"],
        outputs_requested=row["outputs_requested"],
        seconds_since_claim=row["seconds_since_claim"],
        seconds_since_cancel_sent=row["seconds_since_cancel_sent"],
        is_submit_unknown=row["is_submit_unknown"],
        seconds_to_deadline=row["seconds_to_deadline"],
        seconds_since_overdue_noticed=row["seconds_since_overdue_noticed"],
    )
