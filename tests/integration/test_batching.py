"""Natural batching: who goes alone, who goes together, and whose failure is whose."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Sequence
from contextlib import suppress

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import CommitUnknown, DatabaseUnavailable, InsufficientBalance, Overloaded
from app.infrastructure.postgres import batching
from app.infrastructure.postgres.batching import BATCH_BYTES_MAX, BATCH_SIZE_MAX, FLUSHES_MAX, LATE_SECONDS, Batcher
from app.infrastructure.postgres.database import DriverConnection
from tests.builders import connect, open_account, until


class Flush:
    """Doubles numbers, notes its batches, and waits for the gate. 0 has an answer of its own; -1 is poison."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.at_work = 0
        self.at_work_max = 0

    async def __call__(
        self, driver: DriverConnection, items: Sequence[int], *, is_repeated: bool
    ) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        self.at_work += 1
        self.at_work_max = max(self.at_work, self.at_work_max)
        await self.gate.wait()
        self.at_work -= 1
        if -1 in items:
            raise ValueError("poison")
        return [InsufficientBalance(required_tokens=5, balance_tokens=0) if item == 0 else item * 2 for item in items]


@pytest.fixture
def flush() -> Flush:
    return Flush()


async def gathered(engine: AsyncEngine, flush: Flush, items: Sequence[int]) -> list[int | BaseException]:
    """All items while the first flushes are held; then the gate opens."""
    batcher = Batcher(engine, flush)
    calls = [asyncio.create_task(batcher(item)) for item in items]
    await asyncio.sleep(0.05)
    flush.gate.set()
    return await asyncio.gather(*calls, return_exceptions=True)


async def under_way(flush: Flush, count: int = 1) -> None:
    """So many have begun. The first one opens a connection before that, which takes a moment."""

    async def have_begun() -> bool:
        return len(flush.batches) >= count

    await until(have_begun, seconds=20)


async def all_flushes(batcher: Batcher[int, int], flush: Flush) -> list[asyncio.Task[int]]:
    """Under way, with the items 1, 2, ..., each alone, until the gate opens."""
    calls = []
    for item in range(FLUSHES_MAX):
        calls.append(asyncio.create_task(batcher(item + 1)))
        await under_way(flush, item + 1)
    return calls


async def test_a_lone_call_goes_at_once_and_alone(engine: AsyncEngine, flush: Flush) -> None:
    flush.gate.set()
    batcher = Batcher(engine, flush)

    assert [await batcher(1), await batcher(2)] == [2, 4]
    assert flush.batches == [[1], [2]]


async def test_calls_gather_while_the_flushes_are_under_way_and_go_together(engine: AsyncEngine, flush: Flush) -> None:
    batcher = Batcher(engine, flush)
    first = await all_flushes(batcher, flush)
    later = [asyncio.create_task(batcher(item)) for item in range(10, 30)]
    await asyncio.sleep(0.05)
    flush.gate.set()

    assert await asyncio.gather(*first, *later) == [(item + 1) * 2 for item in range(FLUSHES_MAX)] + [
        item * 2 for item in range(10, 30)
    ]
    assert flush.batches == [[item + 1] for item in range(FLUSHES_MAX)] + [list(range(10, 30))]
    assert flush.at_work_max == FLUSHES_MAX


async def test_calls_wait_for_a_flush_that_is_in_time_and_go_together(
    engine: AsyncEngine, flush: Flush, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "LATE_SECONDS", 5)
    batcher = Batcher(engine, flush)
    calls = []
    for item in (1, 2, 3):
        calls.append(asyncio.create_task(batcher(item)))
        await under_way(flush)
        await asyncio.sleep(0.02)
    flush.gate.set()

    assert await asyncio.gather(*calls) == [2, 4, 6]
    assert flush.batches == [[1], [2, 3]]
    assert flush.at_work_max == 1


async def test_half_of_those_who_are_around_wait_for_the_next_batch(
    engine: AsyncEngine, flush: Flush, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "LATE_SECONDS", 5)
    batcher = Batcher(engine, flush, takes_half=True)
    first = asyncio.create_task(batcher(1))
    await under_way(flush)
    others = [asyncio.create_task(batcher(item)) for item in range(2, 9)]
    await asyncio.sleep(0.02)
    flush.gate.set()

    assert await asyncio.gather(first, *others) == [2 * item for item in range(1, 9)]
    assert flush.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]
    assert flush.at_work_max == 1


