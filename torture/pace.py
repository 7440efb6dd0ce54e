"""Work at a steady pace, whatever becomes of single pieces of it."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Until `count` pieces are begun and `is_enough` says so, or the time is over."""

    count: int
    seconds: float
    """For that many."""
    is_enough: Callable[[], bool]
    seconds_max: float
    at_once_max: int = 100

    async def keep(self, work: Callable[[int], Awaitable[None]]) -> None:
        """`work` gets the number of its piece."""
        began = asyncio.get_running_loop().time()
        numbers = itertools.count()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.at_once_max):
                tasks.create_task(self._one_after_the_other(work, numbers, began))

    async def _one_after_the_other(
        self, work: Callable[[int], Awaitable[None]], numbers: "itertools.count[int]", began: float
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            spent_seconds = loop.time() - began
            if (number >= self.count and self.is_enough()) or spent_seconds > self.seconds_max:
                return
            await asyncio.sleep(number * self.seconds / self.count - spent_seconds)
            await work(number)
