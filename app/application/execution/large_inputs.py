import random
from dataclasses import dataclass, field
from uuid import UUID

from app.application.execution.pacing import Spread
from app.application.execution.places import Place, Places
from app.application.execution.steps import RetryLater

# Each holds two pictures of 5 MiB at most, and their copies, in memory.
LARGE_INPUTS_MAX = 16
LARGE_INPUT_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LargeInputPlaces:
    """For inputs of megabytes that a process submits at once."""

    spread: Spread
    _places: Places = field(default_factory=lambda: Places(LARGE_INPUTS_MAX), init=False)

    def take(self, account_id: UUID) -> Place:
        """Raises RetryLater: the step does not wait where it is, for submissions may pause and the service may stop."""
        place = self._places.take(account_id)
        if place is None:
            seconds = random.uniform(LARGE_INPUT_PAUSE_SECONDS, 2 * LARGE_INPUT_PAUSE_SECONDS)
            raise RetryLater(self.spread.delay_seconds(account_id, seconds))
        return place
