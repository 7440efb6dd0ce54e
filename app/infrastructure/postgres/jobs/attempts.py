"""What is known of attempts beside what their jobs follow. A job is always locked before its attempts."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Double,
    Select,
    Update,
    Uuid,
    and_,
    case,
    cast,
    extract,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.application.execution.steps import CANCEL_ORPHANS
from app.application.ports.provider import ProviderRequest
from app.domain.attempts import AttemptOutcome
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import Fetch
from app.infrastructure.postgres.jobs.rows import IS_UNFINISHED, REQUEST_COLUMNS
from app.infrastructure.postgres.lost_steps import WaitingSubjects
from app.infrastructure.postgres.queue import enqueue, insert_items
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, column, constant, constants
from app.infrastructure.postgres.tables import attempts, jobs

_NOW = func.clock_timestamp()
IS_OPEN_ORPHAN = and_(attempts.c.orphaned_at.is_not(None), attempts.c.closed_at.is_(None))
JOBS_WITH_ORPHANS: WaitingSubjects = select(attempts.c.job_id.label("id")).where(IS_OPEN_ORPHAN).distinct()


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """A job turns to another one of its attempts, which delivered first."""

    job_id: UUID
    attempt_token: UUID
    fal_request_id: str
    fal_status_url: str
    fal_response_url: str
    fal_cancel_url: str

    @classmethod
    def of(cls, job_id: UUID, attempt_token: UUID, request: ProviderRequest) -> "TakeOver":
        return cls(
            job_id=job_id,
            attempt_token=attempt_token,
            fal_request_id=request.id,
            fal_status_url=request.status_url,
            fal_response_url=request.response_url,
            fal_cancel_url=request.cancel_url,
        )


_TAKEN = RowArrays("taken", column("job_id", Uuid), column("attempt_token", Uuid), *REQUEST_COLUMNS)
# The request of the attempt is written by a statement of its own, before the job names it: `jobs_guard` looks.
_NAME_REQUESTS = Statement(
    update(attempts)
    .values(
        fal_request_id=_TAKEN.c.fal_request_id,
        adopted_at=func.coalesce(attempts.c.adopted_at, _NOW),
        orphaned_at=null(),
        closed_at=null(),
    )
    .where(
        attempts.c.token == _TAKEN.c.attempt_token,
        attempts.c.job_id == _TAKEN.c.job_id,
        attempts.c.fal_request_id.is_(None) | (attempts.c.fal_request_id == _TAKEN.c.fal_request_id),
        jobs.c.id == _TAKEN.c.job_id,
        IS_UNFINISHED,
    )
    .returning(attempts.c.job_id)
)
_WAS_POSTED = jobs.c.status.in_(constants((JobStatus.QUEUED, JobStatus.SUBMITTING)))
_TURN = Statement(
    update(jobs)
    .values(
        status=case((_WAS_POSTED, constant(JobStatus.SUBMITTED)), else_=jobs.c.status),
        attempt_token=_TAKEN.c.attempt_token,
        submit_unknown_at=null(),
        **{column.key: _TAKEN.c[column.key] for column in REQUEST_COLUMNS},
    )
    .where(jobs.c.id == _TAKEN.c.job_id, IS_UNFINISHED)
)
_OUTRUN = (
    update(attempts)
    .values(orphaned_at=_NOW)
    .where(
        any_of(attempts.c.job_id, "job_ids"),
        jobs.c.id == attempts.c.job_id,
        attempts.c.token != jobs.c.attempt_token,
        attempts.c.fal_request_id.is_not(None),
        attempts.c.orphaned_at.is_(None),
    )
    .returning(attempts.c.job_id.label("subject_id"))
    .cte("outrun")
)
_OUTRUN_JOBS = select(_OUTRUN.c.subject_id, constant(0).label("after_seconds")).distinct().subquery("outrun_jobs")
_LEAVE = Statement(select(_OUTRUN.c.subject_id).add_cte(insert_items(CANCEL_ORPHANS, _OUTRUN_JOBS).cte("cancel")))


async def take_over_through(fetch: Fetch, wanted: Sequence[TakeOver]) -> set[UUID]:
    """In the caller's transaction, which has locked the jobs; returns those that turned to the other attempt.

    A job that is final stays as it is, and so does one whose attempt has another request. Raises UniqueViolationError
    where another attempt has one of the requests.
    """
    named = {row["job_id"] for row in await _NAME_REQUESTS(fetch, **_TAKEN.values(wanted))}
    if named:
        await _TURN(fetch, **_TAKEN.values([each for each in wanted if each.job_id in named]))
        await _LEAVE(fetch, job_ids=list(named))
    return named


def note_ends(ended: RowArrays) -> Update:
    """What the ends of jobs tell of their attempts; rows without an `attempt_token` tell nothing."""
    is_told = ended.c.attempt_outcome.is_not(None)
    return (
        update(attempts)
        .values(
            outcome=func.coalesce(ended.c.attempt_outcome, attempts.c.outcome),
            outcome_at=case((is_told, _NOW), else_=attempts.c.outcome_at),
            reason=case((is_told, ended.c.error_code), else_=attempts.c.reason),
            input_digest=func.coalesce(ended.c.input_digest, attempts.c.input_digest),
            billed_units=func.coalesce(ended.c.billed_units, attempts.c.billed_units),
        )
        .where(attempts.c.token == ended.c.attempt_token)
    )


def note_answer(attempt_token: UUID, outcome: AttemptOutcome, reason: str, *, input_digest: bytes | None) -> Update:
    """What came of the POST; of a POST whose answer had been lost, it is known later."""
    return (
        update(attempts)
        .values(
            outcome=outcome.value,
            outcome_at=_NOW,
            reason=reason,
            input_digest=attempts.c.input_digest if input_digest is None else input_digest,
        )
        .where(
            attempts.c.token == attempt_token,
            attempts.c.outcome.is_(None) | (attempts.c.outcome == AttemptOutcome.UNKNOWN.value),
        )
    )


async def record_orphan(connection: AsyncConnection, attempt_token: UUID, request_id: str, *, is_over: bool) -> bool:
    """In the caller's transaction. Locks the job. A database error where another attempt has the request."""
    named = select(attempts.c.job_id).where(attempts.c.token == attempt_token).scalar_subquery()
    # A job that ended before attempts had rows is found by its own token.
    job_of_attempt = or_(jobs.c.id == named, jobs.c.attempt_token == attempt_token)
    found = await connection.execute(select(jobs.c.id, jobs.c.fal_request_id).where(job_of_attempt).with_for_update())
    job = found.one_or_none()
    if job is None:
        return False
    if job.fal_request_id == request_id:
        return True
    columns = ("token", "job_id", "number", "claimed_at")
    own = select(jobs.c.attempt_token, jobs.c.id, jobs.c.attempts, jobs.c.claimed_at)
    await connection.execute(
        insert(attempts)
        .from_select(columns, own.where(jobs.c.attempt_token == attempt_token), include_defaults=False)
        .on_conflict_do_nothing()
    )
    recorded = await connection.execute(
        update(attempts)
        .where(
            attempts.c.token == attempt_token,
            attempts.c.fal_request_id.is_(None) | (attempts.c.fal_request_id == request_id),
        )
        .values(
            fal_request_id=request_id,
            adopted_at=case((attempts.c.fal_request_id.is_(None), _NOW), else_=attempts.c.adopted_at),
            orphaned_at=func.coalesce(attempts.c.orphaned_at, _NOW),
            closed_at=_set_once(attempts.c.closed_at, is_over),
        )
        .returning(attempts.c.closed_at)
    )
    orphan = recorded.one_or_none()
    if orphan is not None and orphan.closed_at is None:
        await enqueue(connection, CANCEL_ORPHANS, [job.id])
    return orphan is not None


def open_orphans(job_id: UUID) -> Select[tuple[UUID, str, float, bool]]:
    age_seconds = extract("epoch", _NOW - attempts.c.orphaned_at)
    return (
        select(
            attempts.c.token.label("attempt_token"),
            attempts.c.fal_request_id.label("request_id"),
            cast(age_seconds, Double).label("seconds_since_orphaned"),
            attempts.c.cancel_sent_at.is_not(None).label("is_cancel_sent"),
        )
        .where(attempts.c.job_id == job_id, IS_OPEN_ORPHAN)
        .order_by(attempts.c.number)
    )


def noted_orphan(attempt_token: UUID, *, is_cancel_sent: bool, is_closed: bool, units: Decimal | None) -> Update:
    return (
        update(attempts)
        .where(attempts.c.token == attempt_token, attempts.c.orphaned_at.is_not(None))
        .values(
            cancel_sent_at=_set_once(attempts.c.cancel_sent_at, is_cancel_sent),
            closed_at=_set_once(attempts.c.closed_at, is_closed),
            billed_units=attempts.c.billed_units if units is None else units,
        )
    )


def _set_once(moment: Column[Any], is_now: bool) -> ColumnElement[Any]:
    return func.coalesce(moment, _NOW) if is_now else moment
