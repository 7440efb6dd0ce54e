"""How long runs take, by model: gathered where jobs end, and kept by all processes together."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.domain.waiting import RUNS_KEPT, Pace, Paces
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.tables import model_paces

FLUSH_SECONDS = 3.0

_new = insert(model_paces)
_ADD = _new.on_conflict_do_update(
    index_elements=[model_paces.c.model_id],
    set_={
        "seconds": text(f"(EXCLUDED.seconds || model_paces.seconds)[1:{RUNS_KEPT}]"),
        "updated_at": func.clock_timestamp(),
    },
)


@dataclass(frozen=True, slots=True)
class Run:
    """One that has ended."""

    model_id: str
    seconds: float | None
    """From the claim. None: the job was never claimed."""


class RunTimes:
    """Gathers them, and writes them down every few seconds at most. What cannot be written is left."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RUNS_KEPT))
        self._flush: asyncio.Task[None] | None = None

    def add(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if run.seconds is not None:
                self._seconds[run.model_id].appendleft(run.seconds)
        if self._seconds and self._flush is None:
            self._flush = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        try:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()
        finally:
            self._flush = None

    async def flush(self) -> None:
        values = [{"model_id": model_id, "seconds": list(seconds)} for model_id, seconds in self._seconds.items()]
        self._seconds.clear()
        # A single statement for each model: nothing depends on them together.
        with suppress(DatabaseUnavailable):
            async with reading(self._engine) as connection:
                for each in values:
                    await connection.execute(_ADD, each)


async def read_paces(engine: AsyncEngine) -> Paces:
    async with reading(engine) as connection:
        rows = (await connection.execute(select(model_paces.c.model_id, model_paces.c.seconds))).all()
    paces = {row.model_id: Pace.of(row.seconds) for row in rows}
    return {model_id: pace for model_id, pace in paces.items() if pace is not None}
