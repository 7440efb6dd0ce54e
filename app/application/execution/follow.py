from dataclasses import dataclass, field
from uuid import UUID

import structlog

from app.application.execution.breaker import Breaker
from app.application.execution.evidence import SearchHistory, is_search_due, seconds_to_next_look
from app.application.execution.pacing import POLL_SECONDS_MIN, Backstop, Spread, poll_seconds
from app.application.execution.places import Places
from app.application.execution.settlement import (
    TIMED_OUT,
    given_up,
    outcome_of,
    record_late_result,
    settle_or_keep_late,
)
from app.application.execution.steps import LOOKS, RetryLater
from app.application.fault_points import reach
from app.application.ports.execution import AttemptEnd, JobFollowing, JobState
from app.application.ports.provider import (
    InQueue,
    Observation,
    Provider,
    ProviderRequest,
    ProviderUnavailable,
    Rejected,
    Succeeded,
)
from app.domain.job_errors import SUBMIT_UNKNOWN
from app.domain.jobs import JobStatus

log = structlog.get_logger(__name__)

CANCEL_GRACE_SECONDS = 120
UNANSWERED_GRACE_SECONDS = 600
UNKNOWN_LOOK_SECONDS = 10
# fal may have run a job that was given up because its submission stayed unknown: this much later its history is
# searched once more.
LATE_SEARCH_SECONDS = 600
# Before a look comes back whose account has its share of looks under way.
BUSY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class FollowJob:
    """Look where fal stands and move the job accordingly, up to its end.

    Transport trouble never ends a job: only fal's own verdict, a confirmed cancel, or the time limit does.
    """

    jobs: JobFollowing
    provider: Provider
    backstop: Backstop | None = None
    search: SearchHistory | None = None
    breaker: Breaker = field(default_factory=Breaker)
    places: Places = field(default_factory=lambda: Places(LOOKS.provider_calls_max))
    _spread: Spread = field(default_factory=Spread, init=False)

    async def __call__(self, job_id: UUID) -> None:
        state = await self.jobs.load(job_id)
        if state is None or state.status is JobStatus.QUEUED:
            return
        place = self.places.take(state.account_id)
        if place is None:
            raise RetryLater(self._spread.delay_seconds(state.account_id, BUSY_SECONDS))
        with place:
            await self._look(state)

    async def _look(self, state: JobState) -> None:
        if self._is_search_due(state):
            await self._adopt_from_history(state)
            # The search took a while, and fal's event may have come in the meantime.
            state = await self.jobs.load(state.id) or state
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
        """The history is searched at the moments that `evidence` sets, and once more before the job is given up."""
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
            observation = await self.provider.observe(request, state.terms.shape)
        except ProviderUnavailable as error:
            log.info("generation_look_failed", job_id=str(state.id), reason=str(error))
            return
        if isinstance(observation, Succeeded):
            assert state.attempt_token is not None
            await self.jobs.record_orphan(state.attempt_token, request_id, is_over=True)
            await record_late_result(self.jobs, state, request_id, observation.result)

    async def _wait_for_evidence(self, state: JobState) -> None:
        # Without the mark that its outcome is unknown, the POST may still be under way in another process.
        if not (state.is_overdue and state.is_submit_unknown):
            if self.search is None:
                raise RetryLater(UNKNOWN_LOOK_SECONDS)
            raise RetryLater(seconds_to_next_look(state.seconds_since_claim, UNKNOWN_LOOK_SECONDS))
        log.error("generation_submit_given_up", job_id=str(state.id))
        await settle_or_keep_late(self.jobs, state, given_up(state, SUBMIT_UNKNOWN.code, SUBMIT_UNKNOWN.sentence()))
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
            observation = await self.provider.observe(request, state.terms.shape)
        except ProviderUnavailable as error:
            log.info("generation_look_failed", job_id=str(state.id), reason=str(error))
            await self._wait_or_give_up(state, state.status, is_answered=False)
            return
        self.breaker.record_answer()
        outcome = outcome_of(observation, state)
        if outcome is not None:
            await settle_or_keep_late(self.jobs, state, outcome, _end_of(state, observation))
            return
        status = JobStatus.IN_QUEUE if isinstance(observation, InQueue) else JobStatus.IN_PROGRESS
        position = observation.position if isinstance(observation, InQueue) else None
        if status is not state.status or position != state.provider_position:
            await self.jobs.record_progress(state.id, status, provider_position=position)
        if status is not state.status:
            log.info("generation_progressed", job_id=str(state.id), status=status.value)
        await self._wait_or_give_up(state, status, is_answered=True)

    async def _wait_or_give_up(self, state: JobState, status: JobStatus, *, is_answered: bool) -> None:
        """Give fal a period of grace to stop, after the time limit or after a cancel that found the request queued.

        Both are counted from a look that we made. The period is longer if fal does not answer.
        """
        seconds_used = state.seconds_since_overdue_noticed or 0
        if state.cancel_requested and status is JobStatus.IN_QUEUE:
            seconds_used = max(seconds_used, state.seconds_since_cancel_sent or 0)
        if seconds_used >= (CANCEL_GRACE_SECONDS if is_answered else UNANSWERED_GRACE_SECONDS):
            await settle_or_keep_late(self.jobs, state, given_up(state, "timed_out", TIMED_OUT))
            return
        if self.backstop is None or state.cancel_requested or state.is_overdue:
            seconds = poll_seconds(state.seconds_since_claim)
        else:
            seconds = await self.backstop.seconds_to_look(state.seconds_since_claim)
        if not state.is_overdue:
            seconds = min(seconds, state.seconds_to_deadline + POLL_SECONDS_MIN)
        if not is_answered:
            # Such looks take long, and what is asked in vain must not take the place of what would be answered.
            seconds = self._spread.delay_seconds(state.account_id, seconds)
        raise RetryLater(seconds)


def _end_of(state: JobState, observation: Observation) -> AttemptEnd | None:
    """What fal bills for the attempt, if it said that."""
    units = observation.billed_units if isinstance(observation, Succeeded | Rejected) else None
    if units is None or state.attempt_token is None:
        return None
    return AttemptEnd(token=state.attempt_token, billed_units=units)
