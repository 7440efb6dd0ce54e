import asyncio
import random
from uuid import UUID

import structlog

from app.application.execution.steps import RetryLater
from app.application.ports.execution import JobInputs

log = structlog.get_logger(__name__)

# Each unpacks and digests megabytes in PostgreSQL.
FORGOTTEN_AT_ONCE = 2
PAUSE_SECONDS = 0.5


class ForgetInput:
    """Take the pictures and sounds that an ended job was given out of its row, which keeps their digest and size."""

    def __init__(self, inputs: JobInputs) -> None:
        self._inputs = inputs
        self._forgetting = asyncio.Semaphore(FORGOTTEN_AT_ONCE)

    async def __call__(self, job_id: UUID) -> None:
        if self._forgetting.locked():
            # The step does not wait here: looks at jobs share its lane.
            raise RetryLater(random.uniform(PAUSE_SECONDS, 2 * PAUSE_SECONDS))
        async with self._forgetting:
            if await self._inputs.forget(job_id):
                log.info("input_forgotten", job_id=str(job_id))
