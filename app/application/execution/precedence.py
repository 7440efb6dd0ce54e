"""Who goes first if there is more work than processor time: callers who wait come before jobs that were answered."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from app.application.ports.jobs import JobAcceptance
from app.domain.accounts import ApiKey
from app.domain.jobs import Job, NewJob
from app.domain.orders import Accepted, IdempotencyKey

MANY_ACCEPTS = 8
# The mean of what so many of the last accepts met: independent callers happen to meet now and then.
MEAN_OF = 16
# If accepts wait for a slow disk instead of the processor, holding back jobs helps nobody.
BUSY_SHARE = 0.7
BUSY_SECONDS = 0.1
# Accepts are answered many at a time, so a moment without any does not mean that the rush is over.
RUSH_SECONDS = 0.05


class Precedence:
    """Tells whether there is a rush: many accepts wait at a time, and this process is short of processor time."""

    def __init__(
        self,
        now_seconds: Callable[[], float] = time.monotonic,
        processor_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        self._now_seconds = now_seconds
        self._processor_seconds = processor_seconds
        self._accepts = 0
        self._mean_accepts = 0.0
        self._is_busy = False
        self._looked_at_seconds, self._used_seconds = now_seconds(), processor_seconds()
        self._rush_until_seconds = float("-inf")

    @contextmanager
    def accepting(self) -> Iterator[None]:
        self._accepts += 1
        self._mean_accepts += (self._accepts - self._mean_accepts) / MEAN_OF
        now = self._now_seconds()
        if now >= self._looked_at_seconds + BUSY_SECONDS:
            self._look(now)
        if self._is_busy and self._mean_accepts > MANY_ACCEPTS:
            self._rush_until_seconds = now + RUSH_SECONDS
        try:
            yield
        finally:
            self._accepts -= 1

    @property
    def is_rush(self) -> bool:
        return self._now_seconds() < self._rush_until_seconds

    def _look(self, now_seconds: float) -> None:
        used_seconds = self._processor_seconds()
        share = (used_seconds - self._used_seconds) / (now_seconds - self._looked_at_seconds)
        self._is_busy = share >= BUSY_SHARE
        self._looked_at_seconds, self._used_seconds = now_seconds, used_seconds


class CountedAcceptance:
    """An acceptance whose accepts count as those that go first."""

    def __init__(self, jobs: JobAcceptance, precedence: Precedence) -> None:
        self._jobs = jobs
        self.precedence = precedence

    async def accept(
        self, job: NewJob, idempotency: IdempotencyKey | None = None, key: ApiKey | None = None
    ) -> Accepted:
        with self.precedence.accepting():
            return await self._jobs.accept(job, idempotency, key)

    async def find_by_idempotency_key(self, account_id: UUID, idempotency: IdempotencyKey) -> Job | None:
        return await self._jobs.find_by_idempotency_key(account_id, idempotency)
