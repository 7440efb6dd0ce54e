"""What becomes of a delivery by an attempt."""

import pytest

from app.domain.webhooks import ATTEMPTS_MAX, RETRY_AFTER_SECONDS_MAX, Attempt, DeliveryState, Verdict, verdict_on

HOUR_SECONDS = 3600
SCHEDULE = [5, 300, 1800, *(hours * HOUR_SECONDS for hours in (2, 5, 10, 14, 20, 24, 24, 24))]


def failed(status: int | None = 500, retry_after_seconds: float | None = None) -> Attempt:
    return Attempt(milliseconds=1, status=status, error="It failed.", retry_after_seconds=retry_after_seconds)


def test_twelve_attempts_are_made() -> None:
    assert len(SCHEDULE) + 1 == ATTEMPTS_MAX == 12


@pytest.mark.parametrize("attempts_before", [0, 5, 11, 12])
def test_what_was_taken_is_delivered_at_whichever_attempt(attempts_before: int) -> None:
    verdict = verdict_on(Attempt(milliseconds=1, status=204), attempts_before, chance=0.5)

    assert verdict == Verdict(state=DeliveryState.DELIVERED)


@pytest.mark.parametrize("status", [None, 301, 404, 500, 503], ids=str)
@pytest.mark.parametrize(("attempts_before", "seconds"), list(enumerate(SCHEDULE)))
def test_what_failed_is_tried_again_by_the_schedule_and_a_little_later(
    attempts_before: int, seconds: int, status: int | None
) -> None:
    for chance in (0.0, 0.5, 1.0):
        verdict = verdict_on(failed(status), attempts_before, chance=chance)

        assert verdict.state is DeliveryState.PENDING
        assert verdict.retry_seconds == pytest.approx(seconds * (1 + 0.1 * chance))
        assert (verdict.pause_seconds, verdict.is_gone) == (None, False)


@pytest.mark.parametrize("attempts_before", [11, 12, 100])
def test_the_twelfth_failure_is_the_last(attempts_before: int) -> None:
    assert verdict_on(failed(), attempts_before, chance=0) == Verdict(state=DeliveryState.EXHAUSTED)


@pytest.mark.parametrize("attempts_before", [0, 11])
def test_an_endpoint_that_is_gone_is_tried_no_more_whenever_it_asks_to_be(attempts_before: int) -> None:
    verdict = verdict_on(failed(410, retry_after_seconds=60), attempts_before, chance=0.5)

    assert verdict == Verdict(state=DeliveryState.EXHAUSTED, is_gone=True)


@pytest.mark.parametrize(
    ("asked_seconds", "retry_seconds"),
    [(0, 5), (4, 5), (60, 60), (RETRY_AFTER_SECONDS_MAX, 86_400), (10**9, 86_400)],
)
def test_retry_after_puts_the_next_attempt_off_by_a_day_at_most_and_never_brings_it_forward(
    asked_seconds: int, retry_seconds: int
) -> None:
    assert verdict_on(failed(500, asked_seconds), 0, chance=0).retry_seconds == retry_seconds


@pytest.mark.parametrize(("status", "pauses"), [(429, True), (503, True), (500, False), (301, False)])
def test_who_asks_for_less_gets_nothing_at_all_meanwhile(status: int, pauses: bool) -> None:
    assert verdict_on(failed(status, 60), 0, chance=0).pause_seconds == (60 if pauses else None)
    # Also where this event was given up.
    last = verdict_on(failed(status, 10**9), 11, chance=0)
    assert (last.state, last.pause_seconds) == (DeliveryState.EXHAUSTED, 86_400 if pauses else None)
