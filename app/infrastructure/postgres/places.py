"""Places at fal: as many rows as jobs may be there at once, over all processes.

A place is given to a job in the transaction that takes the job's queue item, so that of all processes the one that has
a free place takes whoever is next. The claim makes it the job's own. From then on a trigger keeps it (revision 0016):
the end of the job gives it up, whoever writes that, and so does a release.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Uuid, bindparam, exists, false, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import SUBMIT_JOB
from app.infrastructure.postgres.database import Fetch, transaction
from app.infrastructure.postgres.queue import retaken
from app.infrastructure.postgres.statements import RowArrays, Statement, column, constant, seconds
from app.infrastructure.postgres.tables import jobs, places

# From the time when its item is taken until the claim, which takes milliseconds. Longer than a process is silent before
# its items are taken over.
CLAIM_SECONDS_MAX = 15

_PLACES_MAX = bindparam("places_max", type_=Integer)
_FREE = {places.c.job_id: null(), places.c.claimed_at: null(), places.c.expires_at: null()}
_IS_OVER: ColumnElement[bool] = func.coalesce(places.c.expires_at < func.clock_timestamp(), false())
IS_FREE: ColumnElement[bool] = places.c.job_id.is_(None) | _IS_OVER
_BEYOND = select(func.count()).where(places.c.number > _PLACES_MAX, ~IS_FREE).correlate(None).scalar_subquery()
_LOCK_FREE = Statement(
    select(places.c.number)
    .where(places.c.number <= _PLACES_MAX - _BEYOND, IS_FREE)
    .order_by(places.c.number)
    .limit(bindparam("wanted", type_=Integer))
    .with_for_update(skip_locked=True)
)
_GIVEN = RowArrays("given", places.c.number, column("job_id", Uuid))
_held = places.alias("held")
# Whoever comes back after its process died may have one already.
_GIVE = Statement(
    update(places)
    .values(
        job_id=_GIVEN.c.job_id,
        claimed_at=null(),
        expires_at=func.clock_timestamp() + seconds(constant(CLAIM_SECONDS_MAX)),
    )
    .where(
        places.c.number == _GIVEN.c.number,
        ~exists(select(constant(1)).select_from(_held).where(_held.c.job_id == _GIVEN.c.job_id)),
    )
    .returning(places.c.number)
)
_RETAKE = Statement(retaken(SUBMIT_JOB, select(places.c.job_id.label("id")).where(places.c.job_id.is_not(None))))
_GIVE_BACK = (
    update(places).where(places.c.job_id == bindparam("job", type_=Uuid), places.c.claimed_at.is_(None)).values(_FREE)
)


@dataclass(frozen=True, slots=True)
class PostgresPlaces:
    engine: AsyncEngine
    places_max: int

    async def prepare(self) -> None:
        """See that there are as many as there may be. Those beyond are given to nobody any more."""
        numbers = select(func.generate_series(1, bindparam("places_max", type_=Integer)))
        missing = insert(places).from_select(["number"], numbers, include_defaults=False).on_conflict_do_nothing()
        # A restore may have switched the triggers off that give them up.
        left = update(places).where(places.c.job_id == jobs.c.id, jobs.c.is_final).values(_FREE)
        async with transaction(self.engine, "prepare_places") as connection:
            await connection.execute(missing, {"places_max": self.places_max})
            await connection.execute(left)

    async def lock_free(self, fetch: Fetch, wanted: int) -> Sequence[int]:
        """In the caller's transaction, those that nobody else is looking at."""
        rows = await _LOCK_FREE(fetch, places_max=self.places_max, wanted=wanted)
        return [row["number"] for row in rows]

    async def give(self, fetch: Fetch, numbers: Sequence[int], job_ids: Sequence[UUID]) -> None:
        """In the transaction that has locked these, one to each of the jobs."""
        given = zip(numbers, job_ids, strict=False)
        await _GIVE(fetch, **_GIVEN.values([_Given(number, job_id) for number, job_id in given]))

    async def retake(self, fetch: Fetch, manager_id: UUID, heartbeat_timeout: timedelta) -> Sequence[Mapping[str, Any]]:
        """Take the items of jobs that have a place already: they need not wait until another one is free."""
        return await _RETAKE(fetch, manager_id=manager_id, heartbeat_timeout=heartbeat_timeout)

    async def give_back(self, job_id: UUID) -> None:
        async with transaction(self.engine, "give_back_place") as connection:
            await connection.execute(_GIVE_BACK, {"job": job_id})


@dataclass(frozen=True, slots=True)
class _Given:
    number: int
    job_id: UUID
