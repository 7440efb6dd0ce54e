import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from app.application.ports.media_decoder import DecoderBusy


class Places:
    """How many files are looked at side by side, of all and of one owner, and how many wait.

    Whoever came first goes first, but past those whose owner has as many places as one may.
    """

    def __init__(
        self, all_max: int, owner_max: int, waiting_max: int, waiting_owner_max: int, wait_seconds_max: float
    ) -> None:
        self._all_max = all_max
        self._owner_max = owner_max
        self._waiting_max = waiting_max
        self._waiting_owner_max = waiting_owner_max
        self._wait_seconds_max = wait_seconds_max
        self._held: Counter[Hashable] = Counter()
        self._waiting: dict[asyncio.Future[None], Hashable] = {}

    @asynccontextmanager
    async def held(self, owner: Hashable) -> AsyncIterator[None]:
        """Raises DecoderBusy."""
        if self._is_free(owner):
            self._held[owner] += 1
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._give_back(owner)

    def _is_free(self, owner: Hashable) -> bool:
        return self._held.total() < self._all_max and self._held[owner] < self._owner_max

    async def _wait(self, owner: Hashable) -> None:
        of_owner = sum(each == owner for each in self._waiting.values())
        if len(self._waiting) >= self._waiting_max or of_owner >= self._waiting_owner_max:
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
        for turn, waiting in list(self._waiting.items()):
            if not turn.done() and self._is_free(waiting):
                self._held[waiting] += 1
                del self._waiting[turn]
                turn.set_result(None)
