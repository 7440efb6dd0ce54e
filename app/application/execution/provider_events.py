from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import structlog

from app.application.execution.pacing import BACKSTOP_SECONDS_MIN
from app.application.execution.settlement import outcome_of, record_late_result, settle
from app.application.execution.steps import LeftToNewerRelease
from app.application.ports.execution import JobEvents, JobState
from app.application.ports.provider import Observation, Provider, ProviderEvents
from app.domain.errors import InvalidProviderEvent, Unavailable
from app.domain.jobs import JobStatus

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReceiveProviderEvent:
    """Take fal's word that a request is over. Of this and a look, the first one settles; the other changes nothing.

    An event may come before the answer to its own submission, or instead of it: its token finds the job, which
    thereby learns its request id. Raises InvalidProviderEvent, ProviderKeysUnavailable.
    """

    _jobs: JobEvents
    _provider: Provider
    _events: ProviderEvents

    async def check(self, attempt_token: UUID, headers: Mapping[str, str]) -> None:
        """Whether the body is worth reading. Raises InvalidProviderEvent for headers that fal does not send, and for a
        token that no attempt has.
        """
        self._events.check_headers(headers)
        await self._load(attempt_token)

    async def __call__(self, attempt_token: UUID, headers: Mapping[str, str], body: bytes) -> None:
        event = await self._events.verify(headers, body)
        state = await self._load(attempt_token)
        if state.request is None and not state.status.is_final:
            request = self._provider.request_of(state.model_id, event.request_id)
            if await self._jobs.record_submission(
                state.id, attempt_token, request, look_after_seconds=BACKSTOP_SECONDS_MIN
            ):
                log.info("generation_adopted", job_id=str(state.id), fal_request_id=event.request_id, how="event")
            state = await self._load(attempt_token)
        # A job that was given up before its request id was known has only the token to go by. One that goes on
        # without a request was not given this one, because another job has it.
        is_ours = state.status.is_final if state.request is None else state.request.id == event.request_id
        if not is_ours:
            log.warning("provider_event_mismatched", job_id=str(state.id))
            raise InvalidProviderEvent
        await self._apply(state, event.request_id, self._events.observation(event, state.kind))

    async def _load(self, attempt_token: UUID) -> JobState:
        try:
            state = await self._jobs.load_attempt(attempt_token)
        except LeftToNewerRelease as left:
            # fal delivers the event again until a process of the newer release takes it, or has seen the end by a look.
            await self._jobs.look_now(left.job_id)
            raise Unavailable from left
        if state is None:
            raise InvalidProviderEvent
        return state

    async def _apply(self, state: JobState, request_id: str, observation: Observation | None) -> None:
        outcome = None if observation is None else outcome_of(observation, state)
        if state.status.is_final:
            # If nothing would be charged for the result, nothing is lost: it is the usual event of a job that ended so.
            if outcome is not None and outcome.result is not None and state.status is not JobStatus.COMPLETED:
                await record_late_result(self._jobs, state, request_id, outcome.result)
        elif outcome is None:
            await self._jobs.look_now(state.id)
        else:
            await settle(self._jobs, state, outcome)
