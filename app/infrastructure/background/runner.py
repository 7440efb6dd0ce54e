"""PgQueuer's queue manager around the steps of a job. Nothing outside this package knows the library."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import DBSettings, QueryQueueBuilder
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job as QueueItem
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries
from pgqueuer.types import Channel

from app.application.execution.pacing import backoff_seconds
from app.application.execution.precedence import Precedence
from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB, RetryLater, Step
from app.application.ports.health import Check
from app.domain.errors import DatabaseUnavailable, Overloaded

log = structlog.get_logger(__name__)

StepHandler = Callable[[UUID], Awaitable[None]]

# A dead worker's items are taken over after this; a live one beats twice within it.
HEARTBEAT_TIMEOUT_SECONDS = 10
# How long the manager sleeps when it knows of nothing to do. It does not hear of an item that comes back while it
# decides to sleep, so this is also how late the next look at a job may be.
DEQUEUE_TIMEOUT_SECONDS = 0.5
BATCH_SIZE_MAX = 32
# A manager for each step, so that neither waits behind the other. Submissions share their statements and commits:
# 48 at once cost a fifth less of the service for each job than 16.
CONCURRENT_STEPS_MAX = {SUBMIT_JOB: 64, FOLLOW_JOB: 112}
# In a rush of accepts a batch of submissions is taken together, and then none for so long, or until it is over.
RUSH_PAUSE_SECONDS = 0.2
RUSH_LOOK_SECONDS = 0.02
POOL_SIZE = 6
POOL_CLOSE_SECONDS_MAX = 2
RESTART_SECONDS_MIN = 0.5
RESTART_SECONDS_MAX = 5.0
# No try to begin takes so long: it had worked, and what was wrong before is over.
RESTART_FORGOTTEN_SECONDS = 60
HOUSEKEEPING_SECONDS = 60
# Longer than a step takes while the database answers: a POST to fal ends within 20 s.
STOP_SECONDS_MAX = 22
# For the items of steps that were cut off to go back to the queue.
GIVE_BACK_SECONDS_MAX = 3


class Runner:
    """Works until stopped, and comes back by itself after the database was away."""

    def __init__(
        self,
        dsn: str,
        steps: Mapping[Step, StepHandler],
        sweep: Callable[[], Awaitable[None]],
        precedence: Precedence | None = None,
    ) -> None:
        self._dsn = dsn
        self._precedence = precedence or Precedence()
        self._steps = steps
        self._sweep = sweep
        self._stopping = asyncio.Event()
        self._managers: list[QueueManager] = []
        self._task: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="runner")

    async def wait(self) -> None:
        """Until the runner ends. Cancelling the wait leaves the runner alone."""
        assert self._task is not None
        await asyncio.wait({self._task})

    def begin_stop(self, *, at_once: bool = False) -> None:
        """Take nothing new, and cut off what still runs after STOP_SECONDS_MAX, or at once."""
        self._stopping.set()
        for manager in self._managers:
            manager.shutdown.set()
        loop = asyncio.get_running_loop()
        seconds = 0 if at_once else STOP_SECONDS_MAX
        loop.call_later(seconds, self._cut_off)
        loop.call_later(seconds + GIVE_BACK_SECONDS_MAX, self._abandon)

    async def stop(self) -> None:
        """Begin to stop, unless that has begun, and let the steps that run finish."""
        if not self._stopping.is_set():
            self.begin_stop()
        if self._task is not None:
            await asyncio.wait({self._task, *self._running})

    def _cut_off(self) -> None:
        if self._running:
            log.warning("runner_stop_cut_short", steps=len(self._running))
        for task in self._running:
            task.cancel()

    def _abandon(self) -> None:
        """The queue does not take back what was cut off."""
        if self._task is not None:
            self._task.cancel()

    async def check(self) -> Check:
        if self._managers:
            return Check("runner", True, "working")
        return Check("runner", False, "not connected to the queue")

    async def _run(self) -> None:
        delay = RESTART_SECONDS_MIN
        while not self._stopping.is_set():
            began_at_seconds = time.monotonic()
            try:
                await self._work()
                delay = RESTART_SECONDS_MIN
                await self._pause(delay)
            except Exception as error:
                cause = error.__cause__ or error
                if time.monotonic() > began_at_seconds + RESTART_FORGOTTEN_SECONDS:
                    delay = RESTART_SECONDS_MIN
                log.warning("runner_interrupted", error=type(cause).__name__, retry_seconds=delay)
                await self._pause(delay)
                delay = min(delay * 2, RESTART_SECONDS_MAX)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _work(self) -> None:
        async with _open_pool(self._dsn) as pool:
            driver = AsyncpgPoolDriver(pool)
            managers = {step: self._manager(driver, step) for step in self._steps}
            for step, manager in managers.items():
                manager.entrypoint(step.name)(self._translated(step, self._steps[step]))
                # A manager checks its listener by a NOTIFY that it may send before it listens itself, and a check
                # that fails ends it.
                await driver.add_listener(manager.channel, lambda _: None)
            await self._sweep()
            if self._stopping.is_set():
                return
            self._managers = list(managers.values())
            housekeeping = asyncio.create_task(self._keep_house())
            log.info("runner_started")
            try:
                await _all_until_one_ends(managers)
            finally:
                self._managers = []
                housekeeping.cancel()
                await asyncio.wait({housekeeping})
                log.info("runner_stopped")

    def _manager(self, driver: AsyncpgPoolDriver, step: Step) -> QueueManager:
        """Woken by the items of its own step alone: by each other, both would ask for work all the time."""
        channel = Channel(step.name)
        builder = QueryQueueBuilder(DBSettings(channel=channel))
        queries = (
            _PatientQueries(driver, qbq=builder, precedence=self._precedence, stopping=self._stopping)
            if step is SUBMIT_JOB
            else Queries(driver, qbq=builder)
        )
        return QueueManager(queries, channel)

    async def _keep_house(self) -> None:
        """Not by the library's scheduler: where that one fails it takes the queue manager, and its steps, with it."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                await self._sweep()
            except Exception as error:
                log.warning("housekeeping_failed", error=type(error).__name__)

    def _translated(self, step: Step, handler: StepHandler) -> Callable[[QueueItem], Awaitable[None]]:
        async def handle(item: QueueItem) -> None:
            assert item.payload is not None
            job_id = UUID(bytes=item.payload)
            if self._stopping.is_set():
                # It was picked just before: the next process need not wait until its heartbeat is missed.
                raise RetryRequested(timedelta(0))
            try:
                await self._uncancelled(handler, job_id)
            except RetryLater as decision:
                raise RetryRequested(timedelta(seconds=decision.delay_seconds)) from decision
            except (DatabaseUnavailable, Overloaded) as error:
                cause = error.__cause__ or error
                log.warning("step_postponed", step=step.name, job_id=str(job_id), error=type(cause).__name__)
                raise RetryRequested(timedelta(seconds=backoff_seconds(item.attempts + 1))) from error
            except Exception as error:
                # An item that ends with an error would be deleted; the job still needs it.
                log.exception("step_failed", step=step.name, job_id=str(job_id))
                raise RetryRequested(timedelta(seconds=backoff_seconds(item.attempts + 1))) from error

        return handle

    async def _uncancelled(self, handler: StepHandler, job_id: UUID) -> None:
        """Whatever happens to the library's task, a step that has just posted to fal must write that down."""

        async def run() -> None:
            await handler(job_id)

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                # Cut off by the stop. An item that ends as cancelled would be deleted.
                raise RetryLater(0) from None
            raise

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieved here for the step whose handler was cancelled; asyncio would complain otherwise.
            task.exception()


