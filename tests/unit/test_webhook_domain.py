"""What becomes of a delivery by an attempt."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.webhooks import (
    ATTEMPTS_MAX,
    FAILING,
    QUIET,
    RETRY_AFTER_SECONDS_MAX,
    Attempt,
    DeliveryState,
    DisabledReason,
    Health,
    Verdict,
    verdict_on,
)

HOUR_SECONDS = 3600
SCHEDULE = [5, 300, 1800, *(hours * HOUR_SECONDS for hours in (2, 5, 10, 14, 20, 24, 24, 24))]


def failed(status: int | None = 500, retry_after_seconds: float | None = None) -> Attempt:
    return Attempt(milliseconds=1, status=status, error="It failed.", retry_after_seconds=retry_after_seconds)


def test_twelve_attempts_are_made() -> None:
    assert len(SCHEDULE) + 1 == ATTEMPTS_MAX == 12


@pytest.mark.parametrize("attempts_before", [0, 5, 11, 12])
def test_what_was_taken_is_delivered_at_whichever_attempt(attempts_before: int) -> None:
    verdict = verdict_on(Attempt(milliseconds=1, status=204), attempts_before, is_of_job=False, chance=0.5)

    assert verdict == Verdict(state=DeliveryState.DELIVERED)


@pytest.mark.parametrize("status", [None, 301, 404, 500, 503], ids=str)
@pytest.mark.parametrize(("attempts_before", "seconds"), list(enumerate(SCHEDULE)))
def test_what_failed_is_tried_again_by_the_schedule_and_a_little_later(
    attempts_before: int, seconds: int, status: int | None
) -> None:
    for chance in (0.0, 0.5, 1.0):
        verdict = verdict_on(failed(status), attempts_before, is_of_job=False, chance=chance)

        assert verdict.state is DeliveryState.PENDING
        assert verdict.retry_seconds == pytest.approx(seconds * (1 + 0.1 * chance))
        assert (verdict.asked_seconds, verdict.has_failed, verdict.is_gone) == (0, True, False)


@pytest.mark.parametrize("attempts_before", [11, 12, 100])
def test_the_twelfth_failure_is_the_last(attempts_before: int) -> None:
    assert verdict_on(failed(), attempts_before, is_of_job=False, chance=0) == Verdict(
        state=DeliveryState.EXHAUSTED, has_failed=True
    )


def test_an_endpoint_that_is_gone_may_come_back_and_the_url_of_a_job_does_not() -> None:
    gone = failed(410, retry_after_seconds=60)

    of_endpoint = verdict_on(gone, 0, is_of_job=False, chance=0)
    assert (of_endpoint.state, of_endpoint.is_gone, of_endpoint.asked_seconds) == (DeliveryState.PENDING, True, 0)
    assert verdict_on(gone, 0, is_of_job=True, chance=0).state is DeliveryState.EXHAUSTED


@pytest.mark.parametrize(
    ("asked_seconds", "retry_seconds"),
    [(0, 5), (4, 5), (60, 60), (RETRY_AFTER_SECONDS_MAX, 86_400), (10**9, 86_400)],
)
def test_retry_after_puts_the_next_attempt_off_by_a_day_at_most_and_never_brings_it_forward(
    asked_seconds: int, retry_seconds: int
) -> None:
    assert verdict_on(failed(500, asked_seconds), 0, is_of_job=False, chance=0).retry_seconds == retry_seconds


@pytest.mark.parametrize(("status", "pauses"), [(429, True), (503, True), (500, False), (301, False)])
def test_who_asks_for_less_gets_nothing_at_all_meanwhile(status: int, pauses: bool) -> None:
    assert verdict_on(failed(status, 60), 0, is_of_job=False, chance=0).asked_seconds == (60 if pauses else 0)
    # Also where this event was given up.
    last = verdict_on(failed(status, 10**9), 11, is_of_job=False, chance=0)
    assert (last.state, last.asked_seconds) == (DeliveryState.EXHAUSTED, 86_400 if pauses else 0)


AT = datetime(2026, 11, 29, tzinfo=UTC)
DELIVERED, FAILED = Verdict(state=DeliveryState.DELIVERED), Verdict(state=DeliveryState.PENDING, has_failed=True)


def test_a_failure_of_ours_says_nothing_of_the_endpoint() -> None:
    ours = verdict_on(Attempt(milliseconds=0, error="We did.", is_own_fault=True), 0, is_of_job=False, chance=0)
    assert (ours.state, ours.has_failed) == (DeliveryState.PENDING, False)
    failing = Health(failures=9, failing_since=AT - FAILING * 2, last_failed_at=AT)
    after = failing.after([ours], AT, chance=0)
    assert (after, after.reason_to_disable([ours], AT + QUIET)) == (failing, None)


def test_it_backs_off_after_some_failures_longer_each_time_up_to_a_bound() -> None:
    health, seconds = Health(), []
    for _ in range(20):
        health = health.after([FAILED], AT, chance=0.5)
        seconds.append(None if health.backs_off_until is None else (health.backs_off_until - AT).total_seconds())
    assert seconds[:7] == [None] * 4 + [5, 10, 20]
    assert seconds[-1] == 300
    assert (health.failing_since, health.failures) == (AT, 20)
    assert health.after([FAILED, DELIVERED], AT, chance=0.5) == Health()


def test_it_is_disabled_after_five_days_in_which_everything_failed() -> None:
    health, now = Health().after([FAILED], AT, chance=0), AT
    while now - AT <= FAILING:
        assert health.reason_to_disable([FAILED], now) is None
        now += timedelta(hours=26)
        health = health.after([FAILED], now, chance=0)
    assert health.reason_to_disable([FAILED], now) is DisabledReason.FAILING
    # Nothing failed just now.
    assert health.reason_to_disable([], now + timedelta(seconds=1)) is None
    later = now + QUIET * 2
    assert health.after([FAILED], later, chance=0).failing_since == later


def test_what_it_asked_for_holds_beside_a_success() -> None:
    asked = Verdict(state=DeliveryState.PENDING, has_failed=True, asked_seconds=100)
    health = Health().after([asked, DELIVERED], AT, chance=0).after([DELIVERED], AT, chance=0)
    assert health == Health(asked_until=AT + timedelta(seconds=100))
    shorter = Verdict(state=DeliveryState.PENDING, has_failed=True, asked_seconds=1)
    assert health.after([shorter], AT, chance=0).asked_until == health.asked_until
