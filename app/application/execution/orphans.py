from dataclasses import dataclass, field
from uuid import UUID

import structlog

from app.application.execution.pacing import Spread
from app.application.execution.places import Places
from app.application.execution.settlement import outcome_of, record_late_result, settle
from app.application.execution.steps import LOOKS, RetryLater
from app.application.ports.execution import AttemptEnd, JobEnds, JobOrphans, JobState, Orphan
from app.application.ports.provider import (
    InProgress,
    InQueue,
    Observation,
    Provider,
    ProviderRequest,
    ProviderUnavailable,
    Rejected,
    Succeeded,
)
from app.domain.jobs import JobStatus, Outcome

log = structlog.get_logger(__name__)

PAUSE_SECONDS_MIN = 0.5
PAUSE_SECONDS_MAX = 60.0
# As long as fal keeps a result. Whatever runs for longer, or cannot be asked for, is left alone.
ORPHAN_SECONDS_MAX = 3600


@dataclass(frozen=True, slots=True)
class CancelOrphans:
    """Stop the runs of a job's attempts that the job does not follow, and see how they end.

    Whichever attempt delivers first wins the job, an orphan too. What comes later is neither charged nor shown.
    """

    jobs: JobOrphans
    provider: Provider
    places: Places = field(default_factory=lambda: Places(LOOKS.provider_calls_max))
    """Those of the looks."""
    _spread: Spread = field(default_factory=Spread, init=False)

    async def __call__(self, job_id: UUID) -> None:
        state = await self.jobs.load(job_id)
        assert state is not None, "jobs are never deleted"
        place = self.places.take(state.account_id)
        if place is None:
            raise RetryLater(self._spread.delay_seconds(state.account_id, PAUSE_SECONDS_MIN))
        with place:
            for orphan in await self.jobs.load_orphans(job_id):
                await self._look_at(job_id, orphan)
        # One that wins the job makes an orphan of the run that the job followed, and this step's own item keeps
        # another one from being queued for it.
        left = await self.jobs.load_orphans(job_id)
        if left:
            raise RetryLater(min(_pause_seconds(orphan) for orphan in left))

    async def _look_at(self, job_id: UUID, orphan: Orphan) -> None:
        state = await self.jobs.load(job_id)
        assert state is not None, "jobs are never deleted"
        request = self.provider.request_of(state.model_id, orphan.request_id)
        context = {"job_id": str(job_id), "fal_request_id": request.id}
        observation = await self._observation(state, orphan, request)
        if observation is None or isinstance(observation, InQueue | InProgress):
            if orphan.seconds_since_orphaned >= ORPHAN_SECONDS_MAX:
                log.error("generation_orphan_given_up", **context)
                await self.jobs.update_orphan(orphan.attempt_token, is_over=True)
            return
        units = observation.billed_units if isinstance(observation, Succeeded | Rejected) else None
        log.warning(
            "generation_orphan_ended",
            **context,
            has_result=isinstance(observation, Succeeded),
            billed_units=None if units is None else str(units),
        )
        outcome = outcome_of(observation, state)
        end = AttemptEnd(token=orphan.attempt_token, billed_units=units, takes_over=request)
        if not await is_won_by(self.jobs, state, outcome, end):
            await keep_late_result(self.jobs, state.id, request.id, outcome)
            await self.jobs.update_orphan(orphan.attempt_token, is_over=True, units=units)

    async def _observation(self, state: JobState, orphan: Orphan, request: ProviderRequest) -> Observation | None:
        try:
            if not orphan.is_cancel_sent:
                await self.provider.cancel(request)
                await self.jobs.update_orphan(orphan.attempt_token, is_cancel_sent=True)
                log.info("generation_orphan_cancel_sent", job_id=str(state.id), fal_request_id=request.id)
            return await self.provider.observe(request, state.terms.shape)
        except ProviderUnavailable as error:
            log.info("generation_orphan_look_failed", job_id=str(state.id), reason=str(error))
            return None


async def is_won_by(jobs: JobEnds, state: JobState, outcome: Outcome | None, end: AttemptEnd) -> bool:
    """End the job by an attempt that it does not follow, if that delivered and nobody else ended the job before.

    False: what that attempt has run is an orphan. Its failure says nothing about the attempt that the job follows.
    """
    assert end.takes_over is not None
    if outcome is None or outcome.result is None or state.status.is_final:
        return False
    if await settle(jobs, state, outcome, end):
        return True
    now = await jobs.load(state.id)
    # Somebody else may have told the same end.
    return now is not None and now.request is not None and now.request.id == end.takes_over.id


async def keep_late_result(jobs: JobEnds, job_id: UUID, request_id: str, outcome: Outcome | None) -> None:
    """Keep what an orphan delivered for a job that got nothing."""
    state = await jobs.load(job_id)
    if state is None or not state.status.is_final or state.status is JobStatus.COMPLETED:
        return
    if outcome is not None and outcome.result is not None:
        await record_late_result(jobs, state, request_id, outcome.result)


def _pause_seconds(orphan: Orphan) -> float:
    return min(max(orphan.seconds_since_orphaned / 2, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)
