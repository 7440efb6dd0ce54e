from dataclasses import dataclass

import structlog

from app.application.ports.events import EventUpkeep
from app.application.ports.execution import JobInputs, JobUpkeep, StepUpkeep
from app.application.ports.restores import RestoreNotice
from app.application.ports.webhooks import DeliveryUpkeep

log = structlog.get_logger(__name__)

FORGET_TIMES_MAX = 10


@dataclass(frozen=True, slots=True)
class Sweep:
    """Queue the steps again that the queue has lost, and forget idempotency keys that have served their time.

    First of all it notices a restored backup: no step runs before the first sweep has. At the end it marks the large
    inputs that an older release accepted, so that they are forgotten, too, and forgets old deliveries and events.
    """

    steps: StepUpkeep
    jobs: JobUpkeep
    inputs: JobInputs
    restores: RestoreNotice
    events: EventUpkeep
    deliveries: DeliveryUpkeep

    async def __call__(self) -> None:
        held = await self.restores.notice()
        if held:
            log.error("restored_backup_noticed", held=held)
        requeued = await self.steps.requeue_lost()
        for step, subject_ids in requeued.items():
            for subject_id in subject_ids:
                log.warning(f"{step.area}_requeued", **step.context(subject_id))
        await self.jobs.forget_idempotency_keys()
        while await self.jobs.forget_waits():
            pass
        await self.inputs.mark_older()
        # No step runs before the first sweep is over, so there is an end to it; the rest has time.
        if lost := await self.deliveries.requeue_lost():
            log.warning("deliveries_requeued", endpoints=lost)
        for forget in (self.deliveries.forget, self.events.forget):
            for _ in range(FORGET_TIMES_MAX):
                if not await forget():
                    break
