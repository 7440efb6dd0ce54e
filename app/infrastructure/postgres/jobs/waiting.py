"""Why jobs wait, said of many of them in one transaction: where submissions pause, all that come say the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Uuid, update

from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.locks import locked_jobs
from app.infrastructure.postgres.statements import RowArrays, Statement, column, constant
from app.infrastructure.postgres.tables import jobs


@dataclass(frozen=True, slots=True)
class Waiting:
    job_id: UUID
    status_reason: str


_WAITING = RowArrays("waiting", column("job_id", Uuid), jobs.c.status_reason)
_LOCKED = locked_jobs(_WAITING)
_RECORD = Statement(
    update(jobs)
    .values(status_reason=_WAITING.c.status_reason)
    .where(
        jobs.c.id == _LOCKED.c.id,
        _WAITING.c.job_id == _LOCKED.c.id,
        jobs.c.status == constant(JobStatus.QUEUED),
        jobs.c.status_reason.is_distinct_from(_WAITING.c.status_reason),
    )
)


async def record_all_waiting(
    driver: DriverConnection, waiting: Sequence[Waiting], *, is_repeated: bool = False
) -> Sequence[None]:
    async with driver_transaction(driver, "record_waiting"):
        await _RECORD(driver.fetch, **_WAITING.values(waiting))
    return [None] * len(waiting)
