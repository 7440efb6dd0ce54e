"""What a query showed some moments ago, for all who ask meanwhile: nobody asks for themselves alone."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from app.domain.errors import DatabaseUnavailable

# From this part of its life on, it is taken anew while it is still good: almost nobody waits for it then.
RENEWED_AT = 0.75
WAIT_SECONDS_MAX = 1.0

Seen = TypeVar("Seen")


class Snapshot(Generic[Seen]):
    def __init__(
        self,
        look: Callable[[], Awaitable[Seen]],
        *,
        seconds_max: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`look` may raise DatabaseUnavailable."""
        self._look = look
        self._seconds_max = seconds_max
        self._clock = clock
        self.last: Seen | None = None
        """However old it is."""
        self._looked_at = self._tried_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def fresh(self) -> Seen | None:
        """Not older than `seconds_max`. None: the database does not answer soon."""
        age = self._clock() - self._looked_at
        if age > RENEWED_AT * self._seconds_max:
            self._renew()
            if age > self._seconds_max and self._task is not None:
                await asyncio.wait({self._task}, timeout=WAIT_SECONDS_MAX)
        return self.last if self._clock() - self._looked_at <= self._seconds_max else None

    def _renew(self) -> None:
        """What failed just now is not tried again at once: requests would wait for it one after the other."""
        if self._task is None and self._clock() > self._tried_at + (1 - RENEWED_AT) * self._seconds_max:
            self._tried_at = self._clock()
            self._task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        try:
            began = self._clock()
            self.last = await self._look()
            self._looked_at = began
        except DatabaseUnavailable:
            # The event database_failed says why.
            pass
        finally:
            self._task = None
