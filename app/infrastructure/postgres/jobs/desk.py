"""Where users start and cancel jobs. Locks are always taken in the order job, account."""

from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.accounts import ApiKey
from app.domain.budgets import NO_LIMITS, AccountLimits
from app.domain.errors import CommitUnknown, IdempotencyKeyInUse, IdempotencyKeyReused, JobFinished, JobNotFound
from app.domain.jobs import Job, JobStatus, NewJob, Outcome
from app.domain.limits import TooManyWrites
from app.domain.orders import Accepted, IdempotencyKey
from app.infrastructure.postgres.database import fetch_through, reading, transaction
from app.infrastructure.postgres.jobs.acceptance import try_lock_of_key
from app.infrastructure.postgres.jobs.order_batches import OrderBatches
from app.infrastructure.postgres.jobs.reader import PostgresJobReader
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.jobs.settling import Settlement, settle_through
from app.infrastructure.postgres.jobs.turns import give_back_turn
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder
from app.infrastructure.postgres.queue import look_after
from app.infrastructure.postgres.tables import idempotency_keys, jobs
from app.infrastructure.postgres.writes import count_write

# By then whoever asked for the cancel has stopped waiting for it.
LOOK_AFTER_CANCEL_SECONDS = 3.0


class PostgresJobDesk(PostgresJobReader):
    def __init__(self, engine: AsyncEngine, limits: AccountLimits = NO_LIMITS) -> None:
        super().__init__(engine)
        self._limits = limits
        self._accept = OrderBatches(engine, limits)

    async def accept(
        self, job: NewJob, idempotency: IdempotencyKey | None = None, key: ApiKey | None = None
    ) -> Accepted:
        return await self._accept(StorableOrder.of(job, idempotency, key))

    async def find_by_idempotency_key(self, account_id: UUID, idempotency: IdempotencyKey) -> Job | None:
        query = (
            select(idempotency_keys.c.fingerprint, *JOB_COLUMNS)
            .join(jobs, jobs.c.id == idempotency_keys.c.job_id)
            .where(idempotency_keys.c.account_id == account_id, idempotency_keys.c.key == idempotency.key)
        )
        async with reading(self.engine) as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
            if row is None:
                if not await connection.scalar(select(try_lock_of_key(str(account_id), idempotency.key))):
                    # Whoever has the lock is about to write it.
                    raise IdempotencyKeyInUse
                # Who had the lock a moment ago may have written it since.
                row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        if row["fingerprint"] != idempotency.fingerprint:
            raise IdempotencyKeyReused
        return job_of(row)

    async def request_cancel(self, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey | None = None) -> Job:
        try:
            return await self._request_cancel(account_id, job_id, idempotency)
        except CommitUnknown:
            try:
                return await self._request_cancel(account_id, job_id, idempotency)
            except (JobFinished, IdempotencyKeyInUse, TooManyWrites):
                job = await self.get(account_id, job_id)
                if job.status is not JobStatus.CANCELED and job.cancel_requested_at is None:
                    raise
                return job

    async def _request_cancel(self, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey | None) -> Job:
        async with transaction(self.engine, "request_cancel") as connection:
            found = await connection.execute(
                select(jobs.c.status, jobs.c.is_final)
                .where(jobs.c.id == job_id, jobs.c.account_id == account_id)
                .with_for_update()
            )
            job = found.one_or_none()
            if job is None:
                raise JobNotFound
            if idempotency is not None:
                await _name(connection, account_id, job_id, idempotency)
            if job.is_final:
                raise JobFinished
            await count_write(connection, account_id, self._limits)
            if job.status == JobStatus.QUEUED:
                fetch = fetch_through(connection)
                await settle_through(fetch, [Settlement.of(job_id, Outcome.canceled())])
                await give_back_turn(fetch, job_id)
            else:
                await connection.execute(
                    update(jobs)
                    .where(jobs.c.id == job_id)
                    .values(cancel_requested_at=func.coalesce(jobs.c.cancel_requested_at, func.clock_timestamp()))
                )
                # The caller looks at once; should that come to nothing, the runner does not wait for its next look.
                await look_after(connection, job_id, LOOK_AFTER_CANCEL_SECONDS)
            return await _get(connection, account_id, job_id)


async def _name(connection: AsyncConnection, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey) -> None:
    """Raises IdempotencyKeyInUse where somebody else was given the name since the caller looked, or is given it now."""
    # Without the lock, an accept with this name that has locked its accounts would wait for this insert, and this
    # transaction for the account: a circle, in which everybody of that batch stands.
    if not await connection.scalar(select(try_lock_of_key(str(account_id), idempotency.key))):
        raise IdempotencyKeyInUse
    named = await connection.execute(
        insert(idempotency_keys)
        .values(account_id=account_id, key=idempotency.key, fingerprint=idempotency.fingerprint, job_id=job_id)
        .on_conflict_do_nothing()
    )
    if not named.rowcount:
        raise IdempotencyKeyInUse


async def _get(connection: AsyncConnection, account_id: UUID, job_id: UUID) -> Job:
    found = await connection.execute(select(*JOB_COLUMNS).where(jobs.c.id == job_id, jobs.c.account_id == account_id))
    row = found.mappings().one_or_none()
    if row is None:
        raise JobNotFound
    return job_of(row)
