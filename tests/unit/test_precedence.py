"""When accepts come in a rush, by a clock that a test turns."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from uuid import uuid4

import pytest

from app.application.generations import StartGeneration, TimeLimits
from app.application.ports import Accepted, Jobs
from app.application.precedence import MANY_ACCEPTS, MEAN_OF, RUSH_SECONDS, Precedence
from app.domain.catalogue import GenerationKind, PriceList
from app.domain.errors import InsufficientBalance
from tests.unit.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def precedence(clock: Clock) -> Precedence:
    return Precedence(clock)


@contextmanager
def accepts(precedence: Precedence, count: int) -> Iterator[None]:
    """So many under way, and for each that goes another one has come, often enough for the mean."""
    with ExitStack() as stack:
        under_way = deque(stack.enter_context(ExitStack()) for _ in range(count))
        for accept in under_way:
            accept.enter_context(precedence.accepting())
        for _ in range(10 * MEAN_OF * bool(under_way)):
            accept = under_way.popleft()
            accept.close()
            accept.enter_context(precedence.accepting())
            under_way.append(accept)
        yield


@pytest.mark.parametrize(
    ("count", "is_rush"), [(0, False), (1, False), (MANY_ACCEPTS, False), (MANY_ACCEPTS + 1, True), (64, True)]
)
def test_a_rush_is_many_accepts_at_a_time(precedence: Precedence, count: int, *, is_rush: bool) -> None:
    with accepts(precedence, count):
        assert precedence.is_rush == is_rush


def test_some_that_happen_to_meet_are_no_rush(precedence: Precedence) -> None:
    for _ in range(MEAN_OF):
        with ExitStack() as stack:
            for _ in range(MANY_ACCEPTS + 1):
                stack.enter_context(precedence.accepting())
                assert not precedence.is_rush


def test_after_a_rush_single_accepts_are_none(precedence: Precedence, clock: Clock) -> None:
    with accepts(precedence, 64):
        assert precedence.is_rush
    for _ in range(MANY_ACCEPTS):
        with precedence.accepting():
            pass
    clock.seconds += 2 * RUSH_SECONDS
    with precedence.accepting():
        assert not precedence.is_rush


def test_a_rush_lasts_a_moment_longer_than_the_accepts(precedence: Precedence, clock: Clock) -> None:
    seen = []
    with accepts(precedence, 2 * MANY_ACCEPTS):
        pass
    for later_seconds in (RUSH_SECONDS * 0.9, RUSH_SECONDS * 0.2):
        clock.seconds += later_seconds
        seen.append(precedence.is_rush)

    assert seen == [True, False]


async def test_what_is_being_accepted_counts_and_what_was_refused_does_not(precedence: Precedence) -> None:
    may_end = asyncio.Event()

    class SlowJobs:
        async def accept(self, *_: Any) -> Accepted:
            await may_end.wait()
            raise InsufficientBalance

    start = StartGeneration(cast(Jobs, SlowJobs()), PriceList(), TimeLimits(), precedence)
    asked = [
        asyncio.create_task(start(uuid4(), GenerationKind.TEXT_TO_IMAGE, {"prompt": "a fox", "num_images": 1}))
        for _ in range(3 * MANY_ACCEPTS)
    ]
    await asyncio.sleep(0)
    assert precedence.is_rush
    may_end.set()
    await asyncio.gather(*asked, return_exceptions=True)

    assert precedence._accepts == 0
