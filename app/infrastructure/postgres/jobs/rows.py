"""What a row of `jobs` becomes."""

from typing import Any

from app.domain.catalogue import GenerationKind
from app.domain.jobs import Job, JobStatus
from app.infrastructure.postgres.tables import jobs

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
