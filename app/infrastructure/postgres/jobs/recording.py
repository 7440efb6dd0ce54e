"""Submissions that fal accepted, many of them in one transaction."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.application.execution.steps import FOLLOW_JOB
from app.application.ports.provider import ProviderRequest
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.locks import LOCKED_JOBS, one_for_each
from app.infrastructure.postgres.queue import insert_items_text

# Also an attempt that fal's answer made us give back.
_RECORD = f"""
    WITH {LOCKED_JOBS}, recorded AS (
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
    ), look AS ({insert_items_text(FOLLOW_JOB, "SELECT job_id AS subject_id, after_seconds FROM recorded")})
    SELECT job_id, attempt_token FROM recorded
"""  # noqa: S608 - our own text
_RECORDED = "SELECT id, attempt_token, fal_request_id FROM jobs WHERE id = ANY($1::uuid[])"


@dataclass(frozen=True, slots=True)
class Submission:
    job_id: UUID
    attempt_token: UUID
    request: ProviderRequest
    look_after_seconds: float

    @property
    def attempt(self) -> tuple[UUID, UUID]:
        return (self.job_id, self.attempt_token)


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
    return one_for_each(won, [submission.attempt for submission in submissions])


def _columns(submissions: Collection[Submission]) -> tuple[list[str], list[str], list[str], list[str], list[float]]:
    requests = [submission.request for submission in submissions]
    return (
        [request.id for request in requests],
        [request.status_url for request in requests],
        [request.response_url for request in requests],
        [request.cancel_url for request in requests],
        [submission.look_after_seconds for submission in submissions],
    )
