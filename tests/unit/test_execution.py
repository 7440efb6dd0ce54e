from hypothesis import given, settings
from hypothesis import strategies as st

from app.application.execution.pacing import backoff_seconds, poll_seconds

AGES = st.floats(0, 10**9)
# Floating point numbers round.
SLACK = 1e-9


@settings(deadline=None)
@given(st.integers(1, 10**9))
def test_waits_between_half_and_all_of_a_doubling_pause_up_to_a_minute(attempt: int) -> None:
    pause = 2 ** (attempt - 1) if attempt <= 6 else 60

    assert pause / 2 <= backoff_seconds(attempt) <= pause


def test_spreads_the_attempts_of_many_jobs() -> None:
    delays = [backoff_seconds(4) for _ in range(200)]

    assert min(delays) < 5
    assert max(delays) > 7


@settings(deadline=None)
@given(AGES)
def test_looks_again_after_half_a_second_at_least_and_ten_at_most(age_seconds: float) -> None:
    assert 0.5 * 0.9 - SLACK <= poll_seconds(age_seconds) <= 10 * 1.1 + SLACK


@settings(deadline=None)
@given(st.floats(5, 100))
def test_looks_again_after_about_a_tenth_of_the_age(age_seconds: float) -> None:
    tenth = age_seconds / 10

    assert tenth * 0.9 - SLACK <= poll_seconds(age_seconds) <= tenth * 1.1 + SLACK


@settings(deadline=None)
@given(AGES, AGES)
def test_looks_at_an_older_job_no_more_often(one: float, other: float) -> None:
    younger, older = sorted((one, other))

    # Each may be a tenth off for the sake of the spread.
    assert poll_seconds(younger) / 1.1 <= poll_seconds(older) / 0.9 + SLACK
