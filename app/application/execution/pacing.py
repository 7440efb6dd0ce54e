"""When to come back to a job."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from app.application.ports.execution import JobUpkeep
from app.domain.errors import Unavailable

BACKSTOP_SECONDS_MIN = 5.0
BACKSTOP_SECONDS_MAX = 120.0
# Of all jobs together: a look costs about as much as an accept, and almost every look finds nothing new.
LOOKS_PER_SECOND_MAX = 50
COUNT_SECONDS = 5.0
BACKOFF_SECONDS_MAX = 60.0
POLL_SECONDS_MIN = 0.5
POLL_SECONDS_MAX = 10.0


def backoff_seconds(attempt: int) -> float:
    """Double the pause from 1 s to 60 s, with jitter over its upper half so that many jobs do not come back at once."""
    ceiling = min(BACKOFF_SECONDS_MAX, 2.0 ** min(attempt - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)


def poll_seconds(age_seconds: float) -> float:
    """Wait a tenth of what the job has taken so far: looks are quick for quick jobs and cheap for long ones."""
    return min(max(age_seconds * 0.1, POLL_SECONDS_MIN), POLL_SECONDS_MAX) * random.uniform(0.9, 1.1)


@dataclass(slots=True)
class Backstop:
    """Tells when to look at a job although fal's event should tell its end, because events get lost.

    After as long again as the job has taken; later where so many jobs wait for a look that this would be too often.
    """

    jobs: JobUpkeep
    now_seconds: Callable[[], float] = time.monotonic
    _seconds_for_all: float = field(default=0.0, init=False)
    _counted_at: float = field(default=float("-inf"), init=False)

    async def seconds_to_look(self, age_seconds: float) -> float:
        await self._count()
        own_seconds = min(max(age_seconds, BACKSTOP_SECONDS_MIN), BACKSTOP_SECONDS_MAX) * random.uniform(0.9, 1.1)
        # The looks at many jobs that began together are spread over all that time.
        return max(own_seconds, self._seconds_for_all * random.uniform(0.5, 1.5))

    async def _count(self) -> None:
        now = self.now_seconds()
        if now < self._counted_at + COUNT_SECONDS:
            return
        self._counted_at = now
        # A failed count must not fail the step; the last one is used.
        with suppress(Unavailable):
            self._seconds_for_all = await self.jobs.count_waiting_looks() / LOOKS_PER_SECOND_MAX
