"""Puts the steps of an account off that would be taken next, and only to learn that they have to wait."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Boolean, Text, Uuid, bindparam, case, func, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import SUBMIT_JOB
from app.application.ports.execution import Wait
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.queue import first_due, put_off
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import jobs

# So many are looked at, whoever they are of: some milliseconds.
ITEMS_MAX = 1000

_DUE = first_due(SUBMIT_JOB, ITEMS_MAX)
_OWN = (
    select(_DUE.c.id, jobs.c.id.label("job_id"))
    .join(jobs, jobs.c.id == _DUE.c.subject_id)
    .where(jobs.c.account_id == bindparam("account", type_=Uuid))
    .cte("own")
)
_REASON, _WAITING_FOR = bindparam("reason", type_=Text), bindparam("waits_for", type_=Text)
_IS_PROVIDERS = bindparam("is_providers", type_=Boolean)
# Their steps are locked already, and everybody else locks the job first: who has one of these is not waited for.
_UNTOLD = (
    select(jobs.c.id)
    .join(_OWN, _OWN.c.job_id == jobs.c.id)
    .where(
        jobs.c.status == constant(JobStatus.QUEUED),
        or_(jobs.c.status_reason.is_distinct_from(_REASON), jobs.c.waiting_for.is_distinct_from(_WAITING_FOR)),
    )
    .with_for_update(of=jobs, skip_locked=True)
)
_TOLD = (
    update(jobs)
    .values(
        status_reason=_REASON,
        waiting_for=_WAITING_FOR,
        provider_waiting_since=case(
            (_IS_PROVIDERS, func.coalesce(jobs.c.provider_waiting_since, func.clock_timestamp())), else_=null()
        ),
    )
    .where(jobs.c.id.in_(_UNTOLD))
    .cte("told")
)
_PUT_OFF = put_off(select(_OWN.c.id)).add_cte(_TOLD)


@dataclass(frozen=True, slots=True)
class PostgresCrowds:
    engine: AsyncEngine

    async def put_off_submissions(
        self, account_id: UUID, delay_seconds: float, spacing_seconds: float, wait: Wait
    ) -> int:
        values = {
            "account": account_id,
            "delay_seconds": delay_seconds,
            "spacing_seconds": spacing_seconds,
            "reason": wait.reason,
            "waits_for": wait.waiting_for.value,
            "is_providers": wait.is_providers,
        }
        async with transaction(self.engine, "put_off_submissions") as connection:
            return len((await connection.execute(_PUT_OFF, values)).all())
