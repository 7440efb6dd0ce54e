from itertools import pairwise
from uuid import uuid4

from app.application.execution.pacing import (
    ACCOUNTS_SPREAD_SECONDS_MAX,
    CROWD_STEPS_MIN,
    CROWD_STEPS_PER_SECOND,
    WAITING_STEPS_PER_SECOND,
    Spread,
)
from tests.unit.clock import Clock

A, B = uuid4(), uuid4()


def test_the_steps_of_one_account_come_back_one_after_the_other() -> None:
    spread = Spread(Clock())

    delays = sorted(spread.delay_seconds(A, 10) for _ in range(1000))

    assert delays[0] >= 10
    for first, later in zip(delays, delays[WAITING_STEPS_PER_SECOND + 2 :], strict=False):
        assert later - first >= 0.9


def test_no_account_waits_for_the_steps_of_another_one() -> None:
    spread = Spread(Clock())
    for _ in range(10_000):
        spread.delay_seconds(A, 10)

    assert 1 <= spread.delay_seconds(B, 1) < 1.1


def test_steps_that_all_wait_for_the_same_moment_do_not_come_together() -> None:
    """They come one after the other, and each learns that the pause ends then."""
    clock = Clock()
    spread, ends_at = Spread(clock), clock.seconds + 10
    come_back_at = []
    for _ in range(100):
        come_back_at.append(clock.seconds + spread.delay_seconds(A, ends_at - clock.seconds))
        clock.seconds += 1 / WAITING_STEPS_PER_SECOND

    assert min(come_back_at) >= ends_at
    assert all(later - earlier >= 0.9 / WAITING_STEPS_PER_SECOND for earlier, later in pairwise(come_back_at))


def test_a_step_that_comes_alone_waits_no_longer_than_it_has_to() -> None:
    clock = Clock()
    spread = Spread(clock)
    spread.delay_seconds(A, 1)
    clock.seconds += 2

    assert 0.5 <= spread.delay_seconds(A, 0.5) < 0.6


def test_many_steps_in_a_short_time_are_a_crowd_until_they_are_put_off() -> None:
    clock = Clock()
    spread = Spread(clock)
    for _ in range(100):
        spread.delay_seconds(A, 10)
        clock.seconds += 1 / CROWD_STEPS_PER_SECOND
    in_turn = spread.is_crowded(A)
    for _ in range(CROWD_STEPS_MIN + 1):
        spread.delay_seconds(A, 10)
    are_many = spread.is_crowded(A)
    spread.add_crowd(A, 1000)

    assert (in_turn, are_many, spread.is_crowded(A), spread.is_crowded(B)) == (False, True, False, False)


def test_those_that_were_put_off_come_before_the_next() -> None:
    spread = Spread(Clock())
    first = spread.delay_seconds(A, 10)
    spread.add_crowd(A, 1000)

    assert spread.delay_seconds(A, 10) >= first + 1000 / WAITING_STEPS_PER_SECOND


def test_the_first_steps_of_many_accounts_are_spread_over_some_seconds() -> None:
    spread = Spread(Clock())

    delays = [spread.delay_seconds(uuid4(), 10) for _ in range(5000)]

    assert min(delays) >= 10
    assert 10 + ACCOUNTS_SPREAD_SECONDS_MAX * 0.9 <= max(delays) <= 10 + ACCOUNTS_SPREAD_SECONDS_MAX


def test_forgets_accounts_whose_steps_have_come_back() -> None:
    clock = Clock()
    spread = Spread(clock)
    for _ in range(5000):
        spread.delay_seconds(uuid4(), 10)
    clock.seconds += 25
    spread.delay_seconds(A, 10)

    assert len(spread._next_at) == len(spread._sent_back) == 1
