"""After a backup was restored: what became of the jobs that the backup has as waiting."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
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
# So much may fal's clock differ from the database's.
CLOCK_SLACK = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Finding:
    job: HeldJob
    request_id: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class CheckRestored:
    """Look for each held job in fal's request history, and give it the one request that can only be its own."""

    jobs: RestoredJobs
    submissions: LostSubmissions
    history: RequestHistory | None
    request_of: Callable[[str, str], ProviderRequest]

    async def __call__(self) -> AsyncIterator[Finding]:
        after: UUID | None = None
        while held := await self.jobs.held(after=after, limit=HELD_AT_ONCE):
            after = held[-1].id
            for model_id, group in groupby(sorted(held, key=lambda job: job.model_id), key=lambda job: job.model_id):
                for finding in await self._check(model_id, list(group)):
                    yield finding

    async def _check(self, model_id: str, jobs: Sequence[HeldJob]) -> Sequence[Finding]:
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
        return [await self._judge(job, candidates) for job in jobs]

    async def _judge(self, job: HeldJob, candidates: Mapping[UUID, Sequence[str]]) -> Finding:
        own = candidates[job.id]
        if not own:
            return Finding(job, None, "fal's history has no such request; it lists a request once it has ended")
        if len(own) > 1 or job.has_rival:
            return Finding(job, None, f"fal's history has {len(own)} that fit it or another job: compare them by hand")
        if not await self.jobs.adopt(job.id, self.request_of(job.model_id, own[0])):
            return Finding(job, None, "it ended in the meantime, or another job has this request")
        log.warning("generation_adopted", job_id=str(job.id), fal_request_id=own[0], how="restore")
        return Finding(job, own[0], "fal has run it: it goes on from there")


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