@pytest.mark.alone
async def test_a_flush_that_is_late_holds_nobody_up(engine: AsyncEngine) -> None:
    held, batches = asyncio.Event(), []

    async def flush(driver: DriverConnection, items: Sequence[int], *, is_repeated: bool) -> Sequence[int]:
        batches.append(list(items))
        if 1 in items:
            await held.wait()
        return items

    batcher: Batcher[int, int] = Batcher(engine, flush)
    late = asyncio.create_task(batcher(1))
    await asyncio.sleep(LATE_SECONDS / 5)
    # Nobody comes after these two.
    async with asyncio.timeout(10 * LATE_SECONDS):
        waiting = list(await asyncio.gather(batcher(2), batcher(3)))
    # Whoever helped out has gone again.
    await asyncio.sleep(LATE_SECONDS)
    async with asyncio.timeout(10 * LATE_SECONDS):
        later = await batcher(4)
    held.set()

    assert (waiting, later, await late) == ([2, 3], 4, 1)
    assert batches == [[1], [2, 3], [4]]


@pytest.mark.alone
async def test_a_batch_that_is_taken_apart_holds_nobody_up(engine: AsyncEngine) -> None:
    held = asyncio.Event()

    async def flush(driver: DriverConnection, items: Sequence[int], *, is_repeated: bool) -> Sequence[int]:
        if len(items) > 1 and 1 in items:
            raise ValueError("poison")
        if items[0] == 1:
            await held.wait()
        return items

    batcher: Batcher[int, int] = Batcher(engine, flush)
    apart = asyncio.gather(batcher(1), batcher(2))
    await asyncio.sleep(LATE_SECONDS)
    async with asyncio.timeout(10 * LATE_SECONDS):
        later = await batcher(3)
    held.set()

    assert (later, list(await apart)) == (3, [1, 2])


async def test_a_batch_is_bounded(engine: AsyncEngine, flush: Flush) -> None:
    answers = await gathered(engine, flush, range(1, 3 * BATCH_SIZE_MAX))

    assert answers == [item * 2 for item in range(1, 3 * BATCH_SIZE_MAX)]
    assert max(map(len, flush.batches)) <= BATCH_SIZE_MAX
    assert sorted(itertools.chain(*flush.batches)) == list(range(1, 3 * BATCH_SIZE_MAX))


async def test_no_call_is_forgotten_however_it_meets_the_end_of_a_worker(engine: AsyncEngine, flush: Flush) -> None:
    flush.gate.set()
    batcher = Batcher(engine, flush, flushes_max=1)

    async def call(turns_max: int) -> None:
        for item in range(1, 150):
            for _ in range(item % turns_max):
                await asyncio.sleep(0)
            assert await batcher(item) == item * 2

    async with asyncio.timeout(30):
        await asyncio.gather(*(call(turns_max) for turns_max in range(1, 12)))


async def test_an_exception_among_the_answers_is_that_of_its_item_alone(engine: AsyncEngine, flush: Flush) -> None:
    answers = await gathered(engine, flush, [1, 0, 3])

    assert [answers[0], answers[2]] == [2, 6]
    assert isinstance(answers[1], InsufficientBalance)


async def test_a_poisoned_item_fails_alone(engine: AsyncEngine, flush: Flush) -> None:
    answers = await gathered(engine, flush, [1, -1, 3, 4])

    assert [answers[0], answers[2], answers[3]] == [2, 6, 8]
    assert isinstance(answers[1], ValueError)
    assert sorted(flush.batches[-4:]) == [[-1], [1], [3], [4]]


async def test_an_outage_is_the_answer_to_all_and_is_asked_once(engine: AsyncEngine) -> None:
    batches = []

    async def unavailable(
        driver: DriverConnection, items: Sequence[int], *, is_repeated: bool
    ) -> Sequence[int | Exception]:
        batches.append(list(items))
        raise DatabaseUnavailable

    batcher: Batcher[int, int] = Batcher(engine, unavailable)
    answers = await asyncio.gather(*(batcher(item) for item in range(5)), return_exceptions=True)

    assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 5
    assert list(itertools.chain(*batches)) == list(range(5))


