"""Who goes first where there is more work than processor time: callers who wait, before jobs that were answered."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MANY_ACCEPTS = 8
# A mean over the last few that came or went: independent callers, however slow the answers, happen to meet, and a
# peak of them is no reason to let the queue grow.
MEAN_OF = 16
# Accepts are answered many at a time: that none of them is left at a moment does not mean that the rush is over.
RUSH_SECONDS = 0.05


class Precedence:
    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now_seconds = now_seconds
        self._accepts = 0
        self._mean_accepts = 0.0
        self._rush_until = float("-inf")

    @contextmanager
    def accepting(self) -> Iterator[None]:
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._accepts += change
        self._mean_accepts += (self._accepts - self._mean_accepts) / MEAN_OF
        if self._mean_accepts >= MANY_ACCEPTS:
            self._rush_until = self._now_seconds() + RUSH_SECONDS

    @property
    def is_rush(self) -> bool:
        return self._now_seconds() < self._rush_until
