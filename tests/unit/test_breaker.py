import pytest

from app.application.execution.breaker import FAILURES_MAX, PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN, Breaker
from tests.unit.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def opened(breaker: Breaker) -> Breaker:
    breaker.record_failure("fal refused the key", at_once=True)
    return breaker


def test_lets_submissions_pass_while_fal_answers(breaker: Breaker) -> None:
    for _ in range(FAILURES_MAX - 1):
        breaker.record_failure("no connection")
    breaker.record_success()
    for _ in range(FAILURES_MAX - 1):
        breaker.record_failure("no connection")

    assert breaker.wait_seconds() == 0
    assert breaker.reason is None


def test_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    for _ in range(FAILURES_MAX):
        breaker.record_failure("no connection")

    assert breaker.wait_seconds() == PAUSE_SECONDS_MIN
    assert breaker.reason == "no connection"


def test_opens_at_once_for_a_refused_key(breaker: Breaker) -> None:
    assert opened(breaker).wait_seconds() == PAUSE_SECONDS_MIN


def test_lets_one_submission_try_in_each_pause(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.seconds += PAUSE_SECONDS_MIN

    assert [breaker.wait_seconds() for _ in range(3)] == [0, PAUSE_SECONDS_MIN, PAUSE_SECONDS_MIN]


def test_pauses_longer_after_each_try_that_fails_up_to_a_limit(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    pauses = []
    for _ in range(5):
        clock.seconds += PAUSE_SECONDS_MAX
        assert breaker.wait_seconds() == 0
        breaker.record_failure("no connection")
        pauses.append(breaker.wait_seconds())

    assert pauses == [20, 40, PAUSE_SECONDS_MAX, PAUSE_SECONDS_MAX, PAUSE_SECONDS_MAX]


def test_closes_when_fal_answers_again(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.seconds += PAUSE_SECONDS_MIN
    breaker.wait_seconds()

    breaker.record_success()

    assert breaker.reason is None
    assert [breaker.wait_seconds() for _ in range(3)] == [0, 0, 0]


async def test_says_why_it_is_open_and_leaves_the_service_ready(breaker: Breaker) -> None:
    check = await opened(breaker).check()

    assert check.ok
    assert "fal refused the key" in check.detail
