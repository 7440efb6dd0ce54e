"""Natural batching: while a flush is under way the next calls gather, and the next flush takes all of them.

A call that finds nobody at work goes at once and alone, so that waiting is never added; the busier the service, the
more calls share one round trip and one commit.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import CommitUnknown, Overloaded, Unavailable
from app.infrastructure.postgres.database import DriverConnection, driver_connection
from app.infrastructure.postgres.faults import anew, is_contention

# One flush at a time makes the largest batches. A second one only helps out where the first waits, for a lock or for
# the disk: nobody else should wait for that.
FLUSHES_MAX = 2
LATE_SECONDS = 0.05
BATCH_SIZE_MAX = 128
BATCH_BYTES_MAX = 1024 * 1024
ALONE_AT_ONCE_MAX = 4
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
    def __init__(
        self,
        engine: AsyncEngine,
        flush: Flush[Item, Answer],
        *,
        flushes_max: int = FLUSHES_MAX,
        size_max: int = BATCH_SIZE_MAX,
        size_bytes: Callable[[Item], int] = lambda _: 0,
        takes_half: bool = False,
        drops_abandoned: bool = False,
    ) -> None:
        """`size_bytes` measures an item, if items can be large. `takes_half`: a batch is at most half of the calls that
        wait or were just answered; where a flush takes long, Python prepares one half while PostgreSQL works on the
        other. `drops_abandoned`: an item is not sent once its caller has gone away.
        """
        self._engine = engine
        self._flush = flush
        self._flushes_max = flushes_max
        self._size_max = size_max
        self._size_bytes = size_bytes
        self._takes_half = takes_half
        self._drops_abandoned = drops_abandoned
        self._waiting: deque[_Call[Item, Answer]] = deque()
        self._workers = 0
        self._late = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Answer:
        """Raises Overloaded if too many calls wait already, and whatever exception the flush answers for the item."""
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(item, answer))
        self._start_worker()
        try:
            return await answer
        finally:
            # Its exception holds this frame, and the frame would hold it: in a circle with all of a large item.
            del answer

    def _start_worker(self) -> None:
        """Start a worker for the calls that wait, unless one that is in time will come for them."""
        if not self._waiting or self._late < self._workers or self._workers >= self._flushes_max:
            return
        self._workers += 1
        # The worker has no request's context, because what it logs is about many. asyncio alone would forget the task.
        task = asyncio.create_task(self._work(), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextmanager
    def _late_after(self, seconds: float) -> Iterator[None]:
        is_late = False

        def be_late() -> None:
            nonlocal is_late
            is_late = True
            self._late += 1
            self._start_worker()

        timer = asyncio.get_running_loop().call_later(seconds, be_late)
        try:
            yield
        finally:
            timer.cancel()
            self._late -= is_late

    async def _work(self) -> None:
        """Flush until no call waits. Only then the connection goes back: taking one costs as much as using it."""
        batch: list[_Call[Item, Answer]] = []
        try:
            while batch := self._next():
                try:
                    async with driver_connection(self._engine) as driver:
                        while batch:
                            with self._late_after(LATE_SECONDS):
                                answers = await self._flush(driver, _items(batch), is_repeated=False)
                            _answer(batch, answers)
                            batch = self._next(answered=len(batch))
                except Exception as error:
                    with self._late_after(0):
                        await self._answer_after(error, batch)
        finally:
            # There was no await since the queue was seen empty, so a later call always starts a new worker.
            self._workers -= 1
            for call in batch:
                call.answer.cancel()

    def _next(self, answered: int = 0) -> list[_Call[Item, Answer]]:
        """Take as many calls as one transaction should hold. A large item goes alone, so that no other waits for it."""
        batch: list[_Call[Item, Answer]] = []
        size_bytes = 0
        size_max = self._size_max
        if self._takes_half:
            size_max = min(size_max, (len(self._waiting) + answered + 1) // 2)
        while self._waiting and len(batch) < size_max:
            size_bytes += self._size_bytes(self._waiting[0].item)
            if batch and size_bytes > BATCH_BYTES_MAX:
                break
            call = self._waiting.popleft()
            if not self._is_dropped(call):
                batch.append(call)
        return batch

    def _is_dropped(self, call: _Call[Item, Answer]) -> bool:
        return self._drops_abandoned and call.answer.done()

    async def _answer_after(self, error: Exception, batch: Sequence[_Call[Item, Answer]]) -> None:
        is_repeated = isinstance(error, CommitUnknown)
        if is_repeated:
            try:
                _answer(batch, await self._flushed(_items(batch), is_repeated=True))
                return
            except Exception as again:
                error = again
        is_everybodys = isinstance(error, Unavailable) and not is_contention(error)
        if is_everybodys or len(batch) == 1:
            _answer(batch, [_said(error, is_repeated=is_repeated) for _ in batch])
            return
        # One item is poisoned or waits for a lock. Flushed alone it fails alone, and no other waits for it.
        turns = asyncio.Semaphore(ALONE_AT_ONCE_MAX)

        async def alone(call: _Call[Item, Answer]) -> None:
            async with turns:
                if self._is_dropped(call):
                    return
                try:
                    answers = await self._flushed([call.item], is_repeated=is_repeated)
                except Exception as its_own:
                    answers = [_said(its_own, is_repeated=is_repeated)]
                _answer([call], answers)

        await asyncio.gather(*(alone(call) for call in batch))

    async def _flushed(self, items: Sequence[Item], *, is_repeated: bool) -> Sequence[Answer | Exception]:
        async with driver_connection(self._engine) as driver:
            return await self._flush(driver, items, is_repeated=is_repeated)


def _said(error: Exception, *, is_repeated: bool) -> Exception:
    """What a caller hears: if the first try may have been committed, a second one that did nothing proves nothing."""
    if not isinstance(error, Unavailable):
        return error
    return CommitUnknown() if is_repeated else anew(error)


def _items(batch: Sequence[_Call[Item, Answer]]) -> list[Item]:
    return [call.item for call in batch]


def _answer(batch: Sequence[_Call[Item, Answer]], answers: Sequence[Answer | Exception]) -> None:
    for call, answer in zip(batch, answers, strict=True):
        # The future of a caller that went away is cancelled.
        if call.answer.done():
            continue
        if isinstance(answer, Exception):
            call.answer.set_exception(answer)
        else:
            call.answer.set_result(answer)
