from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.application.execution.orphans import is_won_by, keep_late_result
from app.application.execution.pacing import BACKSTOP_SECONDS_MIN
from app.application.execution.settlement import outcome_of, record_late_result, settle_or_keep_late
from app.application.execution.steps import LeftToNewerRelease
from app.application.ports.execution import AttemptEnd, AttemptState, JobEvents, JobState
from app.application.ports.provider import Observation, Provider, ProviderEvents
from app.domain.errors import InvalidProviderEvent, Unavailable
from app.domain.jobs import JobStatus

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReceiveProviderEvent:
    """Take fal's word that a request is over. Of this and a look, the first one settles; the other changes nothing.

    An event may come before the answer to its own submission, or instead of it: its token finds the job, which
    thereby learns its request id. It may also be of an earlier attempt than the one that the job follows: if that
    attempt delivered it wins the job, otherwise its run is an orphan. Raises InvalidProviderEvent,
    ProviderKeysUnavailable.
    """

    _jobs: JobEvents
    _provider: Provider
    _events: ProviderEvents

    def check_headers(self, headers: Mapping[str, str]) -> None:
        """Whether a body is worth reading. Raises InvalidProviderEvent for headers that fal does not send."""
        self._events.check_headers(headers)

    async def check_token(self, attempt_token: UUID) -> None:
        """Whether a large body is worth reading. Raises InvalidProviderEvent for a token that no attempt has."""
        await self._load(attempt_token)

    async def __call__(self, attempt_token: UUID, headers: Mapping[str, str], body: bytes) -> None:
        event = await self._events.verify(headers, body)
        attempt = await self._adopted(await self._load(attempt_token), event.request_id)
        observation = self._events.observation(event, attempt.job.terms.shape)
        if _follows(attempt.job, event.request_id):
            await self._apply(attempt.job, event.request_id, observation)
        elif attempt.request_id in (None, event.request_id):
            await self._apply_to_another(attempt, event.request_id, observation)
        else:
            raise _unexpected(attempt)

    async def _load(self, attempt_token: UUID) -> AttemptState:
        try:
            attempt = await self._jobs.load_attempt(attempt_token)
        except LeftToNewerRelease as left:
            # fal delivers the event again until a process of the newer release takes it, or has seen the end by a look.
            await self._jobs.look_now(left.job_id)
            raise Unavailable from left
        if attempt is None:
            raise InvalidProviderEvent("unknown_token")
        return attempt

    async def _adopted(self, attempt: AttemptState, request_id: str) -> AttemptState:
        """The job follows the request if it follows none yet and no later attempt of it may be at fal."""
        job = attempt.job
        is_newest = attempt.token == job.attempt_token
        if job.request is not None or job.status.is_final or not (is_newest or job.status is JobStatus.QUEUED):
            return attempt
        request = self._provider.request_of(job.model_id, request_id)
        if await self._jobs.record_submission(job.id, attempt.token, request, look_after_seconds=BACKSTOP_SECONDS_MIN):
            log.info("generation_adopted", job_id=str(job.id), fal_request_id=request_id, how="event")
        return await self._load(attempt.token)

    async def _apply(self, state: JobState, request_id: str, observation: Observation | None) -> None:
        outcome = None if observation is None else outcome_of(observation, state)
        if state.status.is_final:
            # If nothing would be charged for the result, nothing is lost: it is the usual event of a job that ended so.
            if outcome is not None and outcome.result is not None and state.status is not JobStatus.COMPLETED:
                await record_late_result(self._jobs, state, request_id, outcome.result)
        elif outcome is None:
            await self._jobs.look_now(state.id)
        else:
            await settle_or_keep_late(self._jobs, state, outcome)

    async def _apply_to_another(self, attempt: AttemptState, request_id: str, observation: Observation | None) -> None:
        job = attempt.job
        outcome = None if observation is None else outcome_of(observation, job)
        end = AttemptEnd(token=attempt.token, takes_over=self._provider.request_of(job.model_id, request_id))
        if await is_won_by(self._jobs, job, outcome, end):
            return
        if not await self._jobs.record_orphan(attempt.token, request_id, is_over=outcome is not None):
            raise _unexpected(attempt)
        log.warning("generation_orphaned", job_id=str(job.id), fal_request_id=request_id, how="event")
        await keep_late_result(self._jobs, job.id, request_id, outcome)


def _follows(job: JobState, request_id: str) -> bool:
    return job.request is not None and job.request.id == request_id


def _unexpected(attempt: AttemptState) -> InvalidProviderEvent:
    """fal named one request in its answer and another one in its event, or names one of another attempt."""
    return InvalidProviderEvent("unexpected_request", job_id=str(attempt.job.id))
