"""How many jobs stand before one, and when it may end: from looks at queue and runs that all readers share."""

import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Double, Select, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.execution.steps import SUBMIT_JOB
from app.domain.jobs import Job, JobStatus
from app.domain.waiting import (
    NOTHING_TO_SAY,
    Outlook,
    Paces,
    Queue,
    QueueHistory,
    QueueSpeed,
    outlook,
    places_per_second,
)
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.jobs.paces import read_paces
from app.infrastructure.postgres.places import IS_FREE
from app.infrastructure.postgres.queue import queued_tags
from app.infrastructure.postgres.snapshots import Snapshot
from app.infrastructure.postgres.tables import fair_clock, jobs, places

QUEUE_SECONDS_MAX = 2.0
PACES_SECONDS_MAX = 10.0

_NOW: ColumnElement[float] = cast(extract("epoch", func.clock_timestamp()), Double)
# Every tag in 8 bytes, and none of them as an object: there may be a hundred thousand.
_QUEUE = select(
    _NOW.label("now_seconds"),
    select(fair_clock.c.virtual_time).scalar_subquery().label("virtual_time"),
    queued_tags(SUBMIT_JOB).scalar_subquery().label("tags"),
)
_HELD: Select[tuple[str | None, int]] = (
    select(jobs.c.model_id, func.count().label("held"))
    .select_from(places.outerjoin(jobs, jobs.c.id == places.c.job_id))
    .where(~IS_FREE)
    .group_by(jobs.c.model_id)
)


@dataclass(frozen=True, slots=True)
class _Seen:
    speed: QueueSpeed
    clock_ahead_seconds: float
    """Of the database's clock, compared with ours that no one sets."""


class PostgresOutlooks:
    def __init__(self, engine: AsyncEngine, places_max: int = 0) -> None:
        """`places_max`: how many jobs may be at fal at once; 0: any number."""
        self._engine = engine
        self._places_max = places_max
        self._history = QueueHistory()
        self._queue: Snapshot[_Seen] = Snapshot(self._look_at_queue, seconds_max=QUEUE_SECONDS_MAX)
        self._paces: Snapshot[Paces] = Snapshot(self._read_paces, seconds_max=PACES_SECONDS_MAX)

    async def of(self, job: Job) -> Outlook:
        if job.is_final:
            return NOTHING_TO_SAY
        paces = await self._paces.fresh() or {}
        seen = await self._queue.fresh() if job.status is JobStatus.QUEUED else self._queue.last
        # Where nobody has asked for the queue yet, our own clock is as good as any.
        now_seconds = time.time() if seen is None else time.monotonic() + seen.clock_ahead_seconds
        return outlook(job, None if seen is None else seen.speed, paces, now_seconds)

    async def each_of(self, page: Sequence[Job]) -> Sequence[Outlook]:
        return [await self.of(job) for job in page]

    async def _read_paces(self) -> Paces:
        return await read_paces(self._engine)

    async def _look_at_queue(self) -> _Seen:
        paces = await self._paces.fresh() or {}
        async with reading(self._engine) as connection:
            row = (await connection.execute(_QUEUE)).one()
            clock_ahead_seconds = row.now_seconds - time.monotonic()
            held = await _held_by_model(connection) if self._places_max else {}
        held_places = sum(held.values())
        queue = Queue(
            seen_at_seconds=row.now_seconds,
            tags=_numbers(row.tags),
            virtual_time=row.virtual_time,
            free_places=max(0, self._places_max - held_places),
            held_places=held_places,
            is_bounded=bool(self._places_max),
            places_per_second=places_per_second(held, paces),
        )
        return _Seen(self._history.add(queue), clock_ahead_seconds)


async def _held_by_model(connection: AsyncConnection) -> dict[str, int]:
    rows = (await connection.execute(_HELD)).all()
    return {row.model_id or "": row.held for row in rows}


def _numbers(encoded: bytes | None) -> Sequence[int]:
    """From eight bytes each, as the database writes them."""
    numbers = array("q", encoded or b"")
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
