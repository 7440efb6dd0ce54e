"""Puts the steps of an account off that would be taken next, and only to learn that they have to wait."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Uuid, bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import SUBMIT_JOB
from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.queue import first_due, put_off
from app.infrastructure.postgres.tables import jobs

# So many are looked at, whoever they are of: some milliseconds.
ITEMS_MAX = 1000

_DUE = first_due(SUBMIT_JOB, ITEMS_MAX)
_PUT_OFF = put_off(
    select(_DUE.c.id)
    .join(jobs, jobs.c.id == _DUE.c.subject_id)
    .where(jobs.c.account_id == bindparam("account", type_=Uuid))
)


@dataclass(frozen=True, slots=True)
class PostgresCrowds:
    engine: AsyncEngine

    async def put_off_submissions(self, account_id: UUID, delay_seconds: float, spacing_seconds: float) -> int:
        values = {"account": account_id, "delay_seconds": delay_seconds, "spacing_seconds": spacing_seconds}
        async with transaction(self.engine, "put_off_submissions") as connection:
            return len((await connection.execute(_PUT_OFF, values)).all())
