import asyncio
from statistics import mean
from typing import cast

import pytest

from app.application.backstop import COUNT_SECONDS, LOOKS_PER_SECOND_MAX, Backstop
from app.application.ports import Jobs

SPREAD = 0.101


class CountedJobs:
    def __init__(self) -> None:
        self.unfinished = 0
        self.counts = 0

    async def count_unfinished(self) -> int:
        self.counts += 1
        return self.unfinished


class Stage:
    def __init__(self) -> None:
        self.jobs = CountedJobs()
        self.now_seconds = 0.0
        self.backstop = Backstop(cast(Jobs, self.jobs), lambda: self.now_seconds)

    def count(self) -> None:
        asyncio.run(self.backstop.count_jobs())


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize(("age_seconds", "expected"), [(0, 5), (3, 5), (40, 40), (119, 119), (10**6, 120)])
def test_looks_after_as_long_again_as_the_job_has_taken(stage: Stage, age_seconds: float, expected: float) -> None:
    stage.jobs.unfinished = 100
    stage.count()

    assert stage.backstop.seconds_to_look(age_seconds) == pytest.approx(expected, rel=SPREAD)


@pytest.mark.parametrize("age_seconds", [0, 40, 10**6])
def test_looks_at_all_jobs_together_no_more_often_than_that(stage: Stage, age_seconds: float) -> None:
    stage.jobs.unfinished = 20_000
    stage.count()

    seconds = [stage.backstop.seconds_to_look(age_seconds) for _ in range(2_000)]

    assert 20_000 / mean(seconds) == pytest.approx(LOOKS_PER_SECOND_MAX, rel=0.1)


@pytest.mark.parametrize(("unfinished", "spread_seconds"), [(0, 15), (20_000, 350)])
def test_spreads_the_looks_at_many_jobs(stage: Stage, unfinished: int, spread_seconds: float) -> None:
    stage.jobs.unfinished = unfinished
    stage.count()

    seconds = [stage.backstop.seconds_to_look(100) for _ in range(200)]

    assert max(seconds) - min(seconds) > spread_seconds


def test_counts_the_jobs_now_and_then(stage: Stage) -> None:
    for _ in range(5):
        stage.count()
    assert stage.jobs.counts == 1

    stage.now_seconds += COUNT_SECONDS
    stage.jobs.unfinished = 20_000
    for _ in range(5):
        stage.count()

    assert stage.jobs.counts == 2
    assert stage.backstop.seconds_to_look(0) > 150
