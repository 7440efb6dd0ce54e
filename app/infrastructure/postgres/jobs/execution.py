"""Jobs on their way through fal. Locks are always taken in the order job, account."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

from asyncpg import UniqueViolationError
from sqlalchemy import Column, Update, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.execution.steps import FOLLOW_JOB
from app.application.ports.execution import AttemptEnd, AttemptState, Claim, JobState, Orphan, Wait
from app.application.ports.provider import ProviderRequest
from app.domain.attempts import AttemptOutcome, JobInput
from app.domain.jobs import QUEUE_TIMED_OUT, JobStatus, Outcome
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import fetch_through, reading, transaction
from app.infrastructure.postgres.faults import driver_error
from app.infrastructure.postgres.jobs.attempts import note_answer, noted_orphan, open_orphans, record_orphan
from app.infrastructure.postgres.jobs.claiming import ClaimRequest, claim_all
from app.infrastructure.postgres.jobs.paces import RunTimes
from app.infrastructure.postgres.jobs.recording import Submission, record_all
from app.infrastructure.postgres.jobs.rows import INPUT_COLUMNS, IS_UNFINISHED, input_of
from app.infrastructure.postgres.jobs.settling import Settlement, settle_all, settle_through
from app.infrastructure.postgres.jobs.states import load_all, load_all_attempts
from app.infrastructure.postgres.jobs.waiting import Waiting, has_waited_for, record_all_waiting
from app.infrastructure.postgres.queue import enqueue, look_after
from app.infrastructure.postgres.tables import REQUEST_OF_ONE_ATTEMPT, REQUEST_OF_ONE_JOB, jobs


class PostgresJobExecution:
    def __init__(self, engine: AsyncEngine, *, needs_place: bool = False) -> None:
        """`needs_place`: a job is only claimed in the place at fal that it has been given."""
        self.engine = engine
        # A claim for a step that was cut off would be an attempt that nobody posts.
        self._claim: Batcher[ClaimRequest, Claim | None] = Batcher(
            engine, partial(claim_all, needs_place=needs_place), drops_abandoned=True
        )
        self._record: Batcher[Submission, bool] = Batcher(engine, record_all)
        self._settle: Batcher[Settlement, bool] = Batcher(
            engine, partial(settle_all, paces=RunTimes(engine)), size_bytes=attrgetter("size_bytes")
        )
        self._record_waiting: Batcher[Waiting, bool] = Batcher(engine, record_all_waiting)
        self._load: Batcher[UUID, JobState | None] = Batcher(engine, load_all, flushes_max=1)
        self._load_attempt: Batcher[UUID, AttemptState | None] = Batcher(engine, load_all_attempts, flushes_max=1)

    async def claim(self, job_id: UUID, attempt_token: UUID, *, may_be_large: bool = True) -> Claim | None:
        return await self._claim(ClaimRequest(job_id, attempt_token, may_be_large))

    async def record_waiting(self, job_id: UUID, wait: Wait) -> bool:
        return await self._record_waiting(Waiting.of(job_id, wait))

    async def release(
        self, job_id: UUID, attempt_token: UUID, wait: Wait, *, input_digest: bytes | None = None
    ) -> bool:
        """A user who asked to cancel meanwhile gets it here: nothing is at fal."""
        released = (
            _own_attempt(job_id, attempt_token)
            .where(jobs.c.submit_unknown_at.is_(None))
            .values(
                status=JobStatus.QUEUED.value,
                status_reason=wait.reason,
                waiting_for=wait.waiting_for.value,
                provider_waiting_since=func.coalesce(jobs.c.provider_waiting_since, func.clock_timestamp()),
            )
            .returning(jobs.c.cancel_requested_at, has_waited_for(wait.seconds_max).label("is_over"))
            .cte("released")
        )
        answer = note_answer(attempt_token, AttemptOutcome.NOT_QUEUED, wait.reason, input_digest=input_digest)
        async with transaction(self.engine, "release") as connection:
            found = await connection.execute(select(released).add_cte(answer.cte("answer")))
            row = found.one_or_none()
            if row is None:
                return False
            if row.cancel_requested_at is None and not row.is_over:
                return True
            outcome = QUEUE_TIMED_OUT if row.cancel_requested_at is None else Outcome.canceled()
            await settle_through(fetch_through(connection), [Settlement.of(job_id, outcome)])
        return False

    async def record_submission(
        self,
        job_id: UUID,
        attempt_token: UUID,
        request: ProviderRequest,
        *,
        look_after_seconds: float = 0,
        input_digest: bytes | None = None,
    ) -> bool:
        submission = Submission.of(
            job_id, attempt_token, request, look_after_seconds=look_after_seconds, input_digest=input_digest
        )
        try:
            return await self._record(submission)
        except UniqueViolationError as error:
            # Whoever named it is wrong, and would be again.
            if _is_of_another_attempt(error):
                return False
            raise

    async def record_submit_unknown(
        self, job_id: UUID, attempt_token: UUID, reason: str, *, input_digest: bytes | None = None
    ) -> bool:
        marked = (
            _own_attempt(job_id, attempt_token)
            .values(
                submit_unknown_at=func.coalesce(jobs.c.submit_unknown_at, func.clock_timestamp()),
                status_reason=reason,
            )
            .returning(jobs.c.id)
            .cte("marked")
        )
        answer = note_answer(attempt_token, AttemptOutcome.UNKNOWN, reason, input_digest=input_digest)
        async with transaction(self.engine, "record_submit_unknown") as connection:
            found = await connection.execute(select(marked).add_cte(answer.cte("answer")))
            is_marked = found.one_or_none() is not None
            if is_marked:
                await enqueue(connection, FOLLOW_JOB, [job_id])
        return is_marked

    async def load_input(self, job_id: UUID) -> JobInput:
        async with reading(self.engine) as connection:
            found = await connection.execute(select(*INPUT_COLUMNS).where(jobs.c.id == job_id))
            return input_of(found.mappings().one())

    async def load(self, job_id: UUID) -> JobState | None:
        return await self._load(job_id)

    async def load_attempt(self, attempt_token: UUID) -> AttemptState | None:
        return await self._load_attempt(attempt_token)

    async def look_now(self, job_id: UUID) -> None:
        async with transaction(self.engine, "look_now") as connection:
            await look_after(connection, job_id, 0)

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

    async def record_progress(self, job_id: UUID, status: JobStatus, *, provider_position: int | None = None) -> bool:
        async with transaction(self.engine, "record_progress") as connection:
            recorded = await connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, IS_UNFINISHED, jobs.c.fal_request_id.is_not(None))
                .values(status=status.value, provider_position=provider_position)
            )
            return bool(recorded.rowcount)

    async def record_cancel_sent(self, job_id: UUID) -> None:
        async with transaction(self.engine, "record_cancel_sent") as connection:
            await _record_moment(connection, job_id, jobs.c.cancel_sent_at)

    async def record_overdue(self, job_id: UUID) -> None:
        async with transaction(self.engine, "record_overdue") as connection:
            await _record_moment(connection, job_id, jobs.c.overdue_noticed_at)

    async def settle(self, job_id: UUID, outcome: Outcome, by: AttemptEnd | None = None) -> bool:
        try:
            return await self._settle(Settlement.of(job_id, outcome, by))
        except UniqueViolationError as error:
            if _is_of_another_attempt(error):
                return False
            raise

    async def record_orphan(self, attempt_token: UUID, request_id: str, *, is_over: bool) -> bool:
        try:
            async with transaction(self.engine, "record_orphan") as connection:
                return await record_orphan(connection, attempt_token, request_id, is_over=is_over)
        except IntegrityError as error:
            if _is_of_another_attempt(driver_error(error)):
                return False
            raise

    async def load_orphans(self, job_id: UUID) -> Sequence[Orphan]:
        async with reading(self.engine) as connection:
            return [Orphan(**row) for row in (await connection.execute(open_orphans(job_id))).mappings()]

    async def update_orphan(
        self, attempt_token: UUID, *, is_cancel_sent: bool = False, is_over: bool = False, units: Decimal | None = None
    ) -> None:
        async with transaction(self.engine, "update_orphan") as connection:
            await connection.execute(
                noted_orphan(attempt_token, is_cancel_sent=is_cancel_sent, is_closed=is_over, units=units)
            )


def _own_attempt(job_id: UUID, attempt_token: UUID) -> Update:
    """The attempt token fences: a worker that was thought dead changes nothing any more."""
    return update(jobs).where(
        jobs.c.id == job_id,
        jobs.c.status == JobStatus.SUBMITTING.value,
        jobs.c.attempt_token == attempt_token,
    )


def _is_of_another_attempt(error: BaseException | None) -> bool:
    return getattr(error, "constraint_name", None) in (REQUEST_OF_ONE_JOB, REQUEST_OF_ONE_ATTEMPT)


async def _record_moment(connection: AsyncConnection, job_id: UUID, moment: Column[Any]) -> None:
    await connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, IS_UNFINISHED, moment.is_(None))
        .values({moment: func.clock_timestamp()})
    )
