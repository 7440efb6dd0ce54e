"""Places for what is under way at fal, shared so that no account can hold all of them."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self
from uuid import UUID

# An account may hold twice as many places as it leaves free: two thirds of all if it is alone. The next one may hold
# two thirds of the rest, and so on.
SHARE = 2
# Where places come free at all, one does within this time.
MOMENT_SECONDS = 0.25
STUCK_SECONDS = 1.0
NOBODY = UUID(int=0)


class Places:
    """A step whose account is not known yet counts as one of whoever holds the most."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._held: Counter[UUID | None] = Counter()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._moved_at: dict[UUID, float] = {}
        """When each account that holds places last gave one back, or took its first."""

    def take(self, account_id: UUID | None) -> "Place | None":
        """None: the account holds its share already."""
        own = self._held[self._fullest() if account_id is None else account_id]
        if own + self._held[None] >= SHARE * (self._total - self._held.total()):
            return None
        self._add(account_id)
        return Place(self, account_id)

    async def take_soon(self) -> "Place | None":
        """A place for a step whose account is not known. Waits a moment for one, unless what is in its way hangs."""
        until = self._clock() + MOMENT_SECONDS
        while (place := self.take(None)) is None:
            now = self._clock()
            seconds = min(until, self._moved_at.get(self._fullest(), now) + MOMENT_SECONDS) - now
            if seconds <= 0:
                return None
            freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            with suppress(TimeoutError):
                await asyncio.wait_for(freed, seconds)
        return place

    def are_stuck(self, account_id: UUID) -> bool:
        """None of the places that the account holds has come free for long."""
        return self._moved_at.get(account_id, self._clock()) + STUCK_SECONDS <= self._clock()

    def move(self, holder: UUID | None, account_id: UUID) -> None:
        self._remove(holder)
        self._add(account_id)
        self._wake()

    def free(self, holder: UUID | None) -> None:
        self._remove(holder)
        if holder in self._moved_at:
            self._moved_at[holder] = self._clock()
        self._wake()

    def _fullest(self) -> UUID:
        """Who holds the most. Nobody's id, where nobody holds any."""
        held = (holder for holder in self._held if holder is not None)
        return max(held, key=self._held.__getitem__, default=NOBODY)

    def _add(self, holder: UUID | None) -> None:
        self._held[holder] += 1
        if holder is not None:
            self._moved_at.setdefault(holder, self._clock())

    def _remove(self, holder: UUID | None) -> None:
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]
            if holder is not None:
                del self._moved_at[holder]

    def _wake(self) -> None:
        """One of those that wait: the others would find nothing."""
        while self._waiting:
            freed = self._waiting.popleft()
            if not freed.done():
                freed.set_result(None)
                return


class Place:
    def __init__(self, places: Places, holder: UUID | None) -> None:
        self._places = places
        self._holder = holder

    def belongs_to(self, account_id: UUID) -> None:
        """The account of the step is known now."""
        self._places.move(self._holder, account_id)
        self._holder = account_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.free(self._holder)
