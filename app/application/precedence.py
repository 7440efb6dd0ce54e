"""Who goes first where there is more work than processor time: callers who wait, before jobs that were answered."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MANY_ACCEPTS = 8
# Accepts are answered many at a time: that few of them are left at a moment does not mean that the rush is over.
RUSH_SECONDS = 0.1


class Precedence:
    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now_seconds = now_seconds
        self._accepts = 0
        self._rush_until = float("-inf")

    @contextmanager
    def accepting(self) -> Iterator[None]:
        self._accepts += 1
        if self._accepts >= MANY_ACCEPTS:
            self._rush_until = self._now_seconds() + RUSH_SECONDS
        try:
            yield
        finally:
            self._accepts -= 1

    @property
    def is_rush(self) -> bool:
        return self._now_seconds() < self._rush_until
