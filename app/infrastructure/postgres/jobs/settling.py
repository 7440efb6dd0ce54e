"""Ends of jobs, many of them in one transaction: the one way into a final status, with its refund."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from app.application.execution.steps import FOLLOW_JOB
from app.domain.jobs import Outcome
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.locks import LOCKED_JOBS, one_for_each
from app.infrastructure.postgres.queue import delete_queued_text

# Compare-and-set into a final status; the refund is the same statement's second half. Not by `is_final`: while few jobs
# are unfinished the planner may go through all of those, and keeps to that plan when they are many.
# The look that waits for such an end has nothing left to see, unless fal's request is not known and will be searched
# for. The item of a look under way is the runner's. Locked ones are left alone: who waits for no item is in no circle
# of those that wait.
_SETTLE = f"""
    WITH {LOCKED_JOBS}, settled AS (
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
    ), look AS ({
    delete_queued_text(FOLLOW_JOB, "SELECT id AS subject_id FROM settled WHERE fal_request_id IS NOT NULL")
})
    SELECT id FROM settled
"""  # noqa: S608 - our own text
_ENDED = "SELECT id, status, error_code FROM jobs WHERE id = ANY($1::uuid[])"


@dataclass(frozen=True, slots=True)
class Settlement:
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


async def settle_all(
    driver: DriverConnection, endings: Sequence[Settlement], *, is_repeated: bool = False
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
    return one_for_each(won, [ending.job_id for ending in endings])


async def settle_through(fetch: Callable[..., Awaitable[Sequence[Any]]], endings: Sequence[Settlement]) -> set[UUID]:
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
