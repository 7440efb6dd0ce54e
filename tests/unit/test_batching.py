"""Natural batching: who goes alone, who goes together, and whose failure is whose."""

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from app.domain.errors import DatabaseUnavailable, InsufficientBalance, Overloaded
from app.infrastructure.postgres import batching
from app.infrastructure.postgres.batching import BATCH_SIZE_MAX, FLUSHES_MAX, Batcher


class Flush:
    """Doubles numbers, notes its batches, and waits for the gate. 0 has an answer of its own; -1 is poison."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.at_work = 0
        self.at_work_max = 0

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.at_work += 1
        self.at_work_max = max(self.at_work, self.at_work_max)
        await self.gate.wait()
        self.at_work -= 1
        if -1 in items:
            raise ValueError("poison")
        return [InsufficientBalance() if item == 0 else item * 2 for item in items]


@pytest.fixture
def flush() -> Flush:
    return Flush()


async def gathered(flush: Flush, items: Sequence[int]) -> list[int | BaseException]:
    """All items while the first flushes are held; then the gate opens."""
    batcher = Batcher(flush)
    calls = [asyncio.create_task(batcher(item)) for item in items]
    await asyncio.sleep(0.01)
    flush.gate.set()
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_lone_call_goes_at_once_and_alone(flush: Flush) -> None:
    flush.gate.set()
    batcher = Batcher(flush)

    assert [await batcher(1), await batcher(2)] == [2, 4]
    assert flush.batches == [[1], [2]]


async def test_calls_gather_while_the_flushes_are_under_way_and_go_together(flush: Flush) -> None:
    batcher = Batcher(flush)
    first = []
    for item in range(FLUSHES_MAX):
        first.append(asyncio.create_task(batcher(item + 1)))
        await asyncio.sleep(0.001)
    later = [asyncio.create_task(batcher(item)) for item in range(10, 30)]
    await asyncio.sleep(0.001)
    flush.gate.set()

    assert await asyncio.gather(*first, *later) == [(item + 1) * 2 for item in range(FLUSHES_MAX)] + [
        item * 2 for item in range(10, 30)
    ]
    assert flush.batches == [[item + 1] for item in range(FLUSHES_MAX)] + [list(range(10, 30))]
    assert flush.at_work_max == FLUSHES_MAX


async def test_a_batch_is_bounded(flush: Flush) -> None:
    answers = await gathered(flush, range(1, 3 * BATCH_SIZE_MAX))

    assert answers == [item * 2 for item in range(1, 3 * BATCH_SIZE_MAX)]
    assert max(map(len, flush.batches)) <= BATCH_SIZE_MAX
    assert sorted(itertools.chain(*flush.batches)) == list(range(1, 3 * BATCH_SIZE_MAX))


async def test_an_exception_among_the_answers_is_that_of_its_item_alone(flush: Flush) -> None:
    answers = await gathered(flush, [1, 0, 3])

    assert [answers[0], answers[2]] == [2, 6]
    assert isinstance(answers[1], InsufficientBalance)


async def test_a_poisoned_item_fails_alone(flush: Flush) -> None:
    answers = await gathered(flush, [1, -1, 3, 4])

    assert [answers[0], answers[2], answers[3]] == [2, 6, 8]
    assert isinstance(answers[1], ValueError)
    assert flush.batches[-4:] == [[1], [-1], [3], [4]]


async def test_an_outage_is_the_answer_to_all_and_is_asked_once() -> None:
    batches = []

    async def unavailable(items: Sequence[int]) -> Sequence[int | Exception]:
        batches.append(list(items))
        raise DatabaseUnavailable

    batcher: Batcher[int, int] = Batcher(unavailable)
    answers = await asyncio.gather(*(batcher(item) for item in range(5)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 5
    assert list(itertools.chain(*batches)) == list(range(5))


async def test_refuses_what_would_wait_too_long(flush: Flush, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAITING_MAX", 3)
    batcher = Batcher(flush)
    under_way = []
    for item in range(FLUSHES_MAX):
        under_way.append(asyncio.create_task(batcher(item + 1)))
        await asyncio.sleep(0.001)
    waiting = [asyncio.create_task(batcher(item)) for item in (11, 12, 13)]
    await asyncio.sleep(0.001)

    with pytest.raises(Overloaded):
        await batcher(14)
    flush.gate.set()
    assert await asyncio.gather(*waiting) == [22, 24, 26]
    await asyncio.gather(*under_way)


async def test_a_caller_that_goes_away_changes_nothing_for_the_others(flush: Flush) -> None:
    batcher = Batcher(flush)
    calls = [asyncio.create_task(batcher(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0.01)
    calls[1].cancel()
    flush.gate.set()

    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answers[0], answers[2]] == [2, 6]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert await batcher(4) == 8
