"""Natural batching: while a flush is under way the next calls gather, and the next flush takes all of them.

There is no timer: a call that finds nobody at work goes at once and alone, so that waiting is never added; the
busier the service, the more calls share one round trip and one commit.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from app.domain.errors import Overloaded, Unavailable

# While one flush waits for the disk, the other one computes. More of them would only make smaller batches.
FLUSHES_MAX = 2
BATCH_SIZE_MAX = 128
WAITING_MAX = 2_000

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# One answer for each item, in their order; an exception is the answer to that item alone.
Flush: TypeAlias = Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]]


class Batcher(Generic[Item, Answer]):
    def __init__(self, flush: Flush[Item, Answer]) -> None:
        self._flush = flush
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._flushes: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Answer:
        """Raises Overloaded where too many calls wait already, and what the flush answers for the item."""
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if len(self._flushes) < FLUSHES_MAX:
            task = asyncio.create_task(self._work())
            self._flushes.add(task)
            task.add_done_callback(self._flushes.discard)
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_SIZE_MAX, len(self._waiting)))]
            answers = await self._answers([item for item, _ in batch])
            for (_, waiting), answer in zip(batch, answers, strict=True):
                # A caller that went away has cancelled its future.
                if waiting.done():
                    continue
                if isinstance(answer, Exception):
                    waiting.set_exception(answer)
                else:
                    waiting.set_result(answer)

    async def _answers(self, items: Sequence[Item]) -> Sequence[Answer | Exception]:
        try:
            return await self._flush(items)
        except Unavailable as error:
            return [error] * len(items)
        except Exception as error:
            # One of them is poisoned: alone, it fails alone.
            return [error] if len(items) == 1 else [(await self._answers([item]))[0] for item in items]
