"""Whether new jobs of a model are accepted while fal refuses the operator's key or account."""

from collections.abc import Mapping

from sqlalchemy import Double, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.health import EVERY_MODEL
from app.domain.jobs import JobStatus, WaitingFor
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.heartbeats import LOCKED, told_models
from app.infrastructure.postgres.snapshots import Snapshot
from app.infrastructure.postgres.tables import jobs

SNAPSHOT_SECONDS_MAX = 2.0

_WAITED_SECONDS = cast(
    extract("epoch", func.clock_timestamp() - func.min(jobs.c.provider_waiting_since)), Double
).label("waited_seconds")
_LOCKED_JOBS = (
    select(jobs.c.model_id, _WAITED_SECONDS)
    .where(
        ~jobs.c.is_final,
        jobs.c.status == JobStatus.QUEUED.value,
        jobs.c.waiting_for == WaitingFor.PROVIDER_LOCKED.value,
    )
    .group_by(jobs.c.model_id)
)


class PostgresAdmission:
    def __init__(self, engine: AsyncEngine, locked_seconds_max: int) -> None:
        """`locked_seconds_max`: so long the oldest job waits before no new one is accepted."""
        self._engine = engine
        self._locked_seconds_max = locked_seconds_max
        self._closed: Snapshot[frozenset[str]] = Snapshot(self._ask, seconds_max=SNAPSHOT_SECONDS_MAX)

    async def is_closed_to(self, model_id: str) -> bool:
        # Without an answer the last one holds.
        closed = await self._closed.fresh() or self._closed.last or frozenset()
        return model_id in closed or EVERY_MODEL in closed

    async def _ask(self) -> frozenset[str]:
        async with reading(self._engine) as connection:
            locked = await told_models(connection, LOCKED)
            if not locked:
                return frozenset()
            rows = await connection.execute(_LOCKED_JOBS)
            waited = {row.model_id: row.waited_seconds for row in rows if row.waited_seconds is not None}
        return frozenset(model_id for model_id in locked if self._is_too_long(model_id, waited))

    def _is_too_long(self, model_id: str, waited_seconds: Mapping[str, float]) -> bool:
        longest = max(waited_seconds.values(), default=0.0) if model_id == EVERY_MODEL else waited_seconds.get(model_id)
        return longest is not None and longest > self._locked_seconds_max