async def test_refuses_what_would_wait_too_long(
    engine: AsyncEngine, flush: Flush, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "WAITING_MAX", 3)
    batcher = Batcher(engine, flush)
    first = await all_flushes(batcher, flush)
    waiting = [asyncio.create_task(batcher(item)) for item in (11, 12, 13)]
    await asyncio.sleep(0.05)

    with pytest.raises(Overloaded):
        await batcher(14)
    flush.gate.set()
    assert await asyncio.gather(*waiting) == [22, 24, 26]
    await asyncio.gather(*first)


async def test_a_caller_that_goes_away_changes_nothing_for_the_others(engine: AsyncEngine, flush: Flush) -> None:
    batcher = Batcher(engine, flush)
    calls = [asyncio.create_task(batcher(item)) for item in (1, 2, 3)]
    await asyncio.sleep(0.05)
    calls[1].cancel()
    flush.gate.set()

    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answers[0], answers[2]] == [2, 6]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert await batcher(4) == 8


@pytest.mark.parametrize("drops_abandoned", [True, False])
async def test_an_item_whose_caller_has_gone_away_is_sent_only_where_it_is_worth_something(
    engine: AsyncEngine, flush: Flush, *, drops_abandoned: bool
) -> None:
    batcher = Batcher(engine, flush, flushes_max=1, drops_abandoned=drops_abandoned)
    first = asyncio.create_task(batcher(1))
    await under_way(flush)
    stays, goes = [asyncio.create_task(batcher(item)) for item in (2, 3)]
    await asyncio.sleep(0.05)
    goes.cancel()
    await asyncio.sleep(0.05)
    flush.gate.set()

    assert (await first, await stays) == (2, 4)
    assert flush.batches == [[1], [2] if drops_abandoned else [2, 3]]


async def test_an_item_whose_caller_has_gone_away_is_not_tried_alone_after_its_batch_failed(
    engine: AsyncEngine, flush: Flush
) -> None:
    batcher = Batcher(engine, flush, flushes_max=1, drops_abandoned=True)
    poison, goes, stays = [asyncio.create_task(batcher(item)) for item in (-1, 2, 3)]
    await under_way(flush)
    goes.cancel()
    await asyncio.sleep(0.05)
    flush.gate.set()

    assert await stays == 6
    with pytest.raises(ValueError, match="poison"):
        await poison
    assert sorted(flush.batches) == [[-1], [-1, 2, 3], [3]]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_lost_answer_to_the_commit_is_asked_for_once_more(engine: AsyncEngine, times: int) -> None:
    tries: list[tuple[list[int], bool]] = []

    async def flush(driver: DriverConnection, items: Sequence[int], *, is_repeated: bool) -> Sequence[int | Exception]:
        tries.append((list(items), is_repeated))
        if len(tries) <= times:
            raise CommitUnknown
        return items

    batcher: Batcher[int, int] = Batcher(engine, flush, flushes_max=1)
    answers = await asyncio.gather(*(batcher(item) for item in (1, 2)), return_exceptions=True)

    assert tries == [([1, 2], False), ([1, 2], True)]
    assert answers == [1, 2] if times == 1 else [type(answer) for answer in answers] == [CommitUnknown] * 2


async def test_a_poisoned_item_fails_alone_also_where_the_first_try_may_have_been_committed(
    engine: AsyncEngine,
) -> None:
    tries: list[tuple[list[int], bool]] = []

    async def flush(driver: DriverConnection, items: Sequence[int], *, is_repeated: bool) -> Sequence[int | Exception]:
        tries.append((list(items), is_repeated))
        if not is_repeated:
            raise CommitUnknown
        if -1 in items:
            raise ValueError("poison")
        if items == [2]:
            raise DatabaseUnavailable
        return items

    batcher: Batcher[int, int] = Batcher(engine, flush, flushes_max=1)
    answers = await asyncio.gather(*(batcher(item) for item in (1, -1, 2)), return_exceptions=True)

    assert tries[:2] == [([1, -1, 2], False), ([1, -1, 2], True)]
    assert sorted(tries[2:]) == [([-1], True), ([1], True), ([2], True)]
    assert answers[0] == 1
    assert [type(answer) for answer in answers[1:]] == [ValueError, CommitUnknown]


