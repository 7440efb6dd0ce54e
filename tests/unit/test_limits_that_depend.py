"""Limits that hold only together. Whoever changes one alone learns here which others depend on it."""

from datetime import timedelta

from app import serving
from app.application.execution import evidence, submit
from app.application.execution.limits import POST_SECONDS_MAX, STOP_SECONDS_MAX, SUBMIT_LEASE_SECONDS
from app.bootstrap.steps import STEPS
from app.infrastructure.background import lanes, runner
from app.infrastructure.fal.exchange import HttpLimits

# What may pass between a claim and its POST, and between the end of the POST and the commit of its outcome.
CLAIM_TO_POST_SECONDS, RECORD_SECONDS = 10, 2


def test_a_claim_is_lost_only_when_its_post_must_be_over() -> None:
    assert HttpLimits().submit_seconds == POST_SECONDS_MAX
    assert submit.__dict__["SUBMIT_LEASE_SECONDS"] == SUBMIT_LEASE_SECONDS
    assert SUBMIT_LEASE_SECONDS >= POST_SECONDS_MAX + CLAIM_TO_POST_SECONDS


def test_the_history_is_searched_for_the_whole_time_in_which_a_post_can_have_reached_fal() -> None:
    assert timedelta(seconds=SUBMIT_LEASE_SECONDS) == evidence.POST_TIME_MAX
    # A first search comes when no process can be about to record the outcome itself.
    assert min(evidence.SEARCH_SECONDS) > SUBMIT_LEASE_SECONDS


def test_a_stop_lets_a_step_end_that_has_just_posted() -> None:
    assert runner.__dict__["STOP_SECONDS_MAX"] == STOP_SECONDS_MAX
    assert STOP_SECONDS_MAX >= POST_SECONDS_MAX + RECORD_SECONDS


def test_the_process_lives_until_the_runner_has_stopped() -> None:
    runner_seconds = STOP_SECONDS_MAX + runner.GIVE_BACK_SECONDS_MAX + lanes.POOL_CLOSE_SECONDS_MAX
    assert runner_seconds < serving.STOP_SECONDS_MAX


def test_no_step_waits_for_a_connection_to_fal() -> None:
    lanes_of_steps = {row.step.lane for row in STEPS}
    assert HttpLimits().connections_max == sum(lane.provider_calls_max for lane in lanes_of_steps)


def test_a_dead_process_is_noticed_before_its_claims_are_given_up() -> None:
    assert lanes.HEARTBEAT_TIMEOUT_SECONDS < SUBMIT_LEASE_SECONDS
