"""One of PgQueuer's queue managers for each lane, so that no lane waits behind another."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import DBSettings, QueryQueueBuilder
from pgqueuer.ports.driver import NotifyCallback
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from pgqueuer.types import Channel

from app.application.execution.precedence import Precedence
from app.application.execution.steps import Lane, Step
from app.infrastructure.background.items import ItemHandler
from app.infrastructure.background.places import Places
from app.infrastructure.background.queries import BeatingQueries, YieldingPlacedQueries, YieldingQueries

# Another process takes over the items of a dead one after this; a live one beats twice within it.
HEARTBEAT_TIMEOUT_SECONDS = 10
# How long a manager sleeps when it knows of nothing to do. It does not hear of an item that comes back while it
# decides to sleep, so this is also how late the next look at a job may be.
DEQUEUE_TIMEOUT_SECONDS = 0.5
BATCH_SIZE_MAX = 32
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
    *,
    places: Places | None = None,
) -> Mapping[Lane, QueueManager]:
    """A manager that listens, and does not work yet, for each lane of the steps. One that looks for work beats."""
    steps: dict[Lane, list[Step]] = defaultdict(list)
    for step in handlers:
        steps[step.lane].append(step)
    driver = _LanesDriver(pool, {lane.name: [step.name for step in steps[lane]] for lane in steps})
    making = _Making(driver, pool, precedence, stopping, places)
    managers = {lane: making.manager(lane, partial(beat, lane)) for lane in steps}
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


@dataclass(frozen=True, slots=True)
class _Making:
    driver: AsyncpgPoolDriver
    pool: "asyncpg.Pool[Any]"
    precedence: Precedence
    stopping: asyncio.Event
    places: Places | None

    def manager(self, lane: Lane, beat: Callable[[], None]) -> QueueManager:
        """A manager with a channel of its own: if lanes woke each other, all would ask for work all the time."""
        channel = Channel(lane.name)
        return QueueManager(self._queries(lane, QueryQueueBuilder(DBSettings(channel=channel)), beat), channel)

    def _queries(self, lane: Lane, builder: QueryQueueBuilder, beat: Callable[[], None]) -> Queries:
        if not lane.yields_to_accepts:
            return BeatingQueries(self.driver, qbq=builder, beat=beat)
        if self.places is None or not lane.takes_places:
            return YieldingQueries(
                self.driver, qbq=builder, beat=beat, precedence=self.precedence, stopping=self.stopping
            )
        return YieldingPlacedQueries(
            self.driver,
            qbq=builder,
            beat=beat,
            precedence=self.precedence,
            stopping=self.stopping,
            pool=self.pool,
            places=self.places,
        )


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


async def _leave_as_it_is(_: object) -> None:
    """No query here changes its session. The driver would reset it after each, which is one more round trip."""
