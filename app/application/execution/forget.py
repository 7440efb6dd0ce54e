from dataclasses import dataclass
from uuid import UUID

import structlog

from app.application.ports.execution import JobInputs

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ForgetInput:
    """Take the pictures and sounds that an ended job was given out of its row, which keeps their digest and size."""

    inputs: JobInputs

    async def __call__(self, job_id: UUID) -> None:
        if await self.inputs.forget(job_id):
            log.info("input_forgotten", job_id=str(job_id))
