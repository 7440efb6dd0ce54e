import asyncio
from statistics import mean
from typing import cast

import pytest

from app.application.execution.pacing import COUNT_SECONDS, LOOKS_PER_SECOND_MAX, Backstop
from app.application.ports.execution import JobUpkeep
from app.domain.errors import DatabaseUnavailable


class CountedJobs:
    def __init__(self) -> None:
        self.waiting_looks = 0
        self.counts = 0
        self.is_away = False

    async def count_waiting_looks(self) -> int:
        self.counts += 1
        if self.is_away:
            raise DatabaseUnavailable
        return self.waiting_looks


class Stage:
    def __init__(self) -> None:
        self.jobs = CountedJobs()
        self.now_seconds = 0.0
        self.backstop = Backstop(cast(JobUpkeep, self.jobs), lambda: self.now_seconds)

    def looks(self, count: int, age_seconds: float) -> list[float]:
        """In how many seconds."""

        async def ask() -> list[float]:
            return [await self.backstop.seconds_to_look(age_seconds) for _ in range(count)]

        return asyncio.run(ask())


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize(("age_seconds", "expected"), [(0, 5), (3, 5), (40, 40), (119, 119), (10**6, 120)])
def test_looks_after_as_long_again_as_the_job_has_taken(stage: Stage, age_seconds: float, expected: float) -> None:
    stage.jobs.waiting_looks = 100

    assert stage.looks(1, age_seconds) == pytest.approx([expected], rel=0.101)


@pytest.mark.parametrize("age_seconds", [0, 40, 10**6])
def test_looks_at_all_jobs_together_no_more_often_than_that(stage: Stage, age_seconds: float) -> None:
    stage.jobs.waiting_looks = 20_000

    seconds = stage.looks(2_000, age_seconds)

    assert 20_000 / mean(seconds) == pytest.approx(LOOKS_PER_SECOND_MAX, rel=0.1)


@pytest.mark.parametrize(("waiting_looks", "spread_seconds"), [(0, 15), (20_000, 350)])
def test_spreads_the_looks_at_many_jobs(stage: Stage, waiting_looks: int, spread_seconds: float) -> None:
    stage.jobs.waiting_looks = waiting_looks

    seconds = stage.looks(200, 100)

    assert max(seconds) - min(seconds) > spread_seconds


def test_counts_the_jobs_now_and_then(stage: Stage) -> None:
    stage.looks(5, 0)
    assert stage.jobs.counts == 1

    stage.now_seconds += COUNT_SECONDS
    stage.jobs.waiting_looks = 20_000
    seconds = stage.looks(5, 0)

    assert stage.jobs.counts == 2
    assert min(seconds) > 150


def test_goes_by_the_count_before_while_the_database_is_away(stage: Stage) -> None:
    stage.jobs.waiting_looks = 20_000
    stage.looks(1, 0)

    stage.now_seconds += COUNT_SECONDS
    stage.jobs.is_away = True

    assert min(stage.looks(5, 0)) > 150