@dataclass
class _PatientQueries(Queries):
    """Pauses after each batch while there is a rush of accepts."""

    precedence: Precedence = field(kw_only=True)
    stopping: asyncio.Event = field(kw_only=True)
    _taken_at_seconds: float = field(default=float("-inf"), init=False)

    async def dequeue(self, *arguments: Any, **named: Any) -> list[QueueItem]:
        while self.precedence.is_rush and time.monotonic() < self._taken_at_seconds + RUSH_PAUSE_SECONDS:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), RUSH_LOOK_SECONDS)
                return []
        self._taken_at_seconds = time.monotonic()
        return await super().dequeue(*arguments, **named)


async def _all_until_one_ends(managers: Mapping[Step, QueueManager]) -> None:
    """Where one fails, the other one is asked to stop, and the failure is raised when both have."""
    tasks = [asyncio.create_task(_run_manager(step, manager)) for step, manager in managers.items()]
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


async def _run_manager(step: Step, manager: QueueManager) -> None:
    limit = CONCURRENT_STEPS_MAX[step]
    await manager.run(
        dequeue_timeout=timedelta(seconds=DEQUEUE_TIMEOUT_SECONDS),
        # The library wants at least two batches to fit.
        batch_size=min(BATCH_SIZE_MAX, limit // 2),
        max_concurrent_tasks=limit,
        heartbeat_timeout=timedelta(seconds=HEARTBEAT_TIMEOUT_SECONDS),
        shutdown_on_listener_failure=True,
        # Nothing is in the queue's log.
        log_aggregation_interval=timedelta(0),
    )


async def _leave_as_it_is(_: object) -> None:
    """No query here changes its session. The driver would make it new after each, which is one more round trip."""


@asynccontextmanager
async def _open_pool(dsn: str) -> "AsyncIterator[asyncpg.Pool[Any]]":
    pool = await asyncpg.create_pool(
        dsn,
        min_size=2,
        max_size=POOL_SIZE,
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
