"""Why jobs wait, said of many of them in one transaction: where submissions pause, all that come say the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Interval,
    Update,
    Uuid,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    null,
    or_,
    select,
    update,
)

from app.application.execution.steps import SUBMISSIONS, SUBMIT_JOB
from app.application.ports.execution import Wait
from app.application.ports.health import EVERY_MODEL
from app.domain.jobs import QUEUE_TIMED_OUT, JobStatus
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.heartbeats import IS_ALIVE, PAUSED
from app.infrastructure.postgres.jobs.locks import locked_jobs
from app.infrastructure.postgres.jobs.settling import Settlement, settle_through
from app.infrastructure.postgres.queue import IS_LIVE, QUEUED, key_of, queue_items
from app.infrastructure.postgres.statements import RowArrays, Statement, column, constant, seconds
from app.infrastructure.postgres.tables import heartbeats, jobs

# A step that is due by so much waits for its turn. While jobs wait for fal their steps come as soon as they are due.
LATE_SECONDS = 20
FORGOTTEN_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Waiting:
    job_id: UUID
    status_reason: str
    waiting_for: str
    is_providers: bool
    seconds_max: int | None

    @classmethod
    def of(cls, job_id: UUID, wait: Wait) -> "Waiting":
        return cls(job_id, wait.reason, wait.waiting_for.value, wait.is_providers, wait.seconds_max)


_WAITING = RowArrays(
    "waiting",
    column("job_id", Uuid),
    jobs.c.status_reason,
    jobs.c.waiting_for,
    column("is_providers", Boolean),
    column("seconds_max", Integer),
)
_LOCKED = locked_jobs(_WAITING)
_IS_QUEUED = jobs.c.status == constant(JobStatus.QUEUED)
_SINCE = func.coalesce(jobs.c.provider_waiting_since, func.clock_timestamp())
_RECORD = Statement(
    update(jobs)
    .values(
        status_reason=_WAITING.c.status_reason,
        waiting_for=_WAITING.c.waiting_for,
        provider_waiting_since=case((_WAITING.c.is_providers, _SINCE), else_=null()),
    )
    .where(
        jobs.c.id == _LOCKED.c.id,
        _WAITING.c.job_id == _LOCKED.c.id,
        _IS_QUEUED,
        or_(
            jobs.c.status_reason.is_distinct_from(_WAITING.c.status_reason),
            jobs.c.waiting_for.is_distinct_from(_WAITING.c.waiting_for),
            jobs.c.provider_waiting_since.is_(None) == _WAITING.c.is_providers,
        ),
    )
)
_OVER = Statement(
    select(jobs.c.id)
    .join(_WAITING.table, jobs.c.id == _WAITING.c.job_id)
    .where(_IS_QUEUED, jobs.c.provider_waiting_since <= func.clock_timestamp() - seconds(_WAITING.c.seconds_max))
    .order_by(jobs.c.id)
    .with_for_update(of=jobs)
)


def has_waited_for(seconds_max: int | None) -> ColumnElement[bool]:
    if seconds_max is None:
        return false()
    limit = literal(timedelta(seconds=seconds_max), Interval)
    return func.coalesce(jobs.c.provider_waiting_since <= func.clock_timestamp() - limit, false())


async def record_all_waiting(
    driver: DriverConnection, waiting: Sequence[Waiting], *, is_repeated: bool = False
) -> Sequence[bool]:
    """True for those that had waited for too long: they are ended, with their refund."""
    async with driver_transaction(driver, "record_waiting"):
        await _RECORD(driver.fetch, **_WAITING.values(waiting))
        limited = [each for each in waiting if each.seconds_max is not None]
        rows = await _OVER(driver.fetch, **_WAITING.values(limited)) if limited else []
        over = {row["id"] for row in rows}
        if over:
            await settle_through(driver.fetch, [Settlement.of(job_id, QUEUE_TIMED_OUT) for job_id in over])
    return [each.job_id in over for each in waiting]


def forgotten_waits() -> Update:
    """Of jobs that nothing keeps from being submitted any more, and which only wait for their turn."""
    item = queue_items
    names = (constant(f"{PAUSED}{EVERY_MODEL}"), constant(PAUSED) + jobs.c.model_id)
    is_paused = exists().where(heartbeats.c.duty.in_(names), IS_ALIVE)
    # Where nobody has worked for a while, everything is late.
    is_worked_on = exists().where(heartbeats.c.duty == constant(SUBMISSIONS.name), IS_ALIVE)
    in_turn = (
        select(jobs.c.id)
        .join_from(jobs, item, and_(item.c.dedupe_key == key_of(SUBMIT_JOB, jobs.c.id), IS_LIVE))
        .where(
            ~jobs.c.is_final,
            _IS_QUEUED,
            item.c.status == QUEUED,
            jobs.c.waiting_for.is_not(None),
            item.c.execute_after < func.now() - seconds(constant(LATE_SECONDS)),
            ~is_paused,
            is_worked_on,
        )
        .limit(FORGOTTEN_AT_ONCE)
        .with_for_update(of=jobs, skip_locked=True)
    )
    return (
        update(jobs)
        .values(waiting_for=null(), provider_waiting_since=null(), status_reason=null())
        .where(jobs.c.id.in_(in_turn))
    )
