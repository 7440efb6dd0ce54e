"""Jobs as their owners read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import JobNotFound
from app.domain.jobs import Job
from app.domain.key_errors import KeyOutdated
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, reading
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.statements import RowArrays, Statement
from app.infrastructure.postgres.tables import accounts, jobs


@dataclass(frozen=True, slots=True)
class _OwnedJob:
    account_id: UUID
    id: UUID
    keys_version: int | None


_WANTED = RowArrays("wanted", jobs.c.account_id, jobs.c.id, accounts.c.keys_version)
_FIND_JOBS = Statement(
    select(*JOB_COLUMNS, _WANTED.c.keys_version)
    .join(_WANTED.table, (jobs.c.id == _WANTED.c.id) & (jobs.c.account_id == _WANTED.c.account_id))
    .join(accounts, accounts.c.id == jobs.c.account_id)
    .where(accounts.c.keys_version == func.coalesce(_WANTED.c.keys_version, accounts.c.keys_version))
)


class PostgresJobReader:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._find: Batcher[_OwnedJob, Job | None] = Batcher(engine, _find_all, flushes_max=1)

    async def get(self, account_id: UUID, job_id: UUID, *, keys_version: int | None = None) -> Job:
        # Another account's job is answered like one that does not exist.
        job = await self._find(_OwnedJob(account_id, job_id, keys_version))
        if job is None:
            raise JobNotFound if keys_version is None else KeyOutdated
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
    rows = await _FIND_JOBS(driver.fetch, **_WANTED.values(wanted))
    found = {_OwnedJob(row["account_id"], row["id"], row["keys_version"]): job_of(row) for row in rows}
    return [found.get(owned) for owned in wanted]
