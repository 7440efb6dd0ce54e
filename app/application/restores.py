"""After a backup was restored: what became of the jobs that the backup has as waiting."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from types import MappingProxyType
from uuid import UUID

import structlog

from app.application.ports.evidence import LostSubmissions, RequestHistory
from app.application.ports.provider import ProviderRequest, ProviderUnavailable
from app.application.ports.restores import HeldJob, RestoredJobs
from app.domain.job_errors import RESTORED
from app.domain.jobs import Outcome

log = structlog.get_logger(__name__)

# Each may carry two pictures of 5 MiB.
HELD_AT_ONCE = 25
# Of the requests that fit a job.
SHOWN_MAX = 5
# So much may fal's clock differ from the database's.
CLOCK_SLACK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Finding:
    job: HeldJob
    request_id: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class CheckRestored:
    """Look for each held job in fal's request history, and give it the request that the operator has chosen of these.

    The same input is no proof: a job that was accepted since the backup, perhaps another user's, may have had it too,
    and nothing in the backup tells of that job.
    """

    jobs: RestoredJobs
    submissions: LostSubmissions
    history: RequestHistory | None
    request_of: Callable[[str, str], ProviderRequest]

    async def __call__(self, chosen: Mapping[UUID, str] = MappingProxyType({})) -> AsyncIterator[Finding]:
        """`chosen`: the request of each job that is to be given one."""
        after: UUID | None = None
        while held := await self.jobs.held(after=after, limit=HELD_AT_ONCE):
            after = held[-1].id
            for model_id, group in groupby(sorted(held, key=lambda job: job.model_id), key=lambda job: job.model_id):
                for finding in await self._check(model_id, list(group), chosen):
                    yield finding

    async def _check(self, model_id: str, jobs: Sequence[HeldJob], chosen: Mapping[UUID, str]) -> Sequence[Finding]:
        if self.history is None:
            return [Finding(job, None, "not looked for: FAL_ADMIN_KEY is not set") for job in jobs]
        try:
            found = await self.history.find_each(
                model_id,
                {job.id: job.parameters for job in jobs},
                sent_from=min(job.created_at for job in jobs) - CLOCK_SLACK,
                sent_until=datetime.now(UTC) + CLOCK_SLACK,
            )
        except ProviderUnavailable as error:
            return [Finding(job, None, f"not looked for: {error}") for job in jobs]
        known = await self.submissions.known([one for requests in found.values() for one in requests])
        candidates = {job_id: sorted(set(requests) - known) for job_id, requests in found.items()}
        return [await self._judge(job, candidates[job.id], chosen.get(job.id)) for job in jobs]

    async def _judge(self, job: HeldJob, candidates: Sequence[str], chosen: str | None) -> Finding:
        if not candidates:
            return Finding(job, None, "fal's history has no such request; it lists a request once it has ended")
        told = ", ".join(candidates[:SHOWN_MAX]) + (" ..." if len(candidates) > SHOWN_MAX else "")
        if chosen is None:
            return Finding(job, None, f"fal has run its input, for this job or for another one: {told}")
        if chosen not in candidates:
            return Finding(job, None, f"{chosen} cannot be its request: choose one of {told}")
        if not await self.jobs.adopt(job.id, self.request_of(job.model_id, chosen)):
            return Finding(job, None, "it ended in the meantime, or another job has this request")
        log.warning("generation_adopted", job_id=str(job.id), fal_request_id=chosen, how="restore")
        return Finding(job, chosen, "it goes on from there")


@dataclass(frozen=True, slots=True)
class EndRestored:
    """End the held jobs and give their tokens back, in place of submitting them, perhaps a second time."""

    jobs: RestoredJobs

    async def __call__(self) -> int:
        outcome = Outcome.failed(RESTORED.code, RESTORED.sentence())
        ended = 0
        while count := await self.jobs.end(outcome, limit=HELD_AT_ONCE):
            ended += count
        return ended
