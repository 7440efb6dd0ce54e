"""Why a job waits, as the step that could not submit it knows."""

from dataclasses import dataclass
from uuid import UUID

import structlog

from app.application.ports.execution import Wait
from app.domain.job_errors import QUEUE_TIMEOUT
from app.domain.jobs import WaitingFor

log = structlog.get_logger(__name__)

BUSY = Wait(
    reason="Other submissions of this account are on their way to fal.",
    waiting_for=WaitingFor.YOUR_LIMIT,
    is_providers=False,
)
BUSY_WITH_LARGE_INPUTS = Wait(
    reason="Other large inputs of this account are on their way to fal.",
    waiting_for=WaitingFor.YOUR_LIMIT,
    is_providers=False,
)


@dataclass(frozen=True, slots=True)
class ProviderWaits:
    seconds_max: int | None
    """For how long a job may wait because of fal; None for ever."""

    def wait(self, reason: str, waiting_for: WaitingFor, waited_seconds: float | None) -> Wait:
        """Of a job that has waited because of fal before, and does so again.

        So does one whose account's own submissions pause: it is fal's answers that make them.
        """
        is_over = self.seconds_max is not None and (waited_seconds or 0) >= self.seconds_max
        seconds_max = self.seconds_max if is_over else None
        return Wait(reason=reason, waiting_for=waiting_for, is_providers=True, seconds_max=seconds_max)


def log_queue_timeout(job_id: UUID) -> None:
    log.warning("generation_queue_timeout", job_id=str(job_id), code=QUEUE_TIMEOUT.code)
