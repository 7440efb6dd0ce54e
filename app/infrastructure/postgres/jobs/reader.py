"""Jobs as their owners read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import JobNotFound
from app.domain.jobs import Job
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, reading
from app.infrastructure.postgres.jobs.rows import JOB_COLUMN_NAMES, JOB_COLUMNS, job_of
from app.infrastructure.postgres.tables import jobs

_FIND_JOBS = f"SELECT account_id, {JOB_COLUMN_NAMES} FROM jobs WHERE id = ANY($1::uuid[])"  # noqa: S608 - our own column names


@dataclass(frozen=True, slots=True)
class _Found:
    account_id: UUID
    job: Job


class PostgresJobReader:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._find: Batcher[UUID, _Found | None] = Batcher(engine, _find_all, flushes_max=1)

    async def get(self, account_id: UUID, job_id: UUID) -> Job:
        found = await self._find(job_id)
        # Another account's job is answered like one that does not exist.
        if found is None or found.account_id != account_id:
            raise JobNotFound
        return found.job

    async def page(self, account_id: UUID, *, limit: int, offset: int = 0, after: UUID | None = None) -> Sequence[Job]:
        query = (
            select(*JOB_COLUMNS)
            .where(jobs.c.account_id == account_id)
            .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
            .limit(limit)
            .offset(offset)
        )
        if after is not None:
            last = await self.get(account_id, after)
            query = query.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(last.created_at, last.id))
        async with reading(self.engine) as connection:
            return [job_of(row) for row in await connection.execute(query)]


async def _find_all(
    driver: DriverConnection, job_ids: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[_Found | None]:
    rows = await driver.fetch(_FIND_JOBS, job_ids)
    found = {row[1]: _Found(row[0], job_of(row[1:])) for row in rows}
    return [found.get(job_id) for job_id in job_ids]
