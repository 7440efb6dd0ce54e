"""What happens to an accepted job. Every step is short, can run twice, and decides from what the database says.

A step raises RetryLater where the job needs another look; returning means that nothing is left for this step.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog

from app.application.backstop import BACKSTOP_SECONDS_MIN, Backstop
from app.application.breaker import PAUSE_SECONDS_MIN, Breaker
from app.application.evidence import SearchHistory, is_search_due, marked, seconds_to_next_look
from app.application.fault_points import reach
from app.application.ports import (
    InProgress,
    InQueue,
    Jobs,
    JobState,
    LargeInput,
    NotSubmitted,
    Observation,
    Provider,
    ProviderEvents,
    ProviderRequest,
    ProviderUnavailable,
    Rejected,
    Stopped,
    SubmitOutcomeUnknown,
    SubmitRefused,
    Succeeded,
)
from app.domain.errors import DatabaseUnavailable, InvalidProviderEvent, Overloaded
from app.domain.generations import JobStatus, Outcome, outcome_of_result

log = structlog.get_logger(__name__)

# The fal client ends its POST within 20 s: an older claim belongs to a process that is gone.
SUBMIT_LEASE_SECONDS = 30
# In memory at once: two pictures of 5 MiB each at the most, and their copies on the way.
LARGE_INPUTS_MAX = 16
LARGE_INPUT_PAUSE_SECONDS = 1.0
PERSIST_TRIES_MAX = 1200
PERSIST_PAUSE_SECONDS = 0.5
CANCEL_GRACE_SECONDS = 120
UNANSWERED_GRACE_SECONDS = 600
UNKNOWN_LOOK_SECONDS = 10
# From the end of a job whose submission stayed unknown to the one search for what fal made of it all the same.
LATE_SEARCH_SECONDS = 600
BACKOFF_SECONDS_MAX = 60.0
POLL_SECONDS_MIN = 0.5
POLL_SECONDS_MAX = 10.0
TIMED_OUT = "fal did not finish within the time limit."


Result = TypeVar("Result")


class Step(StrEnum):
    """The names under which the queue knows the steps."""

    SUBMIT = "generation.submit"
    FOLLOW = "generation.follow"


class RetryLater(Exception):
    def __init__(self, delay_seconds: float) -> None:
        super().__init__(f"retry in {delay_seconds:.1f} s")
        self.delay_seconds = delay_seconds


def backoff_seconds(attempt: int) -> float:
    """Doubling from 1 s to 60 s, with full jitter in the upper half so that many jobs do not come back at once."""
    ceiling = min(BACKOFF_SECONDS_MAX, 2.0 ** min(attempt - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)


def poll_seconds(age_seconds: float) -> float:
    """A part of what the job has taken so far: quick for quick jobs, cheap for long ones."""
    return min(max(age_seconds * 0.1, POLL_SECONDS_MIN), POLL_SECONDS_MAX) * random.uniform(0.9, 1.1)


async def _persist(operation: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat an operation that may be repeated until the database takes it, for ten minutes at least.

    What fal answered is known only here: a database that is away for a moment must not turn it into a mystery.
    """
    for _ in range(PERSIST_TRIES_MAX):
        try:
            return await operation()
        except (DatabaseUnavailable, Overloaded):
            await asyncio.sleep(PERSIST_PAUSE_SECONDS)
    return await operation()


