"""Notices that the database is not the one that the service last ran on, and holds what may have been submitted."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, func, null, select, text, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.execution.steps import SUBMIT_JOB
from app.application.ports.execution import JobSteps
from app.application.ports.provider import ProviderRequest
from app.application.ports.restores import HeldJob
from app.domain.files import without_files
from app.domain.jobs import JobStatus, Outcome
from app.infrastructure.postgres.database import fetch_through, reading, transaction
from app.infrastructure.postgres.jobs.rows import INPUT_COLUMNS, input_of
from app.infrastructure.postgres.jobs.settling import Settlement, settle_through
from app.infrastructure.postgres.queue import enqueue
from app.infrastructure.postgres.statements import any_of, seconds
from app.infrastructure.postgres.tables import attempts, installation, jobs

ENDING_STEP_SECONDS = 1.0
# So many jobs are held or released in one transaction: there may be more than a single statement has the time for.
JOBS_AT_ONCE = 5_000
HELD = "The service was restored from a backup. Its operator checks first whether this job has run already."

# A restored database has another of these: another server, or on the same one another database, or in the same
# database another table. A standby that took over, or a table that was rewritten, has the same.
_MAY_ASK = text("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
_SERVER = text("SELECT system_identifier::text FROM pg_control_system()")
_PLACE = text("""
    SELECT oid::text || '/' || 'jobs'::regclass::oid::text FROM pg_database WHERE datname = current_database()
