"""Jobs as their owners read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, and_, any_, case, func, select, true, tuple_, type_coerce
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import JobNotFound
from app.domain.job_filters import LOOKED_AT_MAX, FoundJobs, JobFilter
from app.domain.jobs import Job, JobStatus, PublicStatus
from app.domain.key_errors import KeyOutdated
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, reading
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, constant
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
_NEWEST_FIRST = (jobs.c.created_at.desc(), jobs.c.id.desc())
# What `Job.public_status` says.
_PUBLIC_STATUS = type_coerce(
    case(
        (~jobs.c.is_final & jobs.c.cancel_requested_at.is_not(None), constant(PublicStatus.CANCELING)),
        (jobs.c.status == constant(JobStatus.SUBMITTING), constant(PublicStatus.QUEUED)),
        else_=jobs.c.status,
    ),
    Text,
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
        chosen = select(jobs.c.id).where(jobs.c.account_id == account_id)
        if after is not None:
            last = await self.get(account_id, after)
            chosen = chosen.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(last.created_at, last.id))
        # What is left out is passed over in the index: all columns of each would be made for nothing. As an array, so
        # that the page is read job by job however the planner would join.
        page = func.array(chosen.order_by(*_NEWEST_FIRST).limit(limit).offset(offset).scalar_subquery())
        query = select(*JOB_COLUMNS).where(jobs.c.id == any_(page)).order_by(*_NEWEST_FIRST)
        async with reading(self.engine) as connection:
            return [job_of(row) for row in (await connection.execute(query)).mappings()]

    async def find(self, account_id: UUID, wanted: JobFilter, *, limit: int, after: UUID | None = None) -> FoundJobs:
        looked_at = select(
            jobs.c.id,
            jobs.c.created_at,
            func.row_number().over(order_by=_NEWEST_FIRST).label("place"),
            _fits(wanted).label("fits"),
        ).where(jobs.c.account_id == account_id)
        if after is not None:
            last = await self.get(account_id, after)
            looked_at = looked_at.where(tuple_(jobs.c.created_at, jobs.c.id) < tuple_(last.created_at, last.id))
        values = {"statuses": list(wanted.statuses), "kinds": list(wanted.kinds)}
        async with reading(self.engine) as connection:
            rows = (await connection.execute(_found_among(looked_at, limit), values)).mappings().all()
        fitting = [row for row in rows if row["fits"] and row["place"] <= LOOKED_AT_MAX]
        page = [job_of(row) for row in fitting[:limit]]
        if len(fitting) > limit:
            return FoundJobs(page, page[-1].id)
        beyond = {row["place"]: row["id"] for row in rows}
        return FoundJobs(page, beyond[LOOKED_AT_MAX] if LOOKED_AT_MAX + 1 in beyond else None)


def _fits(wanted: JobFilter) -> ColumnElement[bool]:
    conditions = []
    if wanted.statuses:
        conditions.append(any_of(_PUBLIC_STATUS, "statuses"))
    if wanted.kinds:
        conditions.append(any_of(jobs.c.kind, "kinds"))
    if wanted.model_id is not None:
        conditions.append(jobs.c.model_id == wanted.model_id)
    return and_(true(), *conditions)


def _found_among(newest: Select[Any], limit: int) -> Select[Any]:
    """Those that fit, as many as tell whether there are more, and behind them the last one that was looked at and the
    one after it. It is one statement, so that both are said of the same moment. It ends as soon as enough was found.
    """
    looked_at = newest.order_by(*_NEWEST_FIRST).limit(constant(LOOKED_AT_MAX + 1)).subquery("looked_at")
    chosen = (
        select(looked_at.c.id, looked_at.c.place, looked_at.c.fits)
        .where(looked_at.c.fits | (looked_at.c.place >= constant(LOOKED_AT_MAX)))
        # As the index has them: by their places they would be sorted, which wants all of them first.
        .order_by(looked_at.c.created_at.desc(), looked_at.c.id.desc())
        .limit(limit + 2)
        .subquery("chosen")
    )
    return (
        select(*JOB_COLUMNS, chosen.c.place, chosen.c.fits)
        .join(chosen, chosen.c.id == jobs.c.id)
        .order_by(chosen.c.place)
    )


async def _find_all(
    driver: DriverConnection, wanted: Sequence[_OwnedJob], *, is_repeated: bool = False
) -> Sequence[Job | None]:
    rows = await _FIND_JOBS(driver.fetch, **_WANTED.values(wanted))
    found = {_OwnedJob(row["account_id"], row["id"], row["keys_version"]): job_of(row) for row in rows}
    return [found.get(owned) for owned in wanted]
