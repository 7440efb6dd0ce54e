"""Gives the events of committed transactions their order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from sqlalchemy import Integer, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres.database import listening_to_commits, reading
from app.infrastructure.postgres.lifelong import going_on

log = structlog.get_logger(__name__)

EVENTS_MAX = 1_000
# What commits within this time is moved together: each move is a transaction of its own.
GATHER_SECONDS = 0.02
# For what processes left that have died since, or that run no sequencer, as the command line does.
IDLE_SECONDS = 0.5
FAILED_SECONDS = 1.0
LAST_MOVE_SECONDS_MAX = 1.0

_SEQUENCE = select(func.sequence_events(bindparam("events_max", type_=Integer)))


class EventSequencer:
    """One for each process: whichever comes first does the work for all of them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with going_on(self._work(), "event sequencer", last=self.move, last_seconds_max=LAST_MOVE_SECONDS_MAX):
            yield

    async def _work(self) -> None:
        committed = asyncio.Event()
        with listening_to_commits(committed.set):
            while True:
                committed.clear()
                await self._move_and_pause(committed)

    async def _move_and_pause(self, committed: asyncio.Event) -> None:
        try:
            moved = await self.move()
        except DatabaseUnavailable:
            # The event database_failed says why.
            await asyncio.sleep(FAILED_SECONDS)
            return
        except Exception:
            log.exception("event_sequencer_failed")
            await asyncio.sleep(FAILED_SECONDS)
            return
        if moved == 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(committed.wait(), IDLE_SECONDS)
        if moved != EVENTS_MAX:
            await asyncio.sleep(GATHER_SECONDS)

    async def move(self) -> int | None:
        """Put what has been committed into the log. Returns how much, or None where another process is doing that.

        Whoever is doing that may not see what was committed last. Raises DatabaseUnavailable.
        """
        # One statement, which commits by itself. Its steps see each what was committed before they began.
        async with reading(self._engine) as connection:
            moved: int | None = await connection.scalar(_SEQUENCE, {"events_max": EVENTS_MAX})
            return moved