""")
_IS_QUEUED: ColumnElement[bool] = ~jobs.c.is_final & (jobs.c.status == JobStatus.QUEUED.value)
_IS_HELD: ColumnElement[bool] = _IS_QUEUED & jobs.c.held_at.is_not(None)
_IS_FREE: ColumnElement[bool] = _IS_QUEUED & jobs.c.held_at.is_(None)


def _held(row: Mapping[Any, Any]) -> HeldJob:
    # Where nobody knows under which URL fal was sent a file, the rest of the input has to tell.
    parameters = without_files(input_of(row).parameters)
    return HeldJob(
        id=row["id"],
        account_id=row["account_id"],
        model_id=row["model_id"],
        parameters=parameters,
        created_at=row["created_at"],
    )


@dataclass(frozen=True, slots=True)
class PostgresRestoredJobs:
    engine: AsyncEngine
    steps: JobSteps

    async def notice(self) -> int:
        async with reading(self.engine) as connection:
            identity = await _identity(connection)
            if await connection.scalar(select(installation.c.identity)) == identity:
                return 0
        walk = _Walk.to_hold()
        while True:
            async with transaction(self.engine, "notice_restore") as connection:
                await connection.execute(insert(installation).values(identity=identity).on_conflict_do_nothing())
                known = await connection.scalar(select(installation.c.identity).with_for_update())
                if known == identity:
                    return 0
                await walk.step(connection)
                if walk.is_over:
                    # Not before: if this process is killed on the way, the next one holds the rest.
                    await connection.execute(update(installation).values(identity=identity, noticed_at=func.now()))
                    return await _count_held(connection)

    async def hold(self) -> int:
        walk = _Walk.to_hold()
        while True:
            async with transaction(self.engine, "hold_jobs") as connection:
                await walk.step(connection)
                if walk.is_over:
                    return await _count_held(connection)

    async def held(self, *, after: UUID | None, limit: int) -> Sequence[HeldJob]:
        query = (
            select(jobs.c.id, jobs.c.account_id, jobs.c.model_id, *INPUT_COLUMNS, jobs.c.created_at)
            .where(_IS_HELD)
            .order_by(jobs.c.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(jobs.c.id > after)
        async with reading(self.engine) as connection:
            return [_held(row) for row in (await connection.execute(query)).mappings()]

    async def adopt(self, job_id: UUID, request: ProviderRequest) -> bool:
        attempt_token = uuid4()
        async with transaction(self.engine, "name_restored_attempt") as connection:
            # It stays held until the request is recorded: nothing but that may come of this attempt.
            named = await connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, _IS_HELD)
                .values(
                    attempts=jobs.c.attempts + 1,
                    attempt_token=attempt_token,
                    claimed_at=func.clock_timestamp(),
                    deadline_at=func.clock_timestamp() + seconds(jobs.c.time_limit_seconds),
                )
                .returning(
                    jobs.c.attempt_token.label("token"),
                    jobs.c.id.label("job_id"),
                    jobs.c.attempts.label("number"),
                    jobs.c.claimed_at,
                )
            )
            row = named.mappings().one_or_none()
            if row is not None:
                await connection.execute(insert(attempts).values(**row))
        return row is not None and await self.steps.record_submission(job_id, attempt_token, request)

    async def end(self, outcome: Outcome, *, limit: int) -> int:
        chosen = select(jobs.c.id).where(_IS_HELD).order_by(jobs.c.id).limit(limit)
        async with transaction(self.engine, "end_held") as connection:
            # Under the lock nobody lets them go.
            ids = (await connection.scalars(chosen.with_for_update())).all()
            settlements = [Settlement.of(job_id, outcome) for job_id in ids]
            return len(await settle_through(fetch_through(connection), settlements))

    async def release(self, job_ids: Sequence[UUID]) -> int:
        chosen = jobs.c.id.in_(job_ids) if job_ids else true()
        walk = _Walk(_IS_HELD & chosen, held_at=null(), status_reason=null())
        released: list[UUID] = []
        while not walk.is_over:
            async with transaction(self.engine, "release_held") as connection:
                ids = await walk.step(connection)
                await enqueue(connection, SUBMIT_JOB, ids)
            released += ids
        if released:
            # A step that has just seen the hold is about to end, and its item with it, which kept another one away.
            await asyncio.sleep(ENDING_STEP_SECONDS)
        for begin in range(0, len(released), JOBS_AT_ONCE):
            async with transaction(self.engine, "queue_released") as connection:
                await enqueue(connection, SUBMIT_JOB, released[begin : begin + JOBS_AT_ONCE])
        return len(released)


async def _identity(connection: AsyncConnection) -> str:
    place = await connection.scalar(_PLACE)
    server = await connection.scalar(_SERVER) if await connection.scalar(_MAY_ASK) else "unknown"
    return f"{server}/{place}"


async def _count_held(connection: AsyncConnection) -> int:
    return await connection.scalar(select(func.count()).where(_IS_HELD)) or 0


class _Walk:
    """Changes the jobs that meet a condition so that they meet it no longer, a few in each transaction."""

    def __init__(self, condition: ColumnElement[bool], **values: Any) -> None:
        self.is_over = False
        self._condition = condition
        self._change = update(jobs).where(any_of(jobs.c.id, "ids")).values(values)
        self._since = datetime.min.replace(tzinfo=UTC)

    @classmethod
    def to_hold(cls) -> "_Walk":
        return cls(_IS_FREE, held_at=func.now(), status_reason=HELD)

    async def step(self, connection: AsyncConnection) -> Sequence[UUID]:
        """Change the next few, and return them. Locks them in the order of their ids."""
        # As the index of unfinished jobs has them, so that what was changed already is not passed again each time. Of a
        # table that was just restored the planner knows nothing, and would sort all of them for each step.
        await connection.execute(text("SET LOCAL enable_sort = off"))
        after = jobs.c.created_at >= self._since
        query = select(jobs.c.id, jobs.c.created_at).where(self._condition, after).order_by(jobs.c.created_at)
        found = (await connection.execute(query.limit(JOBS_AT_ONCE))).all()
        self.is_over = len(found) < JOBS_AT_ONCE
        if not found:
            return []
        self._since = found[-1].created_at
        wanted = select(jobs.c.id).where(any_of(jobs.c.id, "ids"), self._condition).order_by(jobs.c.id)
        locked = await connection.scalars(wanted.with_for_update(), {"ids": [row.id for row in found]})
        ids = locked.all()
        await connection.execute(self._change, {"ids": ids})
        return ids
