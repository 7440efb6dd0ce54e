"""What keeps the jobs of all accounts going, and what the operator sees of them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import FOLLOW_JOB
from app.domain.errors import JobNotFound
from app.domain.jobs import Job, JobStatus
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.jobs.waiting import forgotten_waits
from app.infrastructure.postgres.lost_steps import WaitingSubjects
from app.infrastructure.postgres.queue import count_queued
from app.infrastructure.postgres.tables import attempts, idempotency_keys, jobs

# Spelled out in the statement: the planner must see how little of the table that is.
IDEMPOTENCY_KEYS_KEPT: ColumnElement[timedelta] = literal_column("interval '24 hours'")


# The statuses are named, and none is left over: a job in one that this release does not know waits for a newer release.
_MAY_BE_AT_FAL = jobs.c.submit_unknown_at.is_not(None)
JOBS_TO_SUBMIT: WaitingSubjects = select(jobs.c.id).where(
    ~jobs.c.is_final,
    ((jobs.c.status == JobStatus.QUEUED.value) & jobs.c.held_at.is_(None))
    | ((jobs.c.status == JobStatus.SUBMITTING.value) & ~_MAY_BE_AT_FAL),
)
JOBS_TO_FOLLOW: WaitingSubjects = select(jobs.c.id).where(
    ~jobs.c.is_final,
    jobs.c.status.in_((JobStatus.SUBMITTED.value, JobStatus.IN_QUEUE.value, JobStatus.IN_PROGRESS.value))
    | ((jobs.c.status == JobStatus.SUBMITTING.value) & _MAY_BE_AT_FAL),
)


class PostgresJobRecords:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def newest(
        self,
        *,
        unfinished_only: bool = False,
        unknown_only: bool = False,
        late_only: bool = False,
        orphans_only: bool = False,
        limit: int,
    ) -> Sequence[Job]:
        query = select(*JOB_COLUMNS).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if unfinished_only:
            query = query.where(~jobs.c.is_final)
        if unknown_only:
            query = query.where(jobs.c.submit_unknown_at.is_not(None))
        if late_only:
            query = query.where(jobs.c.late_result.is_not(None))
        if orphans_only:
            query = query.where(jobs.c.id.in_(select(attempts.c.job_id).where(attempts.c.orphaned_at.is_not(None))))
        async with reading(self.engine) as connection:
            return [job_of(row) for row in (await connection.execute(query)).mappings()]

    async def inspect(self, job_id: UUID) -> Mapping[str, Any]:
        own = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
        async with reading(self.engine) as connection:
            found = await connection.execute(select(jobs).where(jobs.c.id == job_id))
            row = found.mappings().one_or_none()
            each = (await connection.execute(own)).mappings().all()
        if row is None:
            raise JobNotFound
        return {**row, "each_attempt": [_shown(attempt) for attempt in each]}

    async def count_waiting_looks(self) -> int:
        async with reading(self.engine) as connection:
            return await connection.scalar(count_queued(FOLLOW_JOB)) or 0

    async def forget_idempotency_keys(self) -> int:
        async with transaction(self.engine, "forget_idempotency_keys") as connection:
            forgotten = await connection.execute(
                delete(idempotency_keys).where(
                    idempotency_keys.c.created_at < func.now() - IDEMPOTENCY_KEYS_KEPT,
                    idempotency_keys.c.job_id == jobs.c.id,
                    jobs.c.is_final,
                )
            )
            return forgotten.rowcount

    async def forget_waits(self) -> int:
        async with transaction(self.engine, "forget_waits") as connection:
            return (await connection.execute(forgotten_waits())).rowcount


def _shown(attempt: Mapping[Any, Any]) -> Mapping[str, Any]:
    digest = attempt["input_digest"]
    return {**attempt, "input_digest": None if digest is None else digest.hex()}