@dataclass(frozen=True, slots=True)
class SubmitGeneration:
    """Claim the job, make the one POST, record what came of it.

    The claim is committed before the POST, so a process that dies in between leaves SUBMITTING behind,
    which is never posted again: fal has no idempotency key, and a second POST would be a second paid job.
    """

    jobs: Jobs
    provider: Provider
    breaker: Breaker
    webhooks_url: str | None = None
    backstop: Backstop | None = None
    has_history: bool = False
    _large_inputs: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(LARGE_INPUTS_MAX), init=False, repr=False, compare=False
    )

    async def __call__(self, job_id: UUID) -> None:
        wait_seconds = self.breaker.wait_seconds()
        if wait_seconds:
            await self._look_after_lost_claim(job_id)
            await self.jobs.record_waiting(job_id, self.breaker.reason or "")
            # Spread out, so that the backlog does not come at once when fal is back.
            raise RetryLater(wait_seconds + random.uniform(0, PAUSE_SECONDS_MIN))
        try:
            await self._submit(job_id, may_be_large=False)
        except LargeInput:
            if self._large_inputs.locked():
                # Not waited for here: meanwhile the breaker may open, or the service stop.
                raise RetryLater(random.uniform(LARGE_INPUT_PAUSE_SECONDS, 2 * LARGE_INPUT_PAUSE_SECONDS)) from None
            async with self._large_inputs:
                await self._submit(job_id, may_be_large=True)

    async def _submit(self, job_id: UUID, *, may_be_large: bool) -> None:
        # Before the claim, too.
        look_after_seconds = 0.0 if self.backstop is None else await self.backstop.seconds_to_look(0)
        attempt_token = uuid4()
        claim = await _persist(lambda: self.jobs.claim(job_id, attempt_token, may_be_large=may_be_large))
        if claim is None:
            state = await self._look_after_lost_claim(job_id)
            if state is not None and state.status is JobStatus.QUEUED:
                # Given back just now: the claim waited for that, and did not see it.
                raise RetryLater(0)
            return
        # The token is recorded already, and the seed follows from it.
        parameters = marked(claim.parameters, attempt_token) if self.has_history else claim.parameters
        try:
            reach("submit.before_post")
            request = await self.provider.submit(
                claim.model_id, claim.kind, parameters, webhook_url=self._webhook_url(attempt_token)
            )
            reach("submit.after_post")
        except NotSubmitted as error:
            self.breaker.record_failure(str(error), at_once=error.is_operators_matter)
            await self._release(job_id, attempt_token, claim.attempt, error)
        except SubmitRefused as error:
            self.breaker.record_success()
            log.warning("generation_refused", job_id=str(job_id), code=error.code)
            outcome = Outcome.failed(error.code, error.reason)
            await _persist(lambda: self.jobs.settle(job_id, outcome))
        except SubmitOutcomeUnknown as error:
            self.breaker.record_failure(str(error))
            await self._record_unknown(job_id, attempt_token, str(error))
        else:
            self.breaker.record_success()
            seconds = min(look_after_seconds, claim.time_limit_seconds + POLL_SECONDS_MIN)
            await self._record(job_id, attempt_token, request, seconds)

    def _webhook_url(self, attempt_token: UUID) -> str | None:
        """The token makes the event findable before fal's request id is known, and unguessable."""
        return None if self.webhooks_url is None else f"{self.webhooks_url}/{attempt_token}"

    async def _release(self, job_id: UUID, attempt_token: UUID, attempt: int, error: NotSubmitted) -> None:
        delay = max(backoff_seconds(attempt), error.retry_after_seconds or 0)
        reason = str(error)
        log.info("generation_submit_postponed", job_id=str(job_id), reason=reason, delay_seconds=round(delay, 1))
        await _persist(lambda: self.jobs.release(job_id, attempt_token, reason))
        raise RetryLater(delay)

    async def _record(
        self, job_id: UUID, attempt_token: UUID, request: ProviderRequest, look_after_seconds: float
    ) -> None:
        # Before the database has it: should everything else be lost, the operator finds the request here.
        log.info("generation_submitted", job_id=str(job_id), fal_request_id=request.id)
        if not await _persist(
            lambda: self.jobs.record_submission(job_id, attempt_token, request, look_after_seconds=look_after_seconds)
        ):
            log.warning("generation_submission_unclaimed", job_id=str(job_id), fal_request_id=request.id)
            # Where the attempt is still ours, fal has named the request of another job. Otherwise this changes nothing.
            await self._record_unknown(job_id, attempt_token, "fal named the request of another job")

    async def _record_unknown(self, job_id: UUID, attempt_token: UUID, reason: str) -> None:
        if await _persist(lambda: self.jobs.record_submit_unknown(job_id, attempt_token, reason)):
            log.warning("generation_submit_unknown", job_id=str(job_id), reason=reason)

    async def _look_after_lost_claim(self, job_id: UUID) -> JobState | None:
        state = await self.jobs.load(job_id)
        if state is None or state.status is not JobStatus.SUBMITTING or state.is_submit_unknown:
            return state
        if state.seconds_since_claim < SUBMIT_LEASE_SECONDS:
            raise RetryLater(SUBMIT_LEASE_SECONDS - state.seconds_since_claim + 1)
        assert state.attempt_token is not None
        log.warning("generation_submit_lost", job_id=str(job_id))
        await self.jobs.record_submit_unknown(job_id, state.attempt_token, "the submitting process ended")
        return state


