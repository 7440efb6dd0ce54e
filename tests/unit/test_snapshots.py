"""One query for all who ask within some seconds."""

import asyncio
from dataclasses import dataclass, field

import pytest

from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres import snapshots
from app.infrastructure.postgres.snapshots import Snapshot
from tests.unit.clock import Clock


@dataclass
class Looks:
    count: int = 0
    failure: Exception | None = None
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> int:
        self.count += 1
        await self.may_end.wait()
        if self.failure is not None:
            raise self.failure
        return self.count


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def looks() -> Looks:
    looks = Looks()
    looks.may_end.set()
    return looks


async def test_all_who_ask_together_share_one_look(clock: Clock, looks: Looks) -> None:
    snapshot = Snapshot(looks, seconds_max=2, clock=clock)

    assert await asyncio.gather(*(snapshot.fresh() for _ in range(100))) == [1] * 100
    clock.seconds += 1
    assert await snapshot.fresh() == 1
    assert looks.count == 1


async def test_it_is_taken_anew_while_the_last_one_is_still_good(clock: Clock, looks: Looks) -> None:
    snapshot = Snapshot(looks, seconds_max=2, clock=clock)
    await snapshot.fresh()
    clock.seconds += 1.8

    assert await snapshot.fresh() == 1
    await asyncio.sleep(0)

    assert await snapshot.fresh() == 2


async def test_it_is_never_older_than_that(clock: Clock, looks: Looks) -> None:
    snapshot = Snapshot(looks, seconds_max=2, clock=clock)
    await snapshot.fresh()
    clock.seconds += 3

    assert await snapshot.fresh() == 2


async def test_without_an_answer_nothing_is_told_and_nobody_waits_twice(
    clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "WAIT_SECONDS_MAX", 0.01)
    snapshot = Snapshot(looks, seconds_max=2, clock=clock)
    await snapshot.fresh()
    looks.failure = DatabaseUnavailable()
    clock.seconds += 3

    assert [await snapshot.fresh() for _ in range(10)] == [None] * 10

    assert looks.count == 2
    assert snapshot.last == 1


async def test_a_look_that_hangs_is_not_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "WAIT_SECONDS_MAX", 0.01)
    looks = Looks()

    assert await Snapshot(looks, seconds_max=2, clock=clock).fresh() is None
    assert looks.count == 1
