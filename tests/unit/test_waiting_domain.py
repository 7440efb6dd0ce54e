"""Why a job waits, how many stand before it, and when it may end: the rules alone."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.jobs import Job, JobStatus, WaitingFor
from app.domain.waiting import (
    LONGER_RUNS_MIN,
    NO_WAIT,
    NOTHING_TO_SAY,
    RUNS_MIN,
    Outlook,
    Pace,
    Queue,
    QueueHistory,
    QueueSpeed,
    Window,
    outlook,
    places_per_second,
)
from tests.unit.presentation_stand_ins import NOW, a_job

SEEN_AT = NOW.timestamp()
MODEL = "fal-ai/wan-25-preview/text-to-image"
CLAIMED_AT = datetime(2026, 11, 23, 10, 15, 30, tzinfo=UTC)
HUNDRED = Pace.of([float(second) for second in range(1, 101)])
assert HUNDRED is not None
PACES = {MODEL: HUNDRED}


def job(status: JobStatus, **changes: Any) -> Job:
    return a_job(status=status, model_id=MODEL, **changes)


def queue(*tags: int, at: float = 0.0, **changes: Any) -> Queue:
    return replace(Queue(seen_at_seconds=SEEN_AT + at, tags=tags, virtual_time=0, is_bounded=True), **changes)


@pytest.mark.parametrize(
    ("status", "changes", "waits_for"),
    [
        (JobStatus.QUEUED, {}, WaitingFor.FAIR_SHARE),
        (JobStatus.QUEUED, {"waiting_for": "your_limit"}, WaitingFor.YOUR_LIMIT),
        (JobStatus.QUEUED, {"waiting_for": "provider_locked"}, WaitingFor.PROVIDER_LOCKED),
        (JobStatus.QUEUED, {"waiting_for": "the_moon"}, "the_moon"),
        (JobStatus.QUEUED, {"held_at": CLAIMED_AT}, None),
        (JobStatus.SUBMITTING, {}, WaitingFor.PROVIDER),
        (JobStatus.SUBMITTED, {"waiting_for": "your_limit"}, WaitingFor.PROVIDER),
        (JobStatus.IN_QUEUE, {}, WaitingFor.PROVIDER),
        (JobStatus.IN_PROGRESS, {"waiting_for": "provider"}, None),
        *((status, {"waiting_for": "provider"}, None) for status in JobStatus if status.is_final),
    ],
)
def test_what_a_job_waits_for(status: JobStatus, changes: dict[str, Any], waits_for: str | None) -> None:
    assert job(status, **changes).waits_for == waits_for
    assert outlook(job(status, **changes), None, {}, 0).waiting_for == waits_for


@given(st.lists(st.floats(0.1, 10_000), min_size=RUNS_MIN, max_size=200), st.floats(0, 10_000))
def test_what_is_left_of_a_run_is_what_was_left_of_longer_ones(seconds: list[float], passed: float) -> None:
    pace = Pace.of(seconds)
    assert pace is not None

    left = pace.left(passed)

    longer = [each - passed for each in seconds if each > passed]
    assert (left is None) is (len(longer) < LONGER_RUNS_MIN)
    if left is not None:
        assert min(longer) <= left.from_seconds <= left.to_seconds <= max(longer)
        for share, seconds_left in ((0.5, left.from_seconds), (0.9, left.to_seconds)):
            assert sum(each < seconds_left for each in longer) <= share * len(longer)
            assert sum(each <= seconds_left for each in longer) >= share * len(longer)


def test_too_few_runs_tell_nothing() -> None:
    assert Pace.of([1.0] * (RUNS_MIN - 1)) is None
    assert places_per_second({MODEL: 1, "another": 1}, PACES) is None
    assert places_per_second({}, PACES) is None
    assert places_per_second({MODEL: 101}, PACES) == pytest.approx(2)


def test_the_position_counts_those_with_an_earlier_turn() -> None:
    seen = queue(10, 20, 20, 30)

    assert [seen.position(tag) for tag in (5, 10, 20, 25, 40)] == [0, 0, 1, 3, 4]


def test_a_free_place_is_no_wait_and_without_a_bound_nobody_before_it_is_none() -> None:
    assert QueueSpeed(queue(10, 20, free_places=2)).wait(20) == NO_WAIT
    assert QueueSpeed(queue(10, 20, free_places=1)).wait(20) is None
    assert QueueSpeed(queue(10, is_bounded=False)).wait(10) == NO_WAIT
    assert QueueSpeed(queue(10, 20, is_bounded=False)).wait(20) is None


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50).map(sorted), st.floats(0.01, 10), st.floats(1, 500))
def test_who_stands_further_behind_is_never_told_less(tags: list[int], speed: float, measured: float) -> None:
    seen = QueueSpeed(queue(*tags), None, speed, measured)

    waits = [seen.wait(tag) for tag in tags]

    for before, after in itertools.pairwise(waits):
        assert before is not None
        assert after is not None
        assert before.from_seconds <= after.from_seconds + 1e-9
        assert before.to_seconds <= after.to_seconds + 1e-9
    assert all(wait is not None and 0 <= wait.from_seconds <= wait.to_seconds for wait in waits)


def test_those_who_overtake_are_in_the_speed() -> None:
    """The places take one a second; virtual time goes on as if nine of ten that took their turn came later."""
    history = QueueHistory()
    tags = [1_000_000 * number for number in range(1, 101)]
    history.add(queue(*tags, places_per_second=1.0))

    alone = history.add(queue(*tags, at=100, places_per_second=1.0, virtual_time=100_000_000)).wait(tags[-1] + 10**8)
    overtaken = history.add(queue(*tags, at=200, places_per_second=1.0, virtual_time=110_000_000)).wait(
        tags[-1] + 10**8
    )

    assert alone is not None
    assert overtaken is not None
    assert overtaken.to_seconds > alone.to_seconds


def test_an_empty_queue_forgets_how_it_moved() -> None:
    history = QueueHistory()
    history.add(queue(1, 2, 3, places_per_second=1.0))
    assert history.add(queue(4, at=100, places_per_second=1.0, virtual_time=3)).tags_per_second is not None

    history.add(queue(at=101, virtual_time=4))

    assert history.add(queue(5, at=102, places_per_second=1.0, virtual_time=4)).tags_per_second is None


def test_without_places_the_speed_is_that_of_those_who_stood_there() -> None:
    history = QueueHistory()
    history.add(queue(*range(1, 101), is_bounded=False))

    speed = history.add(queue(*range(51, 101), at=10, virtual_time=50, is_bounded=False))

    assert speed.jobs_per_second == pytest.approx(5)


def test_a_job_that_waits_is_told_its_wait_and_its_run() -> None:
    speed = QueueSpeed(queue(10, 20, free_places=3))

    told = outlook(job(JobStatus.QUEUED, fair_tag=20), speed, PACES, 0)

    assert told == Outlook(WaitingFor.FAIR_SHARE, 1, Window(51, 90))


@pytest.mark.parametrize("waiting_for", ["your_limit", "provider", "provider_locked"])
def test_who_waits_for_anything_else_has_a_position_and_no_end(waiting_for: str) -> None:
    speed = QueueSpeed(queue(10, 20, free_places=3))

    told = outlook(job(JobStatus.QUEUED, fair_tag=20, waiting_for=waiting_for), speed, PACES, 0)

    assert (told.position, told.eta) == (1, None)


def test_a_job_at_fal_is_told_fals_position_and_what_is_left() -> None:
    at_fal = job(JobStatus.IN_QUEUE, provider_position=7, claimed_at=CLAIMED_AT)

    told = outlook(at_fal, None, PACES, CLAIMED_AT.timestamp() + 50)

    assert told == Outlook(WaitingFor.PROVIDER, 7, Window(26, 45))
    running = replace(at_fal, status=JobStatus.IN_PROGRESS)
    assert outlook(running, None, PACES, CLAIMED_AT.timestamp() + 50) == Outlook(None, None, Window(26, 45))


def test_nothing_is_said_of_what_nobody_knows() -> None:
    lost = job(JobStatus.SUBMITTING, claimed_at=CLAIMED_AT, status_reason="no answer")
    longer_than_all = job(JobStatus.IN_PROGRESS, claimed_at=CLAIMED_AT)

    assert outlook(lost, None, PACES, CLAIMED_AT.timestamp()).eta is None
    assert outlook(longer_than_all, None, PACES, CLAIMED_AT.timestamp() + 99).eta is None
    assert outlook(job(JobStatus.COMPLETED), None, PACES, 0) == NOTHING_TO_SAY
    assert outlook(a_job(status="STORING"), None, PACES, 0) == NOTHING_TO_SAY


def test_a_job_that_is_younger_than_the_look_is_told_later() -> None:
    younger = job(JobStatus.QUEUED, fair_tag=20, created_at=NOW + timedelta(seconds=1))

    assert outlook(younger, QueueSpeed(queue(10, free_places=9)), PACES, 0) == Outlook(WaitingFor.FAIR_SHARE)
