"""How the managers of the lanes take items."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
from pgqueuer.adapters.persistence.composer import ComposedQuery
from pgqueuer.models import Job as QueueItem
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries
from pgqueuer.types import QueueEntrypoint, QueueManagerId

from app.application.execution.precedence import Precedence
from app.application.fault_points import reach
from app.infrastructure.background.places import Fetch, Places

# In a rush of accepts a lane that yields takes one batch, and the next one after this or when the rush is over.
RUSH_PAUSE_SECONDS = 0.2
RUSH_LOOK_SECONDS = 0.02
# How often the items are asked for that a dead process has left, of jobs that hold a place.
RETAKE_SECONDS = 1.0


@dataclass
class BeatingQueries(Queries):
    """A manager that looks for work does its duty."""

    beat: Callable[[], None] = field(kw_only=True)

    async def dequeue(self, *arguments: Any, **named: Any) -> list[QueueItem]:
        items = await super().dequeue(*arguments, **named)
        self.beat()
        return items


@dataclass
class YieldingQueries(BeatingQueries):
    """Pauses after each batch while there is a rush of accepts."""

    precedence: Precedence = field(kw_only=True)
    stopping: asyncio.Event = field(kw_only=True)
    _taken_at_seconds: float = field(default=float("-inf"), init=False)

    async def dequeue(self, *arguments: Any, **named: Any) -> list[QueueItem]:
        while self.precedence.is_rush and time.monotonic() < self._taken_at_seconds + RUSH_PAUSE_SECONDS:
            with suppress(TimeoutError):
                self.beat()
                await asyncio.wait_for(self.stopping.wait(), RUSH_LOOK_SECONDS)
                return []
        self._taken_at_seconds = time.monotonic()
        return await super().dequeue(*arguments, **named)


@dataclass
class PlacedQueries(Queries):
    """Takes as many items as there are free places at fal, and gives these to their jobs.

    While there is none the manager is told of no work: it sleeps until it hears of a free place, and does not poll.
    """

    pool: "asyncpg.Pool[Any]" = field(kw_only=True)
    places: Places = field(kw_only=True)
    _is_full: bool = field(default=False, init=False)
    _retaken_at_seconds: float = field(default=float("-inf"), init=False)

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[QueueItem]:
        query = partial(
            self.qbq.build_dequeue_query,
            entrypoints=list(entrypoints),
            concurrency_limits=[each.concurrency_limit for each in entrypoints.values()],
            queue_manager_id=queue_manager_id,
            global_concurrency_limit=global_concurrency_limit,
            heartbeat_timeout=heartbeat_timeout,
        )
        async with self.pool.acquire() as connection:
            async with connection.transaction():
                rows = await self._take_in_places(connection.fetch, batch_size, query)
                if time.monotonic() > self._retaken_at_seconds + RETAKE_SECONDS:
                    self._retaken_at_seconds = time.monotonic()
                    rows += await self.places.retake(connection.fetch, queue_manager_id, heartbeat_timeout)
                if rows:
                    reach("take_places.before_commit")
            if rows:
                reach("take_places.after_commit")
        return [QueueItem.model_validate(dict(row)) for row in rows]

    async def _take_in_places(
        self, fetch: Fetch, batch_size: int, query: Callable[..., ComposedQuery]
    ) -> list[Mapping[str, Any]]:
        numbers = await self.places.lock_free(fetch, batch_size)
        self._is_full = not numbers
        if not numbers:
            return []
        composed = query(batch_size=len(numbers))
        rows = list(await fetch(composed.sql, *composed.args))
        if rows:
            await self.places.give(fetch, numbers, [UUID(bytes=row["payload"]) for row in rows])
        return rows

    async def eligible_queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        return 0 if self._is_full else await super().eligible_queued_work(entrypoints)

    async def queued_work(self, entrypoints: list[QueueEntrypoint]) -> int:
        return 0 if self._is_full else await super().queued_work(entrypoints)

    async def next_deferred_eta(self, entrypoints: list[QueueEntrypoint]) -> timedelta | None:
        return None if self._is_full else await super().next_deferred_eta(entrypoints)


@dataclass
class YieldingPlacedQueries(YieldingQueries, PlacedQueries):
    """Both, in this order."""
