from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.domain.jobs import TRANSITIONS, Job, JobStatus, Outcome, PublicStatus
from app.domain.kinds import GenerationKind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FINAL = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED}
UNFINISHED = [status for status in JobStatus if status not in FINAL]


def job(status: JobStatus, *, cancel_requested: bool) -> Job:
    return Job(
        id=UUID(int=1),
        account_id=UUID(int=2),
        kind=GenerationKind.TEXT_TO_IMAGE,
        model_id="fal-ai/wan-25-preview/text-to-image",
        status=status,
        is_final=status.is_final,
        cost_tokens=5,
        refunded_tokens=0,
        fal_request_id=None,
        result=None,
        error_code=None,
        error_message=None,
        status_reason=None,
        cancel_requested_at=NOW if cancel_requested else None,
        created_at=NOW,
        updated_at=NOW,
    )


def reachable_from(status: JobStatus) -> set[JobStatus]:
    seen: set[JobStatus] = set()
    waiting = {status}
    while waiting:
        seen |= waiting
        waiting = {target for source in waiting for target in TRANSITIONS[source]} - seen
    return seen


def test_three_statuses_are_final() -> None:
    assert {status for status in JobStatus if status.is_final} == FINAL


@pytest.mark.parametrize("status", sorted(FINAL))
def test_nothing_leaves_a_final_status(status: JobStatus) -> None:
    assert TRANSITIONS[status] == frozenset()


@pytest.mark.parametrize("status", UNFINISHED)
def test_every_unfinished_job_can_fail_and_can_be_canceled(status: JobStatus) -> None:
    assert {JobStatus.FAILED, JobStatus.CANCELED} <= TRANSITIONS[status]


def test_every_status_has_its_transitions_and_none_leads_to_itself() -> None:
    assert TRANSITIONS.keys() == set(JobStatus)
    assert [status for status, targets in TRANSITIONS.items() if status in targets] == []


def test_every_status_can_be_reached() -> None:
    assert reachable_from(JobStatus.QUEUED) == set(JobStatus)


def test_no_job_completes_before_it_was_sent() -> None:
    assert JobStatus.COMPLETED not in TRANSITIONS[JobStatus.QUEUED]


@pytest.mark.parametrize("status", [JobStatus.SUBMITTED, JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS])
def test_a_job_that_fal_has_is_never_sent_again(status: JobStatus) -> None:
    assert reachable_from(status).isdisjoint({JobStatus.QUEUED, JobStatus.SUBMITTING})


@pytest.mark.parametrize("status", JobStatus)
def test_the_user_sees_a_job_that_is_being_submitted_as_queued(status: JobStatus) -> None:
    shown = job(status, cancel_requested=False).public_status

    assert shown == ("QUEUED" if status is JobStatus.SUBMITTING else status.value)


@pytest.mark.parametrize("status", JobStatus)
def test_the_user_sees_canceling_until_the_job_is_final(status: JobStatus) -> None:
    shown = job(status, cancel_requested=True).public_status

    assert shown == (status.value if status in FINAL else PublicStatus.CANCELING)


def test_a_job_completes_with_a_result_and_no_error() -> None:
    assert Outcome.completed({"images": []}) == Outcome(status=JobStatus.COMPLETED, result={"images": []})


def test_a_job_fails_with_a_sentence_that_says_that_nothing_was_charged() -> None:
    outcome = Outcome.failed("timed_out", "fal did not finish.")

    assert outcome == Outcome(
        status=JobStatus.FAILED, error_code="timed_out", error_message="fal did not finish. Nothing was charged."
    )


def test_a_job_is_canceled_with_a_sentence_that_says_that_nothing_was_charged() -> None:
    outcome = Outcome.canceled()

    assert outcome == Outcome(
        status=JobStatus.CANCELED, error_code="canceled", error_message="The job was canceled. Nothing was charged."
    )
