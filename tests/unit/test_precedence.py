"""When accepts come in a rush, by a clock that a test turns."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from uuid import uuid4

import pytest

from app.application.execution.precedence import (
    BUSY_SECONDS,
    BUSY_SHARE,
    MANY_ACCEPTS,
    MEAN_OF,
    RUSH_SECONDS,
    CountedAcceptance,
    Precedence,
)
from app.application.jobs import StartJob, TimeLimits, Wish
from app.application.ports.jobs import JobAcceptance
from app.application.ports.quotes import Quotes
from app.domain.errors import InsufficientBalance
from app.domain.kinds import GenerationKind
from app.domain.orders import Accepted
from tests.builders import BUILT_IN
from tests.unit.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def processor() -> Clock:
    return Clock()


@pytest.fixture
def precedence(clock: Clock, processor: Clock) -> Precedence:
    return Precedence(clock, processor)


def look(precedence: Precedence, clock: Clock, processor: Clock, *, used_share: float) -> None:
    """Time goes by, and the process is looked at."""
    clock.seconds += BUSY_SECONDS
    processor.seconds += BUSY_SECONDS * used_share
    with precedence.accepting():
        pass


@pytest.fixture
def busy(precedence: Precedence, clock: Clock, processor: Clock) -> Precedence:
    look(precedence, clock, processor, used_share=1)
    return precedence


@contextmanager
def accepts(precedence: Precedence, count: int) -> Iterator[None]:
    """So many under way, and for each that goes another one has come, often enough for the mean."""
    with ExitStack() as stack:
        under_way = deque(stack.enter_context(ExitStack()) for _ in range(count))
        for accept in under_way:
            accept.enter_context(precedence.accepting())
        for _ in range(10 * MEAN_OF):
            accept = under_way.popleft()
            accept.close()
            accept.enter_context(precedence.accepting())
            under_way.append(accept)
        yield


def test_without_accepts_there_is_no_rush(busy: Precedence) -> None:
    assert not busy.is_rush


@pytest.mark.parametrize(
    ("count", "is_rush"), [(1, False), (MANY_ACCEPTS, False), (MANY_ACCEPTS + 1, True), (64, True)]
)
def test_a_rush_is_many_accepts_at_a_time(busy: Precedence, count: int, *, is_rush: bool) -> None:
    with accepts(busy, count):
        assert busy.is_rush == is_rush


@pytest.mark.parametrize(
    ("used_share", "is_rush"), [(0, False), (BUSY_SHARE - 0.01, False), (BUSY_SHARE + 0.01, True), (2, True)]
)
def test_a_rush_is_in_a_busy_process(
    precedence: Precedence, clock: Clock, processor: Clock, used_share: float, *, is_rush: bool
) -> None:
    """Many accepts that wait for a slow disk leave the processor to the jobs."""
    look(precedence, clock, processor, used_share=used_share)
    with accepts(precedence, 64):
        assert precedence.is_rush == is_rush


def test_a_rush_is_over_when_the_process_is_not_busy_any_more(busy: Precedence, clock: Clock, processor: Clock) -> None:
    with accepts(busy, 64):
        assert busy.is_rush
        look(busy, clock, processor, used_share=0)
        assert not busy.is_rush


def test_an_earlier_time_without_work_does_not_hide_that_the_process_is_busy(
    precedence: Precedence, clock: Clock, processor: Clock
) -> None:
    clock.seconds += 3600
    look(precedence, clock, processor, used_share=1)
    look(precedence, clock, processor, used_share=1)
    with accepts(precedence, 64):
        assert precedence.is_rush


def test_some_that_happen_to_meet_are_no_rush(busy: Precedence) -> None:
    for _ in range(MEAN_OF):
        with ExitStack() as meeting:
            for _ in range(MANY_ACCEPTS + 1):
                meeting.enter_context(busy.accepting())
                assert not busy.is_rush


def test_a_rush_lasts_a_moment_longer_than_the_accepts(busy: Precedence, clock: Clock) -> None:
    seen = []
    with accepts(busy, 2 * MANY_ACCEPTS):
        pass
    for later_seconds in (RUSH_SECONDS * 0.9, RUSH_SECONDS * 0.2):
        clock.seconds += later_seconds
        seen.append(busy.is_rush)

    assert seen == [True, False]


async def test_what_is_being_accepted_counts_and_what_was_refused_does_not(busy: Precedence) -> None:
    may_end = asyncio.Event()

    class SlowJobs:
        async def accept(self, *_: Any) -> Accepted:
            await may_end.wait()
            raise InsufficientBalance(required_tokens=5, balance_tokens=0)

    start = StartJob(CountedAcceptance(cast(JobAcceptance, SlowJobs()), busy), cast(Quotes, None), TimeLimits())
    wish = Wish(model=BUILT_IN.default_of(GenerationKind.TEXT_TO_IMAGE), parameters={"prompt": "a fox"})
    asked = [asyncio.create_task(start(uuid4(), wish)) for _ in range(3 * MANY_ACCEPTS)]
    await asyncio.sleep(0)
    assert busy.is_rush
    may_end.set()
    await asyncio.gather(*asked, return_exceptions=True)

    assert busy._accepts == 0
