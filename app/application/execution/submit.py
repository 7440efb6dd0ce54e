import asyncio
import random
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import structlog

from app.application.execution.breaker import PAUSE_SECONDS_MIN, Breaker
from app.application.execution.evidence import marked
from app.application.execution.limits import SUBMIT_LEASE_SECONDS
from app.application.execution.pacing import POLL_SECONDS_MIN, Backstop, backoff_seconds
from app.application.execution.settlement import persist
from app.application.execution.steps import RetryLater
from app.application.fault_points import reach
from app.application.ports.execution import JobState, JobSubmission, LargeInput
from app.application.ports.provider import (
    NotSubmitted,
    Provider,
    ProviderRequest,
    SubmitOutcomeUnknown,
    SubmitRefused,
)
from app.domain.jobs import JobStatus, Outcome

log = structlog.get_logger(__name__)

# In memory at once: two pictures of 5 MiB each at the most, and their copies on the way.
LARGE_INPUTS_MAX = 16
LARGE_INPUT_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """Claim the job, make the one POST, record what came of it.

    The claim is committed before the POST, so a process that dies in between leaves SUBMITTING behind,
    which is never posted again: fal has no idempotency key, and a second POST would be a second paid job.
    """

    jobs: JobSubmission
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
        claim = await persist(lambda: self.jobs.claim(job_id, attempt_token, may_be_large=may_be_large))
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
            await persist(lambda: self.jobs.settle(job_id, outcome))
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
        await persist(lambda: self.jobs.release(job_id, attempt_token, reason))
        raise RetryLater(delay)

    async def _record(
        self, job_id: UUID, attempt_token: UUID, request: ProviderRequest, look_after_seconds: float
    ) -> None:
        # Before the database has it: should everything else be lost, the operator finds the request here.
        log.info("generation_submitted", job_id=str(job_id), fal_request_id=request.id)
        if not await persist(
            lambda: self.jobs.record_submission(job_id, attempt_token, request, look_after_seconds=look_after_seconds)
        ):
            log.warning("generation_submission_unclaimed", job_id=str(job_id), fal_request_id=request.id)
            # Where the attempt is still ours, fal has named the request of another job. Otherwise this changes nothing.
            await self._record_unknown(job_id, attempt_token, "fal named the request of another job")

    async def _record_unknown(self, job_id: UUID, attempt_token: UUID, reason: str) -> None:
        if await persist(lambda: self.jobs.record_submit_unknown(job_id, attempt_token, reason)):
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
