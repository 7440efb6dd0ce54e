from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Select, case, exists, func, select, true, union
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.evidence import LostSubmission
from app.domain.attempts import AttemptOutcome
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.jobs.rows import FAL_INPUT, INPUT_COLUMNS, input_of
from app.infrastructure.postgres.statements import constants
from app.infrastructure.postgres.tables import attempts, jobs


@dataclass(frozen=True, slots=True)
class PostgresLostSubmissions:
    engine: AsyncEngine

    async def load(self, job_id: UUID) -> LostSubmission | None:
        query = (
            select(
                jobs.c.id.label("job_id"),
                jobs.c.model_id,
                *INPUT_COLUMNS,
                jobs.c.attempt_token,
                jobs.c.claimed_at,
                attempts.c.input_digest,
            )
            .join_from(jobs, attempts, attempts.c.token == jobs.c.attempt_token, isouter=True)
            .where(jobs.c.id == job_id, jobs.c.submit_unknown_at.is_not(None), jobs.c.fal_request_id.is_(None))
        )
        async with reading(self.engine) as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        return LostSubmission(
            job_id=row["job_id"],
            model_id=row["model_id"],
            input=input_of(row),
            attempt_token=row["attempt_token"],
            claimed_at=row["claimed_at"],
            input_digest=row["input_digest"],
        )

    async def known(self, request_ids: Sequence[str]) -> set[str]:
        query = union(
            select(jobs.c.fal_request_id).where(jobs.c.fal_request_id.in_(request_ids)),
            select(attempts.c.fal_request_id).where(attempts.c.fal_request_id.in_(request_ids)),
        )
        async with reading(self.engine) as connection:
            return set((await connection.scalars(query)).all())

    async def has_rival(self, job_id: UUID, within: timedelta) -> bool:
        async with reading(self.engine) as connection:
            return bool(await connection.scalar(_has_rival(job_id, within)))


def _has_rival(job_id: UUID, within: timedelta) -> Select[bool]:
    own = (
        select(
            jobs.c.id,
            jobs.c.model_id,
            jobs.c.claimed_at,
            INPUT_COLUMNS[0],
            jobs.c.input_forgotten_at.is_not(None).label("is_forgotten"),
        )
        .where(jobs.c.id == job_id)
        .cte("own")
        .prefix_with("MATERIALIZED")
    )
    is_lost = select(jobs.c.id.label("job_id")).where(
        jobs.c.id != own.c.id,
        jobs.c.model_id == own.c.model_id,
        jobs.c.fal_request_id.is_(None),
        (jobs.c.status == JobStatus.SUBMITTING.value) | jobs.c.submit_unknown_at.is_not(None),
        jobs.c.claimed_at.between(own.c.claimed_at - within, own.c.claimed_at + within),
    )
    # fal may have run what it seemed to refuse, also where the job went on with another attempt.
    has_lost = (
        select(attempts.c.job_id)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            jobs.c.id != own.c.id,
            jobs.c.model_id == own.c.model_id,
            attempts.c.fal_request_id.is_(None),
            attempts.c.outcome.in_(constants([AttemptOutcome.NOT_QUEUED, AttemptOutcome.UNKNOWN])),
            attempts.c.claimed_at.between(own.c.claimed_at - within, own.c.claimed_at + within),
        )
    )
    near = union(is_lost, has_lost).cte("near").prefix_with("MATERIALIZED")
    rivals = select(jobs.c.id).join(near, near.c.job_id == jobs.c.id).join(own, true()).where(_asked_for_as_much(own))
    return select(exists(rivals))


def _asked_for_as_much(own: CTE) -> ColumnElement[bool]:
    """Whether a job has all that is in the input of the own one: fal may show more of a request than was sent.

    To take the pictures out of 10 MB takes half a second, so this is done only where they were taken out of one of the
    two; of the own input once.
    """
    own_kept = select(func.without_media(own.c.fal_input, type_=JSONB)).scalar_subquery()
    return case(
        (
            own.c.is_forgotten | jobs.c.input_forgotten_at.is_not(None),
            func.without_media(FAL_INPUT, type_=JSONB).contains(own_kept),
        ),
        else_=FAL_INPUT.contains(own.c.fal_input),
    )
