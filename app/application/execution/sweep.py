from dataclasses import dataclass

import structlog

from app.application.ports.execution import JobUpkeep

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SweepJobs:
    """Find unfinished jobs that no queue item looks after, whatever lost it, and queue them again.

    Forgets idempotency keys that have served their time, too.
    """

    jobs: JobUpkeep

    async def __call__(self) -> None:
        for job_id in await self.jobs.requeue_lost():
            log.warning("generation_requeued", job_id=str(job_id))
        await self.jobs.forget_idempotency_keys()
