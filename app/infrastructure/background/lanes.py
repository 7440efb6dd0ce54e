"""One of PgQueuer's queue managers for each lane, so that no lane waits behind another."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import DBSettings, QueryQueueBuilder
from pgqueuer.models import Job as QueueItem
from pgqueuer.ports.driver import NotifyCallback
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from pgqueuer.types import Channel

from app.application.execution.precedence import Precedence
from app.application.execution.steps import Lane, Step
from app.infrastructure.background.items import ItemHandler

# Another process takes over the items of a dead one after this; a live one beats twice within it.
HEARTBEAT_TIMEOUT_SECONDS = 10
# How long a manager sleeps when it knows of nothing to do. It does not hear of an item that comes back while it
# decides to sleep, so this is also how late the next look at a job may be.
DEQUEUE_TIMEOUT_SECONDS = 0.5
BATCH_SIZE_MAX = 32
# In a rush of accepts a lane that yields takes one batch, and the next one after this or when the rush is over.
RUSH_PAUSE_SECONDS = 0.2
RUSH_LOOK_SECONDS = 0.02
# One connection listens for all lanes.
POOL_SIZE = 6
# Longer than a query of the queue may take.
LANE_SECONDS = 45.0
POOL_CLOSE_SECONDS_MAX = 2


@asynccontextmanager
async def open_pool(dsn: str, size_max: int = POOL_SIZE) -> "AsyncIterator[asyncpg.Pool[Any]]":
    pool = await asyncpg.create_pool(
        dsn,
        min_size=2,
        max_size=size_max,
        timeout=5,
        command_timeout=30,
        server_settings={"application_name": "tollgate-runner"},
        reset=_leave_as_it_is,
    )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), POOL_CLOSE_SECONDS_MAX)
        except Exception:
            pool.terminate()


async def connect_managers(
    pool: "asyncpg.Pool[Any]",
    handlers: Mapping[Step, ItemHandler],
    precedence: Precedence,
    stopping: asyncio.Event,
    beat: Callable[[Lane], None],
) -> Mapping[Lane, QueueManager]:
    """A manager that listens, and does not work yet, for each lane of the steps. One that looks for work beats."""
    steps: dict[Lane, list[Step]] = defaultdict(list)
    for step in handlers:
        steps[step.lane].append(step)
    driver = _LanesDriver(pool, {lane.name: [step.name for step in steps[lane]] for lane in steps})
    managers = {lane: _manager(driver, lane, precedence, stopping, partial(beat, lane)) for lane in steps}
    for step, handler in handlers.items():
        managers[step.lane].entrypoint(step.name)(handler)
    for manager in managers.values():
        # A manager checks its listener by a NOTIFY that it may send before it listens itself, and a check that fails
        # ends the manager. So the connection listens before.
        await driver.add_listener(manager.channel, lambda _: None)
    return managers


async def run_until_one_ends(managers: Mapping[Lane, QueueManager]) -> None:
    """If one manager fails, the others are asked to stop, and the failure is raised when all have ended."""
    tasks = [asyncio.create_task(_run_manager(lane, manager)) for lane, manager in managers.items()]
    if not tasks:
        return
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for manager in managers.values():
            manager.shutdown.set()
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        raise
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise RuntimeError("a queue manager ended") from outcome


def _manager(
    driver: AsyncpgPoolDriver,
    lane: Lane,
    precedence: Precedence,
    stopping: asyncio.Event,
    beat: Callable[[], None],
) -> QueueManager:
    """A manager with a channel of its own: if lanes woke each other, all would ask for work all the time."""
    channel = Channel(lane.name)
    builder = QueryQueueBuilder(DBSettings(channel=channel))
    queries = (
        _YieldingQueries(driver, qbq=builder, beat=beat, precedence=precedence, stopping=stopping)
        if lane.yields_to_accepts
        else _BeatingQueries(driver, qbq=builder, beat=beat)
    )
    return QueueManager(queries, channel)


async def _run_manager(lane: Lane, manager: QueueManager) -> None:
    await manager.run(
        dequeue_timeout=timedelta(seconds=DEQUEUE_TIMEOUT_SECONDS),
        # The library wants at least two batches to fit.
        batch_size=min(BATCH_SIZE_MAX, lane.concurrent_steps_max // 2),
        max_concurrent_tasks=lane.concurrent_steps_max,
        heartbeat_timeout=timedelta(seconds=HEARTBEAT_TIMEOUT_SECONDS),
        shutdown_on_listener_failure=True,
        # Nothing is in the queue's log.
        log_aggregation_interval=timedelta(0),
    )


class _LanesDriver(AsyncpgPoolDriver):
    """Where a manager listens to the channel of its lane, it also hears of the items of the lane's steps.

    A trigger sends the word of an item to the channel that has the name of its step (revision 0006), and a manager
    listens to a single channel.
    """

    def __init__(self, pool: "asyncpg.Pool[Any]", channels: Mapping[str, Sequence[str]]) -> None:
        super().__init__(pool)
        self._channels = channels

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        for heard in (channel, *self._channels[channel]):
            await super().add_listener(heard, callback)


@dataclass
class _BeatingQueries(Queries):
    """A manager that looks for work does its duty."""

    beat: Callable[[], None] = field(kw_only=True)

    async def dequeue(self, *arguments: Any, **named: Any) -> list[QueueItem]:
        items = await super().dequeue(*arguments, **named)
        self.beat()
        return items


@dataclass
class _YieldingQueries(_BeatingQueries):
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


async def _leave_as_it_is(_: object) -> None:
    """No query here changes its session. The driver would reset it after each, which is one more round trip."""
