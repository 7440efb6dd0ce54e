"""Submissions that are sent back: who comes again, when, and who is put off unseen."""

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from app.application.execution.breaker import FAILED_ACCOUNTS_MAX, OWN_FAILURES_MAX, Breaker
from app.application.execution.pacing import WAITING_STEPS_PER_SECOND
from app.application.execution.pauses import NEWCOMER_SECONDS_MIN
from app.application.execution.steps import RetryLater
from app.application.execution.submit import SubmitJob
from app.application.ports.execution import JobState, JobSubmission, Wait
from app.application.ports.provider import Provider, SubmitOutcomeUnknown
from app.domain.jobs import JobStatus
from app.domain.kinds import GenerationKind
from tests.builders import terms_of

NO_ANSWER = SubmitOutcomeUnknown("no answer")
STEPS = 20


@dataclass
class Jobs:
    """Of one account, all of them waiting."""

    account_id: UUID = field(default_factory=uuid4)
    is_held: bool = False
    claims: int = 0
    seconds_waiting_for_provider: float | None = None
    waits: list[Wait] = field(default_factory=list)

    async def load(self, job_id: UUID) -> JobState:
        return JobState(
            id=job_id,
            account_id=self.account_id,
            kind=GenerationKind.TEXT_TO_IMAGE,
            model_id="model",
            status=JobStatus.QUEUED,
            status_reason=None,
            attempt_token=None,
            request=None,
            cancel_requested=False,
            terms=terms_of(5),
            seconds_since_claim=0,
            seconds_since_cancel_sent=None,
            is_submit_unknown=False,
            seconds_to_deadline=float("inf"),
            seconds_since_overdue_noticed=None,
            is_held=self.is_held,
            seconds_waiting_for_provider=self.seconds_waiting_for_provider,
        )

    async def claim(self, *_: Any, **__: Any) -> None:
        self.claims += 1

    async def record_waiting(self, job_id: UUID, wait: Wait) -> bool:
        self.waits.append(wait)
        return wait.seconds_max is not None


class Crowds:
    def __init__(self) -> None:
        self.put_off: list[UUID] = []

    async def put_off_submissions(
        self, account_id: UUID, delay_seconds: float, spacing_seconds: float, wait: Wait
    ) -> int:
        self.put_off.append(account_id)
        return 1000


async def sent_back(jobs: Jobs, breaker: Breaker) -> tuple[list[float], list[UUID]]:
    """After how long each of the steps comes again, and whose other steps were put off."""
    crowds = Crowds()
    submit = SubmitJob(cast(JobSubmission, jobs), cast(Provider, None), breaker, crowds=crowds)
    seconds = []
    for _ in range(STEPS):
        with pytest.raises(RetryLater) as later:
            await submit(uuid4())
        seconds.append(later.value.delay_seconds)
    return seconds, crowds.put_off


async def test_a_crowd_is_put_off_where_its_own_submissions_pause() -> None:
    jobs, breaker = Jobs(), Breaker()
    for _ in range(OWN_FAILURES_MAX):
        breaker.record_failure(jobs.account_id, "model", NO_ANSWER)

    _, put_off = await sent_back(jobs, breaker)

    assert set(put_off) == {jobs.account_id}


async def test_nobody_is_put_off_for_what_others_have_caused() -> None:
    """It may be over in a moment, and the steps that were put off would come one after the other for minutes."""
    jobs, breaker = Jobs(), Breaker()
    for _ in range(FAILED_ACCOUNTS_MAX):
        breaker.record_failure(uuid4(), "model", NO_ANSWER)

    seconds, put_off = await sent_back(jobs, breaker)

    assert put_off == []
    assert max(seconds) < NEWCOMER_SECONDS_MIN + STEPS / WAITING_STEPS_PER_SECOND + 0.1


@pytest.mark.parametrize("is_calm", [True, False])
async def test_a_held_job_does_not_come_again_by_itself(is_calm: bool) -> None:
    jobs, breaker = Jobs(is_held=True), Breaker()
    if not is_calm:
        for _ in range(OWN_FAILURES_MAX):
            breaker.record_failure(uuid4(), "model", NO_ANSWER)

    await SubmitJob(cast(JobSubmission, jobs), cast(Provider, None), breaker)(uuid4())

    assert jobs.claims == int(is_calm)


async def test_who_waited_for_a_place_asks_again_whether_anything_pauses() -> None:
    jobs, breaker = Jobs(), Breaker()
    submit = SubmitJob(cast(JobSubmission, jobs), cast(Provider, None), breaker)
    held = []
    while (place := submit._places.take(jobs.account_id)) is not None:
        held.append(place)
    step = asyncio.create_task(submit(uuid4()))
    await asyncio.sleep(0.01)
    for _ in range(OWN_FAILURES_MAX):
        breaker.record_failure(jobs.account_id, "model", NO_ANSWER)
    for place in held:
        with place:
            pass

    with pytest.raises(RetryLater):
        await step
    assert jobs.claims == 0


DAY = 86_400


@pytest.mark.parametrize(
    ("waited", "limit", "ends"), [(DAY - 1, DAY, False), (DAY, DAY, True), (10 * DAY, None, False), (None, DAY, False)]
)
async def test_a_step_that_has_to_wait_again_ends_what_has_waited_too_long(
    waited: float | None, limit: int | None, ends: bool
) -> None:
    jobs, breaker = Jobs(seconds_waiting_for_provider=waited), Breaker()
    for _ in range(FAILED_ACCOUNTS_MAX):
        breaker.record_failure(uuid4(), "model", NO_ANSWER)
    submit = SubmitJob(cast(JobSubmission, jobs), cast(Provider, None), breaker, wait_seconds_max=limit)

    with nullcontext() if ends else pytest.raises(RetryLater):
        await submit(uuid4())

    (wait,) = jobs.waits
    assert (wait.waiting_for, wait.is_providers, wait.seconds_max) == ("provider", True, DAY if ends else None)
    assert jobs.claims == 0