async def test_a_lock_that_holds_up_a_repeat_leaves_its_outcome_unknown(engine: AsyncEngine, database: str) -> None:
    customer = await open_account(engine, 100)

    async def flush(driver: DriverConnection, items: Sequence[int], *, is_repeated: bool) -> Sequence[int | Exception]:
        if not is_repeated:
            raise CommitUnknown
        await driver.execute("SET lock_timeout = '200ms'")
        if 2 in items:
            await driver.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", customer.account_id)
        return items

    batcher: Batcher[int, int] = Batcher(engine, flush, flushes_max=1)
    async with connect(database) as sql, sql.transaction():
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", customer.account_id)
        answers = await asyncio.gather(*(batcher(item) for item in (1, 2)), return_exceptions=True)

    assert [answers[0], type(answers[1])] == [1, CommitUnknown]


async def test_a_failed_flush_gives_its_connection_up_and_the_next_one_works(engine: AsyncEngine) -> None:
    pids = []

    async def flush(driver: DriverConnection, items: Sequence[int], *, is_repeated: bool) -> Sequence[int | Exception]:
        pids.append(await driver.fetchval("SELECT pg_backend_pid()"))
        if items == [-1]:
            await driver.execute("SELECT 1/0")
        return items

    batcher: Batcher[int, int] = Batcher(engine, flush)
    assert await batcher(1) == 1
    with pytest.raises(Exception, match="division by zero"):
        await batcher(-1)
    assert await batcher(2) == 2
    assert pids[0] == pids[1] != pids[2]


async def test_a_large_item_goes_alone_and_holds_up_nobody_elses_batch(engine: AsyncEngine, flush: Flush) -> None:
    flush.gate.set()
    batcher = Batcher(engine, flush, flushes_max=1, size_bytes=lambda item: BATCH_BYTES_MAX if item >= 100 else 1)

    await asyncio.gather(*(batcher(item) for item in (1, 2, 100, 101, 3, 4)))

    assert flush.batches == [[1, 2], [100], [101], [3, 4]]


async def test_a_lock_that_one_waits_for_is_nobody_elses_outage(engine: AsyncEngine, database: str) -> None:
    customers = [await open_account(engine, 100) for _ in range(3)]

    async def flush(driver: DriverConnection, items: Sequence[int], *, is_repeated: bool) -> Sequence[int | Exception]:
        await driver.execute("SET lock_timeout = '200ms'")
        for item in items:
            await driver.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", customers[item].account_id)
        return items

    batcher: Batcher[int, int] = Batcher(engine, flush, flushes_max=1)
    async with connect(database) as sql, sql.transaction():
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR UPDATE", customers[1].account_id)
        answers = await asyncio.gather(*(batcher(item) for item in range(3)), return_exceptions=True)

    assert [answers[0], type(answers[1]), answers[2]] == [0, DatabaseUnavailable, 2]


async def test_a_worker_that_is_cancelled_leaves_nobody_waiting_and_a_free_place(
    engine: AsyncEngine, flush: Flush
) -> None:
    batcher = Batcher(engine, flush, flushes_max=1)
    call = asyncio.create_task(batcher(1))
    await asyncio.sleep(0.05)
    for task in batcher._tasks:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    flush.gate.set()
    assert await batcher(2) == 4


@pytest.mark.parametrize("is_answered", [True, False], ids=["an answer of its own", "a failed flush"])
async def test_what_failed_is_in_no_circle(engine: AsyncEngine, is_answered: bool) -> None:
    """An item may be large, and the collector walks seldom."""

    class Large:
        pass

    async def fail(driver: DriverConnection, items: Sequence[Large], *, is_repeated: bool) -> Sequence[Exception]:
        if is_answered:
            return [InsufficientBalance(required_tokens=5, balance_tokens=0) for _ in items]
        raise ValueError("poison")

    batcher: Batcher[Large, None] = Batcher(engine, fail)
    item = Large()
    seen = weakref.ref(item)
    gc.disable()
    try:
        with suppress(InsufficientBalance, ValueError):
            await batcher(item)
        del item
        await until(lambda: asyncio.sleep(0, seen() is None), seconds=20)
    finally:
        gc.enable()
