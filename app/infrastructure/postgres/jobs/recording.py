"""Submissions that fal accepted, many of them in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Double, Uuid, null, select, update

from app.application.execution.steps import FOLLOW_JOB
from app.application.ports.provider import ProviderRequest
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.claiming import Attempt
from app.infrastructure.postgres.jobs.locks import locked_jobs, one_for_each
from app.infrastructure.postgres.queue import insert_items
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, column, constant, constants
from app.infrastructure.postgres.tables import jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    job_id: UUID
    attempt_token: UUID
    fal_request_id: str
    fal_status_url: str
    fal_response_url: str
    fal_cancel_url: str
    after_seconds: float
    """Until the first look."""

    @classmethod
    def of(
        cls, job_id: UUID, attempt_token: UUID, request: ProviderRequest, *, look_after_seconds: float
    ) -> "Submission":
        return cls(
            job_id=job_id,
            attempt_token=attempt_token,
            fal_request_id=request.id,
            fal_status_url=request.status_url,
            fal_response_url=request.response_url,
            fal_cancel_url=request.cancel_url,
            after_seconds=look_after_seconds,
        )

    @property
    def attempt(self) -> Attempt:
        return Attempt(self.job_id, self.attempt_token)


_REQUEST_COLUMNS = (jobs.c.fal_request_id, jobs.c.fal_status_url, jobs.c.fal_response_url, jobs.c.fal_cancel_url)
_ACCEPTED = RowArrays(
    "accepted",
    column("job_id", Uuid),
    column("attempt_token", Uuid),
    *_REQUEST_COLUMNS,
    column("after_seconds", Double),
)
_LOCKED = locked_jobs(_ACCEPTED)
_RECORDED = (
    update(jobs)
    .values(
        status=constant(JobStatus.SUBMITTED),
        submit_unknown_at=null(),
        status_reason=null(),
        **{column.key: _ACCEPTED.c[column.key] for column in _REQUEST_COLUMNS},
    )
    .where(
        jobs.c.id == _LOCKED.c.id,
        _ACCEPTED.c.job_id == _LOCKED.c.id,
        # Also an attempt that fal's answer made us give back.
        jobs.c.status.in_(constants((JobStatus.SUBMITTING, JobStatus.QUEUED))),
        jobs.c.attempt_token == _ACCEPTED.c.attempt_token,
    )
    .returning(jobs.c.id.label("subject_id"), jobs.c.attempt_token, _ACCEPTED.c.after_seconds)
    .cte("recorded")
)
_RECORD = Statement(
    select(_RECORDED.c.subject_id, _RECORDED.c.attempt_token).add_cte(insert_items(FOLLOW_JOB, _RECORDED).cte("look"))
)
_REQUESTS = Statement(
    select(jobs.c.id, jobs.c.attempt_token, jobs.c.fal_request_id).where(any_of(jobs.c.id, "job_ids"))
)


async def record_all(
    driver: DriverConnection, submissions: Sequence[Submission], *, is_repeated: bool = False
) -> Sequence[bool]:
    """Raises UniqueViolationError for all of them where one names the request of another job."""
    first = {submission.attempt: submission for submission in reversed(submissions)}
    async with driver_transaction(driver, "record_submission"):
        rows = await _RECORD(driver.fetch, **_ACCEPTED.values(list(first.values())))
        won = {Attempt(row["subject_id"], row["attempt_token"]) for row in rows}
        if is_repeated:
            for row in await _REQUESTS(driver.fetch, job_ids=[attempt.job_id for attempt in first]):
                attempt = Attempt(row["id"], row["attempt_token"])
                if attempt in first and first[attempt].fal_request_id == row["fal_request_id"]:
                    won.add(attempt)
    return one_for_each(won, [submission.attempt for submission in submissions])
