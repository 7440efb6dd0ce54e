"""Runs the steps. Nothing outside this package knows PgQueuer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import structlog
from pgqueuer.qm import QueueManager

from app.application.execution.duties import HOUSEKEEPING, Duties
from app.application.execution.limits import STOP_SECONDS_MAX
from app.application.execution.precedence import Precedence
from app.application.execution.steps import Lane, Step
from app.application.ports.health import Check
from app.infrastructure.background.items import StepExecutor, StepHandler
from app.infrastructure.background.lanes import (
    LANE_SECONDS,
    POOL_SIZE,
    connect_managers,
    open_pool,
    run_until_one_ends,
)
from app.infrastructure.background.places import Places

log = structlog.get_logger(__name__)

RESTART_SECONDS_MIN = 0.5
RESTART_SECONDS_MAX = 5.0
# A run this long had connected, so earlier failures are forgotten and the back-off starts again.
RESTART_FORGOTTEN_SECONDS = 60
HOUSEKEEPING_SECONDS = 60
TIDY_SECONDS = 10
# With a sweep over many jobs in it.
HOUSEKEEPING_SECONDS_MAX = 180
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
        *,
        connections_max: int = POOL_SIZE,
        tidy: Callable[[], Awaitable[None]] | None = None,
        upkeep: Callable[[], Awaitable[None]] | None = None,
        places: Places | None = None,
    ) -> None:
        self._dsn = dsn
        self._connections_max = connections_max
        self._precedence = precedence or Precedence()
        self._steps = steps
        self._sweep = sweep
        self._tidy = tidy
        self._upkeep = upkeep
        self._places = places
        self._stopping = asyncio.Event()
        self._executor = StepExecutor(self._stopping)
        self.duties = Duties()
        self._managers: Sequence[QueueManager] = ()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="runner")

    async def wait(self) -> None:
        """Wait until the runner ends. Cancelling the wait leaves the runner alone."""
        assert self._task is not None
        await asyncio.wait({self._task})

    def begin_stop(self, *, at_once: bool = False) -> None:
        """Take nothing new, and cut off what still runs after STOP_SECONDS_MAX, or at once."""
        self._stopping.set()
        for manager in self._managers:
            manager.shutdown.set()
        self._executor.cut_off(only_long=True)
        loop = asyncio.get_running_loop()
        seconds = 0 if at_once else STOP_SECONDS_MAX
        loop.call_later(seconds, self._cut_off)
        loop.call_later(seconds + GIVE_BACK_SECONDS_MAX, self._abandon)

    async def stop(self) -> None:
        """Begin to stop, unless that has begun, and let the steps that run finish."""
        if not self._stopping.is_set():
            self.begin_stop()
        if self._task is not None:
            await asyncio.wait({self._task, *self._executor.running})

    def _cut_off(self) -> None:
        if self._executor.running:
            log.warning("runner_stop_cut_short", steps=len(self._executor.running))
        self._executor.cut_off()

    def _abandon(self) -> None:
        """End even if the queue does not take back what was cut off."""
        if self._task is not None:
            self._task.cancel()

    async def check(self) -> Check:
        if not self._managers:
            return Check("runner", False, "not connected to the queue")
        if dead := self.duties.dead:
            return Check("runner", False, f"these hang: {', '.join(dead)}; restart the process")
        return Check("runner", True, "working")

    def _beat(self, lane: Lane) -> None:
        if not self._executor.is_jammed(lane):
            self.duties.beat(lane.name)

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
                # The first sentence of the server only, which says what is wrong and quotes no value.
                sqlstate, said = getattr(cause, "sqlstate", None), str(cause.args[0]) if cause.args else None
                log.warning(
                    "runner_interrupted",
                    error=type(cause).__name__,
                    sqlstate=sqlstate,
                    message=said if sqlstate else None,
                    retry_seconds=delay,
                )
                await self._pause(delay)
                delay = min(delay * 2, RESTART_SECONDS_MAX)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _work(self) -> None:
        handlers = {step: self._executor.item_handler(step, handler) for step, handler in self._steps.items()}
        async with open_pool(self._dsn, self._connections_max) as pool:
            if self._places is not None:
                await self._places.prepare()
            managers = await connect_managers(
                pool, handlers, self._precedence, self._stopping, self._beat, places=self._places
            )
            await self._sweep()
            if self._stopping.is_set():
                return
            self._managers = list(managers.values())
            for lane in managers:
                self.duties.begin(lane.name, LANE_SECONDS)
            self.duties.begin(HOUSEKEEPING, HOUSEKEEPING_SECONDS_MAX)
            housekeeping = {
                asyncio.create_task(chore) for chore in (self._keep_house(), self._keep_tidy(), self._keep_up())
            }
            log.info("runner_started")
            try:
                await run_until_one_ends(managers)
            finally:
                self._managers = ()
                self.duties.end()
                for task in housekeeping:
                    task.cancel()
                await asyncio.wait(housekeeping)
                log.info("runner_stopped")

    async def _keep_house(self) -> None:
        """Sweep from time to time, without the library's scheduler: if that fails, it cancels the steps that run."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            self.duties.beat(HOUSEKEEPING)
            await self._do(self._sweep)

    async def _keep_tidy(self) -> None:
        while self._tidy is not None:
            await asyncio.sleep(TIDY_SECONDS)
            await self._do(self._tidy)

    async def _keep_up(self) -> None:
        """Apart from the sweep: it may hang on a store, which is no reason to call the process dead."""
        while self._upkeep is not None:
            await self._do(self._upkeep)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    async def _do(self, chore: Callable[[], Awaitable[None]]) -> None:
        try:
            await chore()
        except Exception as error:
            log.warning("housekeeping_failed", error=type(error).__name__)
