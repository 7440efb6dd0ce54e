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
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.statements import RowArrays, Statement
from app.infrastructure.postgres.tables import jobs


@dataclass(frozen=True, slots=True)
class _OwnedJob:
    account_id: UUID
    id: UUID


_WANTED = RowArrays("wanted", jobs.c.account_id, jobs.c.id)
_FIND_JOBS = Statement(
    select(*JOB_COLUMNS).join(_WANTED.table, (jobs.c.id == _WANTED.c.id) & (jobs.c.account_id == _WANTED.c.account_id))
)


class PostgresJobReader:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._find: Batcher[_OwnedJob, Job | None] = Batcher(engine, _find_all, flushes_max=1)

    async def get(self, account_id: UUID, job_id: UUID) -> Job:
        # Another account's job is answered like one that does not exist.
        job = await self._find(_OwnedJob(account_id, job_id))
        if job is None:
            raise JobNotFound
        return job

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
            return [job_of(row) for row in (await connection.execute(query)).mappings()]


async def _find_all(
    driver: DriverConnection, wanted: Sequence[_OwnedJob], *, is_repeated: bool = False
) -> Sequence[Job | None]:
    found = [job_of(row) for row in await _FIND_JOBS(driver.fetch, **_WANTED.values(wanted))]
    jobs_by_owner = {_OwnedJob(job.account_id, job.id): job for job in found}
    return [jobs_by_owner.get(owned) for owned in wanted]
