"""Deletes outputs: from then on no link leads to them. The step `media.erase` takes their objects out of the store."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.execution.steps import ERASE_MEDIA
from app.domain.errors import JobNotFound
from app.domain.jobs import Job
from app.domain.media_errors import JobUnfinished
from app.domain.outputs import DeletedBecause
from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.queue import enqueue
from app.infrastructure.postgres.statements import any_of
from app.infrastructure.postgres.tables import jobs, outputs

EXPIRED_AT_ONCE = 200
_O = outputs.c


@dataclass(frozen=True, slots=True)
class PostgresMediaDeletion:
    engine: AsyncEngine

    async def delete(
        self, account_id: UUID | None, job_id: UUID, because: DeletedBecause, number: int | None = None
    ) -> Job:
        own = select(jobs.c.is_final).where(jobs.c.id == job_id)
        if account_id is not None:
            own = own.where(jobs.c.account_id == account_id)
        async with transaction(self.engine, "delete_media") as connection:
            is_final = await connection.scalar(own.with_for_update())
            if is_final is None:
                raise JobNotFound
            if not is_final:
                raise JobUnfinished
            which = _O.job_id == job_id
            if number is not None:
                which &= _O.number == number
            if because is DeletedBecause.LOST:
                # Somebody else may have had it just before fal lost it.
                which &= _O.stored_at.is_(None)
            is_news = await _delete(connection, which, because)
            # Also where there was no output: of a job that failed a late result may be left.
            if is_news or not await connection.scalar(select(exists().where(_O.job_id == job_id))):
                await _forget_urls(connection, [job_id])
            found = await connection.execute(select(*JOB_COLUMNS).where(jobs.c.id == job_id))
            return job_of(found.mappings().one())

    async def delete_expired(self) -> int:
        is_over = (_O.expires_at < func.now()) & _O.deleted_at.is_(None)
        some = select(_O.job_id).where(is_over).order_by(_O.expires_at).limit(EXPIRED_AT_ONCE)
        async with transaction(self.engine, "delete_expired_media") as connection:
            found = set((await connection.scalars(some)).all())
            if not found:
                return 0
            # In the order in which everybody locks jobs. Who holds one of them deletes it or looks at it.
            locked = select(jobs.c.id).where(any_of(jobs.c.id, "job_ids")).order_by(jobs.c.id)
            ids = (await connection.scalars(locked.with_for_update(skip_locked=True), {"job_ids": sorted(found)})).all()
            count = await _delete(connection, _O.job_id.in_(ids) & is_over, DeletedBecause.EXPIRED)
            await _forget_urls(connection, ids)
            return count


async def _delete(connection: AsyncConnection, which: ColumnElement[bool], because: DeletedBecause) -> int:
    deleted = await connection.scalars(
        update(outputs)
        .where(which, _O.deleted_at.is_(None))
        .values(deleted_at=func.now(), deleted_because=because.value)
        .returning(_O.job_id)
    )
    job_ids = deleted.all()
    if job_ids:
        gone = sorted(set(job_ids))
        await enqueue(connection, ERASE_MEDIA, gone)
    return len(job_ids)


async def _forget_urls(connection: AsyncConnection, job_ids: Collection[UUID]) -> None:
    """Take fal's URLs out of jobs that have no output left."""
    is_left = exists().where(_O.job_id == jobs.c.id, _O.deleted_at.is_(None))
    result, late = func.without_urls(jobs.c.result), func.without_urls(jobs.c.late_result)
    await connection.execute(
        update(jobs)
        .where(
            jobs.c.id.in_(job_ids),
            ~is_left,
            or_(jobs.c.result.is_distinct_from(result), jobs.c.late_result.is_distinct_from(late)),
        )
        .values(result=result, late_result=late)
    )
