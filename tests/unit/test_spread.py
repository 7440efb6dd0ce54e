from uuid import uuid4

from app.application.execution.pacing import ACCOUNTS_SPREAD_SECONDS_MAX, WAITING_STEPS_PER_SECOND, Spread
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


def test_a_step_that_comes_alone_waits_no_longer_than_it_has_to() -> None:
    clock = Clock()
    spread = Spread(clock)
    spread.delay_seconds(A, 60)
    clock.seconds += 1

    assert 0.5 <= spread.delay_seconds(A, 0.5) < 0.6


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
    clock.seconds += 5
    spread.delay_seconds(A, 10)

    assert len(spread._turns) == 1
