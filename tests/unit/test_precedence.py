"""When accepts come in a rush, by a clock that a test turns."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast
from uuid import uuid4

import pytest

from app.application.generations import StartGeneration, TimeLimits
from app.application.ports import Accepted, Jobs
from app.application.precedence import MANY_ACCEPTS, RUSH_SECONDS, Precedence
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
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(precedence.accepting())
        yield


@pytest.mark.parametrize(("count", "is_rush"), [(0, False), (MANY_ACCEPTS - 1, False), (MANY_ACCEPTS, True)])
def test_a_rush_is_many_accepts_at_a_time(precedence: Precedence, count: int, *, is_rush: bool) -> None:
    with accepts(precedence, count):
        assert precedence.is_rush == is_rush


def test_accepts_one_after_the_other_are_no_rush(precedence: Precedence) -> None:
    for _ in range(3 * MANY_ACCEPTS):
        with accepts(precedence, 1):
            pass

    assert not precedence.is_rush


def test_a_rush_lasts_a_moment_longer_than_the_accepts(precedence: Precedence, clock: Clock) -> None:
    seen = []
    with accepts(precedence, MANY_ACCEPTS):
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
        for _ in range(MANY_ACCEPTS - 1)
    ]
    await asyncio.sleep(0)
    with precedence.accepting():
        assert precedence.is_rush
    may_end.set()
    await asyncio.gather(*asked, return_exceptions=True)

    assert precedence._accepts == 0