@dataclass(frozen=True, slots=True)
class FollowGeneration:
    """Look where fal stands and move the job accordingly, up to its end.

    Transport trouble never ends a job: only fal's own verdict, a confirmed cancel, or the time limit does.
    """

    jobs: Jobs
    provider: Provider
    backstop: Backstop | None = None
    search: SearchHistory | None = None

    async def __call__(self, job_id: UUID) -> None:
        state = await self.jobs.load(job_id)
        if state is None or state.status is JobStatus.QUEUED:
            return
        if self._is_search_due(state):
            await self._adopt_from_history(state)
            # The search took a while, and fal's event may have come meanwhile.
            state = await self.jobs.load(job_id) or state
        if state.status.is_final:
            await self._search_for_late_result(state)
        elif state.request is None:
            await self._wait_for_evidence(state)
        else:
            await self._follow(state, state.request)

    async def _follow(self, state: JobState, request: ProviderRequest) -> None:
        if state.is_overdue and state.seconds_since_overdue_noticed is None:
            await self.jobs.record_overdue(state.id)
        if (state.cancel_requested or state.is_overdue) and state.seconds_since_cancel_sent is None:
            await self._try_to_cancel(state, request)
        await self._observe(state, request)

    def _is_search_due(self, state: JobState) -> bool:
        """At its moments, and once more before the job is given up."""
        if self.search is None or state.status.is_final or state.request is not None:
            return False
        return state.is_overdue or is_search_due(state.seconds_since_claim, UNKNOWN_LOOK_SECONDS)

    async def _adopt_from_history(self, state: JobState) -> None:
        assert self.search is not None
        assert state.attempt_token is not None
        request_id = await self.search(state)
        if request_id is None:
            return
        request = self.provider.request_of(state.model_id, request_id)
        if await self.jobs.record_submission(state.id, state.attempt_token, request):
            log.info("generation_adopted", job_id=str(state.id), fal_request_id=request_id, how="history")

    async def _search_for_late_result(self, state: JobState) -> None:
        request_id = None if self.search is None else await self.search(state)
        if request_id is None:
            return
        try:
            request = self.provider.request_of(state.model_id, request_id)
            observation = await self.provider.observe(request, state.kind)
        except ProviderUnavailable as error:
            log.info("generation_look_failed", job_id=str(state.id), reason=str(error))
            return
        if isinstance(observation, Succeeded):
            await _record_late_result(self.jobs, state, request_id, observation.result)

    async def _wait_for_evidence(self, state: JobState) -> None:
        # Without the mark its POST may still be under way in another process.
        if not (state.is_overdue and state.is_submit_unknown):
            if self.search is None:
                raise RetryLater(UNKNOWN_LOOK_SECONDS)
            raise RetryLater(seconds_to_next_look(state.seconds_since_claim, UNKNOWN_LOOK_SECONDS))
        log.error("generation_submit_given_up", job_id=str(state.id))
        await self._settle(state, _given_up(state, "submit_unknown", "It is not known whether fal got the job."))
        if self.search is not None:
            raise RetryLater(LATE_SEARCH_SECONDS)

    async def _try_to_cancel(self, state: JobState, request: ProviderRequest) -> None:
        try:
            reach("cancel.before_put")
            await self.provider.cancel(request)
            reach("cancel.after_put")
        except ProviderUnavailable as error:
            log.info("generation_cancel_postponed", job_id=str(state.id), reason=str(error))
            return
        await self.jobs.record_cancel_sent(state.id)
        log.info("generation_cancel_sent", job_id=str(state.id), overdue=state.is_overdue)

    async def _observe(self, state: JobState, request: ProviderRequest) -> None:
        try:
            reach("observe.before_status")
            observation = await self.provider.observe(request, state.kind)
        except ProviderUnavailable as error:
            log.info("generation_look_failed", job_id=str(state.id), reason=str(error))
            await self._wait_or_give_up(state, state.status, grace_seconds=UNANSWERED_GRACE_SECONDS)
            return
        outcome = _outcome_of(observation, state)
        if outcome is not None:
            await self._settle(state, outcome)
            return
        status = JobStatus.IN_QUEUE if isinstance(observation, InQueue) else JobStatus.IN_PROGRESS
        if status is not state.status:
            await self.jobs.record_progress(state.id, status)
            log.info("generation_progressed", job_id=str(state.id), status=status.value)
        await self._wait_or_give_up(state, status, grace_seconds=CANCEL_GRACE_SECONDS)

    async def _wait_or_give_up(self, state: JobState, status: JobStatus, *, grace_seconds: float) -> None:
        """fal has a grace period to stop: after the time limit, or after a cancel that found the request queued.

        Both are counted from a look that we made, and are longer where fal does not answer.
        """
        seconds_used = state.seconds_since_overdue_noticed or 0
        if state.cancel_requested and status is JobStatus.IN_QUEUE:
            seconds_used = max(seconds_used, state.seconds_since_cancel_sent or 0)
        if seconds_used >= grace_seconds:
            await self._settle(state, _given_up(state, "timed_out", TIMED_OUT))
            return
        if self.backstop is None or state.cancel_requested or state.is_overdue:
            seconds = poll_seconds(state.seconds_since_claim)
        else:
            seconds = await self.backstop.seconds_to_look(state.seconds_since_claim)
        if not state.is_overdue:
            seconds = min(seconds, state.seconds_to_deadline + POLL_SECONDS_MIN)
        raise RetryLater(seconds)

    async def _settle(self, state: JobState, outcome: Outcome) -> None:
        await _settle(self.jobs, state, outcome)


