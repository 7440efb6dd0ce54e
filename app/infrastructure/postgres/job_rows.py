"""What a row of `jobs` becomes, and what is queued with it."""

from collections.abc import Sequence
from typing import Any, Protocol
from uuid import UUID

from app.application.execution import Step
from app.domain.catalogue import GenerationKind
from app.domain.generations import Job, JobStatus
from app.infrastructure.postgres.tables import jobs


class Enqueue(Protocol):
    async def __call__(
        self, fetch: Any, step: Step, job_ids: Sequence[UUID], after_seconds: Sequence[float] = ()
    ) -> None:
        """Queue the step for the jobs in the transaction of `fetch`; an item that waits already stays as it is.

        `after_seconds` of each job, else for at once.
        """
        ...


JOB_COLUMNS = (
    jobs.c.id,
    jobs.c.kind,
    jobs.c.model_id,
    jobs.c.status,
    jobs.c.cost_tokens,
    jobs.c.refunded_tokens,
    jobs.c.fal_request_id,
    jobs.c.result,
    jobs.c.error_code,
    jobs.c.error_message,
    jobs.c.status_reason,
    jobs.c.cancel_requested_at,
    jobs.c.created_at,
    jobs.c.updated_at,
)


JOB_COLUMN_NAMES = ", ".join(f"jobs.{column.name}" for column in JOB_COLUMNS)


def job_of(row: Any) -> Job:
    job_id, kind, model_id, status, *rest = row
    return Job(job_id, GenerationKind(kind), model_id, JobStatus(status), *rest)
