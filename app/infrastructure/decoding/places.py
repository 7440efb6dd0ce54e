import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

from app.application.ports.media_decoder import DecoderBusy

SHARE = 2
HALF_SECONDS = 60.0
FORGOTTEN_SECONDS = 0.1


class Places:
    """How many files are looked at side by side, of all and of one owner, and how many wait.

    Next is the file of whoever has had the least time lately, so that an owner of slow files is the one who waits for
    them. An owner may have twice as many waiting as are left for all others, up to a bound.
    """

    def __init__(
        self,
        all_max: int,
        owner_max: int,
        waiting_max: int,
        waiting_owner_max: int,
        wait_seconds_max: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._all_max = all_max
        self._owner_max = owner_max
        self._waiting_max = waiting_max
        self._waiting_owner_max = waiting_owner_max
        self._wait_seconds_max = wait_seconds_max
        self._clock = clock
        self._seconds_had: dict[Hashable, float] = {}
        self._forgotten_at = clock()
        self._held: Counter[Hashable] = Counter()
        self._waiting: dict[asyncio.Future[None], Hashable] = {}

    @asynccontextmanager
    async def held(self, owner: Hashable) -> AsyncIterator[None]:
        """Raises DecoderBusy."""
        if self._is_free(owner):
            self._held[owner] += 1
        else:
            await self._wait(owner)
        began_at = self._clock()
        try:
            yield
        finally:
            self._seconds_had[owner] = self._seconds_had.get(owner, 0.0) + self._clock() - began_at
            self._give_back(owner)

    def _is_free(self, owner: Hashable) -> bool:
        return self._held.total() < self._all_max and self._held[owner] < self._owner_max

    async def _wait(self, owner: Hashable) -> None:
        of_owner = sum(each == owner for each in self._waiting.values())
        left = self._waiting_max - len(self._waiting)
        if of_owner >= min(self._waiting_owner_max, SHARE * left):
            raise DecoderBusy
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = owner
        try:
            async with asyncio.timeout(self._wait_seconds_max):
                await turn
        except BaseException as error:
            # The turn may have come in the same moment.
            if turn.done() and not turn.cancelled():
                self._give_back(owner)
            if isinstance(error, TimeoutError):
                raise DecoderBusy from error
            raise
        finally:
            self._waiting.pop(turn, None)

    def _give_back(self, owner: Hashable) -> None:
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._forget()
        while (turn := self._next()) is not None:
            self._held[self._waiting.pop(turn)] += 1
            turn.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        free = [turn for turn, waiting in self._waiting.items() if not turn.done() and self._is_free(waiting)]
        # Of equals the first: it has waited for the longest.
        return min(free, key=lambda turn: self._seconds_had.get(self._waiting[turn], 0.0), default=None)

    def _forget(self) -> None:
        """Half of the time that was had is forgotten in each period, and in the end all of it."""
        now = self._clock()
        if now >= self._forgotten_at + HALF_SECONDS:
            self._forgotten_at = now
            self._seconds_had = {owner: had / 2 for owner, had in self._seconds_had.items() if had > FORGOTTEN_SECONDS}
