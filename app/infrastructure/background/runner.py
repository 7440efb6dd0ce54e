"""PgQueuer's managers around the steps of a job. Nothing outside this package knows the library."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from pgqueuer.applications import PgQueuer
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job as QueueItem
from pgqueuer.models import Schedule

from app.application.execution import RetryLater, Step, backoff_seconds
from app.application.ports import Check

log = structlog.get_logger(__name__)

StepHandler = Callable[[UUID], Awaitable[None]]

# A dead worker's items are taken over after this; a live one beats twice within it.
HEARTBEAT_TIMEOUT_SECONDS = 10
# NOTIFY is only a hint: without one, new items are seen after this.
DEQUEUE_TIMEOUT_SECONDS = 5
BATCH_SIZE = 32
CONCURRENT_STEPS_MAX = 128
POOL_SIZE = 4
RESTART_SECONDS_MIN = 0.5
RESTART_SECONDS_MAX = 5.0
# Longer than any step may take: a POST to fal ends within 20 s.
STOP_SECONDS_MAX = 25
QUEUE_LOG_MINUTES = 10


class Runner:
    """Works until stopped, and comes back by itself after the database was away."""

    def __init__(self, dsn: str, steps: Mapping[Step, StepHandler], sweep: Callable[[], Awaitable[None]]) -> None:
        self._dsn = dsn
        self._steps = steps
        self._sweep = sweep
        self._stopping = asyncio.Event()
        self._current: PgQueuer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="runner")

    async def wait(self) -> None:
        """Until the runner ends. Cancelling the wait leaves the runner alone."""
        assert self._task is not None
        await asyncio.wait({self._task})

    async def stop(self) -> None:
        """Take nothing new, let the steps that run finish. Whatever is cut off is picked up by the next process."""
        self._stopping.set()
        if self._current is not None:
            self._current.shutdown.set()
        if self._task is None:
            return
        done, _ = await asyncio.wait({self._task}, timeout=STOP_SECONDS_MAX)
        if not done:
            log.warning("runner_stop_cut_short", seconds=STOP_SECONDS_MAX)
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def check(self) -> Check:
        if self._current is not None:
            return Check("runner", True, "working")
        return Check("runner", False, "not connected to the queue")

    async def _run(self) -> None:
        delay = RESTART_SECONDS_MIN
        while not self._stopping.is_set():
            try:
                await self._work()
                delay = RESTART_SECONDS_MIN
            except Exception as error:
                log.warning("runner_interrupted", error=type(error).__name__, retry_seconds=delay)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)
                delay = min(delay * 2, RESTART_SECONDS_MAX)

    async def _work(self) -> None:
        async with asyncpg.create_pool(
            self._dsn,
            min_size=2,
            max_size=POOL_SIZE,
            timeout=5,
            command_timeout=30,
            server_settings={"application_name": "tollgate-runner"},
        ) as pool:
            queue = PgQueuer.from_asyncpg_pool(pool)
            self._register(queue, pool)
            await self._sweep()
            if self._stopping.is_set():
                return
            self._current = queue
            log.info("runner_started")
            try:
                await queue.run(
                    dequeue_timeout=timedelta(seconds=DEQUEUE_TIMEOUT_SECONDS),
                    batch_size=BATCH_SIZE,
                    max_concurrent_tasks=CONCURRENT_STEPS_MAX,
                    heartbeat_timeout=timedelta(seconds=HEARTBEAT_TIMEOUT_SECONDS),
                    shutdown_on_listener_failure=True,
                    # Statistics of the queue's log are read by nobody; _tidy drops its rows.
                    log_aggregation_interval=timedelta(0),
                )
            finally:
                self._current = None
                log.info("runner_stopped")

    def _register(self, queue: PgQueuer, pool: "asyncpg.Pool[Any]") -> None:
        for step, handler in self._steps.items():
            queue.entrypoint(step.value)(_translated(step, handler))

        @queue.schedule("generation.sweep", "* * * * *")
        async def sweep(_: Schedule) -> None:
            await self._sweep()

        @queue.schedule("queue.tidy", "* * * * *")
        async def tidy(_: Schedule) -> None:
            """Two rows for each look at each job: without this the log would outgrow everything else."""
            await pool.execute(
                "DELETE FROM pgqueuer_log WHERE created < now() - $1::interval", timedelta(minutes=QUEUE_LOG_MINUTES)
            )


def _translated(step: Step, handler: StepHandler) -> Callable[[QueueItem], Awaitable[None]]:
    async def handle(item: QueueItem) -> None:
        assert item.payload is not None
        job_id = UUID(bytes=item.payload)
        try:
            await handler(job_id)
        except RetryLater as decision:
            raise RetryRequested(timedelta(seconds=decision.delay_seconds)) from decision
        except Exception as error:
            # An item that ends with an error would be deleted; the job still needs it.
            log.exception("step_failed", step=step.value, job_id=str(job_id))
            raise RetryRequested(timedelta(seconds=backoff_seconds(item.attempts + 1))) from error

    return handle
