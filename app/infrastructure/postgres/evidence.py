from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import exists, select, union
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.evidence import LostSubmission
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.tables import attempts, jobs


@dataclass(frozen=True, slots=True)
class PostgresLostSubmissions:
    engine: AsyncEngine

    async def load(self, job_id: UUID) -> LostSubmission | None:
        query = select(
            jobs.c.id.label("job_id"),
            jobs.c.model_id,
            jobs.c.parameters,
            jobs.c.attempt_token,
            jobs.c.claimed_at,
        ).where(jobs.c.id == job_id, jobs.c.submit_unknown_at.is_not(None), jobs.c.fal_request_id.is_(None))
        async with reading(self.engine) as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else LostSubmission(**row)

    async def known(self, request_ids: Sequence[str]) -> set[str]:
        query = union(
            select(jobs.c.fal_request_id).where(jobs.c.fal_request_id.in_(request_ids)),
            select(attempts.c.fal_request_id).where(attempts.c.fal_request_id.in_(request_ids)),
        )
        async with reading(self.engine) as connection:
            return set((await connection.scalars(query)).all())

    async def has_rival(self, job_id: UUID, within: timedelta) -> bool:
        own = jobs.alias("own")
        rival = (
            select(jobs.c.id)
            .join(own, (own.c.id == job_id) & (own.c.id != jobs.c.id))
            .where(
                # This condition comes first because it has an index.
                jobs.c.fal_request_id.is_(None),
                (jobs.c.status == JobStatus.SUBMITTING.value) | jobs.c.submit_unknown_at.is_not(None),
                jobs.c.model_id == own.c.model_id,
                jobs.c.claimed_at.between(own.c.claimed_at - within, own.c.claimed_at + within),
                # fal may show more of a request than was sent, so a rival is a job that asked for at least as much.
                jobs.c.parameters.contains(own.c.parameters),
            )
        )
        async with reading(self.engine) as connection:
            return bool(await connection.scalar(select(exists(rival.correlate(None)))))
