from dataclasses import dataclass

import structlog

from app.application.ports.execution import JobUpkeep, StepUpkeep

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Queue the steps again that the queue has lost, and forget idempotency keys that have served their time."""

    steps: StepUpkeep
    jobs: JobUpkeep

    async def __call__(self) -> None:
        requeued = await self.steps.requeue_lost()
        for step, subject_ids in requeued.items():
            for subject_id in subject_ids:
                log.warning(f"{step.area}_requeued", **step.context(subject_id))
        await self.jobs.forget_idempotency_keys()
