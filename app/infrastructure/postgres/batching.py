"""Natural batching: while a flush is under way the next calls gather, and the next flush takes all of them.

There is no timer: a call that finds nobody at work goes at once and alone, so that waiting is never added; the
busier the service, the more calls share one round trip and one commit.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import CommitUnknown, Overloaded, Unavailable
from app.infrastructure.postgres.database import DriverConnection, driver_connection

# While one flush waits for the disk, the other one computes. More of them would only make smaller batches.
FLUSHES_MAX = 2
BATCH_SIZE_MAX = 128
WAITING_MAX = 2_000

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Item_contra = TypeVar("Item_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class Flush(Protocol[Item_contra, Answer_co]):
    async def __call__(
        self, driver: DriverConnection, items: Sequence[Item_contra], /, *, is_repeated: bool
    ) -> Sequence[Answer_co | Exception]:
        """One answer for each item, in their order; an exception is the answer to that item alone.

        `is_repeated`: an earlier try with the same items may have been committed.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Call(Generic[Item, Answer]):
    item: Item
    answer: "asyncio.Future[Answer]"


class Batcher(Generic[Item, Answer]):
    def __init__(self, engine: AsyncEngine, flush: Flush[Item, Answer], *, flushes_max: int = FLUSHES_MAX) -> None:
        self._engine = engine
        self._flush = flush
        self._flushes_max = flushes_max
        self._waiting: deque[_Call[Item, Answer]] = deque()
        self._workers = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Answer:
        """Raises Overloaded where too many calls wait already, and what the flush answers for the item."""
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(item, answer))
        if self._workers < self._flushes_max:
            self._workers += 1
            task = asyncio.create_task(self._work())
            # asyncio itself would forget it.
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _work(self) -> None:
        """Until nobody waits. Only then the connection goes back to the pool: taking one costs as much as using it."""
        while batch := self._next():
            try:
                async with driver_connection(self._engine) as driver:
                    while batch:
                        _answer(batch, await self._flush(driver, _items(batch), is_repeated=False))
                        batch = self._next()
            except Exception as error:
                _answer(batch, await self._answers_after(error, _items(batch)))
        # In the same breath as the look that found nobody: whoever comes later starts a worker of their own.
        self._workers -= 1

    def _next(self) -> list[_Call[Item, Answer]]:
        return [self._waiting.popleft() for _ in range(min(BATCH_SIZE_MAX, len(self._waiting)))]

    async def _answers_after(self, error: Exception, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        if isinstance(error, CommitUnknown):
            return await self._answers_alone(items, is_repeated=True)
        if isinstance(error, Unavailable) or len(items) == 1:
            return [error] * len(items)
        # One of them is poisoned: alone, it fails alone.
        return [(await self._answers_alone([item], is_repeated=False))[0] for item in items]

    async def _answers_alone(self, items: Sequence[Item], *, is_repeated: bool) -> Sequence[Answer | Exception]:
        try:
            async with driver_connection(self._engine) as driver:
                return await self._flush(driver, items, is_repeated=is_repeated)
        except Unavailable as error:
            return [CommitUnknown() if is_repeated else error] * len(items)
        except Exception as error:
            return [error] * len(items)


def _items(batch: Sequence[_Call[Item, Answer]]) -> list[Item]:
    return [call.item for call in batch]


def _answer(batch: Sequence[_Call[Item, Answer]], answers: Sequence[Answer | Exception]) -> None:
    for call, answer in zip(batch, answers, strict=True):
        # A caller that went away has cancelled its future.
        if call.answer.done():
            continue
        if isinstance(answer, Exception):
            call.answer.set_exception(answer)
        else:
            call.answer.set_result(answer)