def _given_up(state: JobState, code: str, reason: str) -> Outcome:
    return Outcome.canceled() if state.cancel_requested else Outcome.failed(code, reason)


async def _settle(jobs: Jobs, state: JobState, outcome: Outcome) -> None:
    if await jobs.settle(state.id, outcome):
        log.info(
            "generation_settled",
            job_id=str(state.id),
            status=outcome.status.value,
            code=outcome.error_code,
            seconds=round(state.seconds_since_claim, 1),
        )
    elif outcome.result is not None:
        # Somebody else was faster, and may have given the job up.
        await jobs.record_late_result(state.id, outcome.result)


async def _record_late_result(jobs: Jobs, state: JobState, request_id: str, result: Mapping[str, Any]) -> None:
    log.error("generation_result_late", job_id=str(state.id), status=state.status.value, fal_request_id=request_id)
    await jobs.record_late_result(state.id, result)


@dataclass(frozen=True, slots=True)
class ReceiveProviderEvent:
    """fal says that a request is over. Whoever comes first settles, this or a look: the other one changes nothing.

    An event may come before the answer to its own submission, or instead of it: its token finds the job, which
    thereby learns its request id. Raises InvalidProviderEvent, ProviderKeysUnavailable.
    """

    jobs: Jobs
    provider: Provider
    events: ProviderEvents

    async def __call__(self, attempt_token: UUID, headers: Mapping[str, str], body: bytes) -> None:
        event = await self.events.verify(headers, body)
        state = await self.jobs.load_attempt(attempt_token)
        if state is None:
            raise InvalidProviderEvent
        if state.request is None and not state.status.is_final:
            request = self.provider.request_of(state.model_id, event.request_id)
            if await self.jobs.record_submission(
                state.id, attempt_token, request, look_after_seconds=BACKSTOP_SECONDS_MIN
            ):
                log.info("generation_adopted", job_id=str(state.id), fal_request_id=event.request_id, how="event")
            state = await self.jobs.load_attempt(attempt_token) or state
        # A job that was given up before its request id was known has only the token to go by. One that goes on
        # without a request was not given this one, because another job has it.
        is_ours = state.status.is_final if state.request is None else state.request.id == event.request_id
        if not is_ours:
            log.warning("provider_event_mismatched", job_id=str(state.id))
            raise InvalidProviderEvent
        await self._apply(state, event.request_id, self.events.observation(event, state.kind))

    async def _apply(self, state: JobState, request_id: str, observation: Observation | None) -> None:
        outcome = None if observation is None else _outcome_of(observation, state)
        if state.status.is_final:
            # A result of which nothing would be charged is no loss: the usual event of a job that ended so.
            if outcome is not None and outcome.result is not None and state.status is not JobStatus.COMPLETED:
                await _record_late_result(self.jobs, state, request_id, outcome.result)
        elif outcome is None:
            await self.jobs.look_now(state.id)
        else:
            await _settle(self.jobs, state, outcome)


def _outcome_of(observation: Observation, state: JobState) -> Outcome | None:
    match observation:
        case Succeeded(result):
            return outcome_of_result(result, cost_tokens=state.cost_tokens, outputs_requested=state.outputs_requested)
        case Rejected(code, reason):
            return Outcome.failed(code, reason)
        case Stopped():
            # Nobody asked for it but us: it took too long.
            return _given_up(state, "timed_out", TIMED_OUT) if state.is_overdue else Outcome.canceled()
        case InQueue() | InProgress():
            return None


@dataclass(frozen=True, slots=True)
class SweepGenerations:
    """Find unfinished jobs that no queue item looks after, whatever lost it, and queue them again.

    Forgets idempotency keys that have served their time, too.
    """

    jobs: Jobs

    async def __call__(self) -> None:
        for job_id in await self.jobs.requeue_lost():
            log.warning("generation_requeued", job_id=str(job_id))
        await self.jobs.forget_idempotency_keys()
