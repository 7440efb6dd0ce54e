"""Jobs and the money that belongs to them. Locks are always taken in the order job, account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from asyncpg import UniqueViolationError
from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    Text,
    Update,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy import table as named_table
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.execution import Step
from app.application.ports import Accepted, Claim, JobState, ProviderRequest
from app.domain.errors import CommitUnknown, IdempotencyKeyInUse, IdempotencyKeyReused, JobFinished, JobNotFound
from app.domain.generations import IdempotencyKey, Job, JobStatus, NewJob, Outcome
from app.infrastructure.postgres.acceptance import Order, accept_all
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, fetch_through, reading, transaction
from app.infrastructure.postgres.job_rows import JOB_COLUMN_NAMES, JOB_COLUMNS, job_of
from app.infrastructure.postgres.queue_items import enqueue
from app.infrastructure.postgres.steps import (
    Ending,
    Submission,
    Wish,
    claim_all,
    load_all,
    load_all_attempts,
    record_all,
    settle_all,
    settle_through,
)
from app.infrastructure.postgres.tables import REQUEST_OF_ONE_JOB, idempotency_keys, jobs

# Spelled out in the statement: the planner must see how little of the table that is.
IDEMPOTENCY_KEYS_KEPT: ColumnElement[timedelta] = literal_column("interval '24 hours'")
# With larger ones everybody would be in the same batch, and Python and PostgreSQL would take turns at waiting. Of 128
# callers half are in one and half in the next.
ACCEPTS_MAX = 64
# By then whoever asked for the cancel has stopped waiting for it.
LOOK_AFTER_CANCEL_SECONDS = 3.0


_FIND_JOBS = f"SELECT account_id, {JOB_COLUMN_NAMES} FROM jobs WHERE id = ANY($1::uuid[])"  # noqa: S608 - our own column names

_queue = named_table("pgqueuer", column("entrypoint"), column("dedupe_key"), column("status"), column("execute_after"))
# Of the queue's own type: compared as text, they would miss the index of the dedupe keys.
_QUEUED: ColumnElement[str] = literal_column("'queued'")
_PICKED: ColumnElement[str] = literal_column("'picked'")
# Of one job. Asked for `is_final`, the planner may find it by the index of the unfinished ones while they are few, and
# keeps to that plan when they are many.
_IS_UNFINISHED = jobs.c.status.not_in([status.value for status in JobStatus if status.is_final])


def _lost(step: Step) -> Select[Any]:
    """Unfinished jobs that wait for this step while nothing in the queue will take it."""
    is_waiting_for_submit = (jobs.c.status == JobStatus.QUEUED.value) | (
        (jobs.c.status == JobStatus.SUBMITTING.value) & jobs.c.submit_unknown_at.is_(None)
    )
    return (
        select(jobs.c.id)
        .where(
            ~jobs.c.is_final,
            is_waiting_for_submit if step is Step.SUBMIT else ~is_waiting_for_submit,
            ~exists().where(
                _queue.c.dedupe_key == literal(f"{step.value}:") + cast(jobs.c.id, Text),
                _queue.c.status.in_((_QUEUED, _PICKED)),
            ),
        )
        # Everybody queues in this order, so that no two transactions wait for each other's items.
        .order_by(jobs.c.id)
    )


@dataclass(frozen=True, slots=True)
class _Found:
    account_id: UUID
    job: Job


class PostgresJobs:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._accept: Batcher[Order, Accepted] = Batcher(
            engine, accept_all, size_max=ACCEPTS_MAX, size_bytes=attrgetter("size_bytes")
        )
        self._find: Batcher[UUID, _Found | None] = Batcher(engine, _find_all, flushes_max=1)
        # A claim for a step that was cut off would be an attempt that nobody posts.
        self._claim: Batcher[Wish, Claim | None] = Batcher(engine, claim_all, drops_abandoned=True)
        self._record: Batcher[Submission, bool] = Batcher(engine, record_all)
        self._settle: Batcher[Ending, bool] = Batcher(engine, settle_all, size_bytes=attrgetter("size_bytes"))
        self._load: Batcher[UUID, JobState | None] = Batcher(engine, load_all, flushes_max=1)
        self._load_attempt: Batcher[UUID, JobState | None] = Batcher(engine, load_all_attempts, flushes_max=1)

    async def accept(self, job: NewJob, idempotency: IdempotencyKey | None = None) -> Accepted:
        return await self._accept(Order.of(job, idempotency))

    async def get(self, account_id: UUID, job_id: UUID) -> Job:
        found = await self._find(job_id)
        # Another account's job is answered like one that does not exist.
        if found is None or found.account_id != account_id:
            raise JobNotFound
        return found.job

    async def list(self, account_id: UUID, *, limit: int, offset: int = 0, after: UUID | None = None) -> Sequence[Job]:
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

    async def find_named(self, account_id: UUID, idempotency: IdempotencyKey) -> Job | None:
        query = (
            select(idempotency_keys.c.fingerprint, *JOB_COLUMNS)
            .join(jobs, jobs.c.id == idempotency_keys.c.job_id)
            .where(idempotency_keys.c.account_id == account_id, idempotency_keys.c.key == idempotency.key)
        )
        async with reading(self.engine) as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        if row[0] != idempotency.fingerprint:
            raise IdempotencyKeyReused
        return job_of(row[1:])

    async def request_cancel(self, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey | None = None) -> Job:
        try:
            return await self._request_cancel(account_id, job_id, idempotency)
        except CommitUnknown:
            try:
                return await self._request_cancel(account_id, job_id, idempotency)
            except (JobFinished, IdempotencyKeyInUse):
                job = await self.get(account_id, job_id)
                if job.status is not JobStatus.CANCELED and job.cancel_requested_at is None:
                    raise
                return job

    async def _request_cancel(self, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey | None) -> Job:
        async with transaction(self.engine, "request_cancel") as connection:
            status = await connection.scalar(
                select(jobs.c.status).where(jobs.c.id == job_id, jobs.c.account_id == account_id).with_for_update()
            )
            if status is None:
                raise JobNotFound
            if idempotency is not None:
                await _name(connection, account_id, job_id, idempotency)
            if JobStatus(status).is_final:
                raise JobFinished
            if status == JobStatus.QUEUED:
                await settle_through(fetch_through(connection), [Ending.of(job_id, Outcome.canceled())])
            else:
                await connection.execute(
                    update(jobs)
                    .where(jobs.c.id == job_id)
                    .values(cancel_requested_at=func.coalesce(jobs.c.cancel_requested_at, func.clock_timestamp()))
                )
                # The caller looks at once; should that come to nothing, the runner does not wait for its next look.
                await _look_after(connection, job_id, LOOK_AFTER_CANCEL_SECONDS)
            return await _get(connection, account_id, job_id)

    async def claim(self, job_id: UUID, attempt_token: UUID, *, may_be_large: bool = True) -> Claim | None:
        return await self._claim(Wish(job_id, attempt_token, may_be_large))

    async def record_waiting(self, job_id: UUID, reason: str) -> None:
        async with transaction(self.engine, "record_waiting") as connection:
            await connection.execute(
                update(jobs)
                .where(
                    jobs.c.id == job_id,
                    jobs.c.status == JobStatus.QUEUED.value,
                    jobs.c.status_reason.is_distinct_from(reason),
                )
                .values(status_reason=reason)
            )

    async def release(self, job_id: UUID, attempt_token: UUID, reason: str) -> bool:
        """A user who asked to cancel meanwhile gets it here: nothing is at fal."""
        async with transaction(self.engine, "release") as connection:
            released = await connection.execute(
                _own_attempt(job_id, attempt_token)
                .where(jobs.c.submit_unknown_at.is_(None))
                .values(status=JobStatus.QUEUED.value, status_reason=reason)
                .returning(jobs.c.cancel_requested_at)
            )
            row = released.one_or_none()
            if row is not None and row.cancel_requested_at is not None:
                await settle_through(fetch_through(connection), [Ending.of(job_id, Outcome.canceled())])
                return False
        return row is not None

    async def record_submission(
        self, job_id: UUID, attempt_token: UUID, request: ProviderRequest, *, look_after_seconds: float = 0
    ) -> bool:
        try:
            return await self._record(Submission(job_id, attempt_token, request, look_after_seconds))
        except UniqueViolationError as error:
            # Whoever named it is wrong, and would be again.
            if error.constraint_name == REQUEST_OF_ONE_JOB:
                return False
            raise

    async def record_submit_unknown(self, job_id: UUID, attempt_token: UUID, reason: str) -> bool:
        async with transaction(self.engine, "record_submit_unknown") as connection:
            recorded = await connection.execute(
                _own_attempt(job_id, attempt_token).values(
                    submit_unknown_at=func.coalesce(jobs.c.submit_unknown_at, func.clock_timestamp()),
                    status_reason=reason,
                )
            )
            if recorded.rowcount:
                await enqueue(fetch_through(connection), Step.FOLLOW, [job_id])
            return bool(recorded.rowcount)

    async def count_waiting_looks(self) -> int:
        query = select(func.count()).where(_queue.c.entrypoint == Step.FOLLOW.value, _queue.c.status == _QUEUED)
        async with reading(self.engine) as connection:
            return await connection.scalar(query) or 0

    async def load(self, job_id: UUID) -> JobState | None:
        return await self._load(job_id)

    async def load_attempt(self, attempt_token: UUID) -> JobState | None:
        return await self._load_attempt(attempt_token)

    async def look_now(self, job_id: UUID) -> None:
        async with transaction(self.engine, "look_now") as connection:
            await _look_after(connection, job_id, 0)

    async def record_late_result(self, job_id: UUID, result: Mapping[str, Any]) -> None:
        async with transaction(self.engine, "record_late_result") as connection:
            await connection.execute(
                update(jobs)
                .where(
                    jobs.c.id == job_id,
                    jobs.c.status.in_((JobStatus.FAILED.value, JobStatus.CANCELED.value)),
                    jobs.c.late_result.is_(None),
                )
                .values(late_result=result)
            )

    async def record_progress(self, job_id: UUID, status: JobStatus) -> bool:
        async with transaction(self.engine, "record_progress") as connection:
            recorded = await connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, _IS_UNFINISHED, jobs.c.fal_request_id.is_not(None))
                .values(status=status.value)
            )
            return bool(recorded.rowcount)

    async def record_cancel_sent(self, job_id: UUID) -> None:
        async with transaction(self.engine, "record_cancel_sent") as connection:
            await _record_moment(connection, job_id, jobs.c.cancel_sent_at)

    async def record_overdue(self, job_id: UUID) -> None:
        async with transaction(self.engine, "record_overdue") as connection:
            await _record_moment(connection, job_id, jobs.c.overdue_noticed_at)

    async def settle(self, job_id: UUID, outcome: Outcome) -> bool:
        return await self._settle(Ending.of(job_id, outcome))

    async def newest(
        self, *, unfinished_only: bool = False, unknown_only: bool = False, late_only: bool = False, limit: int
    ) -> Sequence[Job]:
        query = select(*JOB_COLUMNS).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if unfinished_only:
            query = query.where(~jobs.c.is_final)
        if unknown_only:
            query = query.where(jobs.c.submit_unknown_at.is_not(None))
        if late_only:
            query = query.where(jobs.c.late_result.is_not(None))
        async with reading(self.engine) as connection:
            return [job_of(row) for row in await connection.execute(query)]

    async def inspect(self, job_id: UUID) -> Mapping[str, Any]:
        async with reading(self.engine) as connection:
            found = await connection.execute(select(jobs).where(jobs.c.id == job_id))
            row = found.mappings().one_or_none()
        if row is None:
            raise JobNotFound
        return dict(row)

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

    async def requeue_lost(self, job_id: UUID | None = None) -> Sequence[UUID]:
        requeued: list[UUID] = []
        async with transaction(self.engine, "requeue_lost") as connection:
            for step in Step:
                query = _lost(step) if job_id is None else _lost(step).where(jobs.c.id == job_id)
                lost = list((await connection.scalars(query)).all())
                if lost:
                    await enqueue(fetch_through(connection), step, lost)
                requeued += lost
        return requeued


async def _find_all(
    driver: DriverConnection, job_ids: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[_Found | None]:
    rows = await driver.fetch(_FIND_JOBS, job_ids)
    found = {row[1]: _Found(row[0], job_of(row[1:])) for row in rows}
    return [found.get(job_id) for job_id in job_ids]


async def _name(connection: AsyncConnection, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey) -> None:
    """Raises IdempotencyKeyInUse where somebody else was given the name since the caller looked."""
    named = await connection.execute(
        upsert(idempotency_keys)
        .values(account_id=account_id, key=idempotency.key, fingerprint=idempotency.fingerprint, job_id=job_id)
        .on_conflict_do_nothing()
    )
    if not named.rowcount:
        raise IdempotencyKeyInUse


async def _look_after(connection: AsyncConnection, job_id: UUID, seconds: float) -> None:
    """At the latest."""
    await connection.execute(
        update(_queue)
        .where(_queue.c.dedupe_key == f"{Step.FOLLOW.value}:{job_id}", _queue.c.status == _QUEUED)
        .values(execute_after=func.least(_queue.c.execute_after, func.now() + timedelta(seconds=seconds)))
    )


def _own_attempt(job_id: UUID, attempt_token: UUID, *statuses: JobStatus) -> Update:
    """The attempt token fences: a worker that was thought dead changes nothing any more."""
    return update(jobs).where(
        jobs.c.id == job_id,
        jobs.c.status.in_([status.value for status in statuses or (JobStatus.SUBMITTING,)]),
        jobs.c.attempt_token == attempt_token,
    )


async def _get(connection: AsyncConnection, account_id: UUID, job_id: UUID) -> Job:
    found = await connection.execute(select(*JOB_COLUMNS).where(jobs.c.id == job_id, jobs.c.account_id == account_id))
    row = found.one_or_none()
    if row is None:
        raise JobNotFound
    return job_of(row)


async def _record_moment(connection: AsyncConnection, job_id: UUID, moment: Column[Any]) -> None:
    await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, _IS_UNFINISHED, moment.is_(None))
        .values({moment: func.clock_timestamp()})
    )
