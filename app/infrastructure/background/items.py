"""What becomes of an item: its step runs, and the queue learns whether the item comes back."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import structlog
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job as QueueItem

from app.application.execution.pacing import backoff_seconds
from app.application.execution.steps import Lane, LeftToNewerRelease, RetryLater, Step
from app.domain.errors import DatabaseUnavailable, Overloaded

log = structlog.get_logger(__name__)

StepHandler: TypeAlias = Callable[[UUID], Awaitable[None]]
ItemHandler: TypeAlias = Callable[[QueueItem], Awaitable[None]]


LEFT_SAID_SECONDS = 60
# Longer than a POST to fal, or a look, with all that is written of it.
JAMMED_SECONDS = 120


@dataclass
class _Places:
    """Those of a lane that are taken."""

    count: int = 0
    freed_at_seconds: float = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        if self.count == 0:
            self.freed_at_seconds = time.monotonic()
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            self.freed_at_seconds = time.monotonic()


class StepExecutor:
    """Runs steps as tasks of its own. No item ends by an error: the queue would delete it, and its subject needs it."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self.running: set[asyncio.Task[None]] = set()
        self._long: set[asyncio.Task[None]] = set()
        self._lanes: defaultdict[Lane, _Places] = defaultdict(_Places)
        self._left = _LeftSteps()

    def item_handler(self, step: Step, handler: StepHandler) -> ItemHandler:
        async def handle(item: QueueItem) -> None:
            # The bytes of the subject's id, as the statement that queues items writes them.
            assert item.payload is not None
            subject_id = UUID(bytes=item.payload)
            if self._stopping.is_set():
                # The item was picked just before. Given back, it need not wait until its heartbeat is missed.
                raise RetryRequested(timedelta(0))
            seconds = await self._seconds_to_next_try(step, handler, subject_id, item)
            if seconds is not None:
                # Raised here, where no error is handled: the library formats the trace of it and of all that led to
                # it, which took longer than many a step.
                raise RetryRequested(timedelta(seconds=seconds))

        return handle

    async def _seconds_to_next_try(
        self, step: Step, handler: StepHandler, subject_id: UUID, item: QueueItem
    ) -> float | None:
        """Run the step. None: nothing is left to do for it."""
        try:
            with self._lanes[step.lane].taken():
                await self._run(handler, subject_id, is_long=step.lane.steps_may_take_long)
        except LeftToNewerRelease as left:
            self._left.count(step)
            # Beside a release that never comes, the looks at such subjects get fewer.
            return max(left.delay_seconds, backoff_seconds(item.attempts + 1))
        except RetryLater as decision:
            return decision.delay_seconds
        except (DatabaseUnavailable, Overloaded) as error:
            cause = error.__cause__ or error
            log.warning("step_postponed", **step.context(subject_id), error=type(cause).__name__)
            return backoff_seconds(item.attempts + 1)
        except Exception:
            log.exception("step_failed", **step.context(subject_id))
            return backoff_seconds(item.attempts + 1)
        return None

    def is_jammed(self, lane: Lane) -> bool:
        """Whether all places are taken, and no step has ended for longer than any takes that is not stuck."""
        if lane.steps_may_take_long:
            return False
        places = self._lanes[lane]
        return places.count >= lane.concurrent_steps_max and time.monotonic() > places.freed_at_seconds + JAMMED_SECONDS

    def cut_off(self, *, only_long: bool = False) -> None:
        """`only_long`: those of lanes whose steps may take long, which begin anew elsewhere."""
        for task in self._long if only_long else self.running:
            task.cancel()

    async def _run(self, handler: StepHandler, subject_id: UUID, *, is_long: bool) -> None:
        """Shielded: a step that has just posted to fal must write that down, even if the library cancels its task."""

        async def run() -> None:
            await handler(subject_id)

        task = asyncio.create_task(run())
        self.running.add(task)
        if is_long:
            self._long.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                # The stop cut the step off. An item that ends as cancelled would be deleted.
                raise RetryLater(0) from None
            raise

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self.running.discard(task)
        self._long.discard(task)
        if not task.cancelled():
            # If the library cancelled the handler nobody else retrieves the error, and asyncio would complain.
            task.exception()


class _LeftSteps:
    """Says at most once a minute that steps are left to a newer release: nobody else may be there to take them."""

    def __init__(self) -> None:
        self._steps = 0
        self._said_at_seconds = float("-inf")

    def count(self, step: Step) -> None:
        self._steps += 1
        if time.monotonic() < self._said_at_seconds + LEFT_SAID_SECONDS:
            return
        log.warning("steps_left_to_newer_release", step=step.name, steps=self._steps)
        self._steps, self._said_at_seconds = 0, time.monotonic()
