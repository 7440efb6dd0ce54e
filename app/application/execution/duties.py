"""What a process has to do again and again, and whether it still does."""

import time
from collections.abc import Callable, Iterable, Sequence

from app.application.execution.steps import Step

HOUSEKEEPING = "housekeeping"


def duties_of(steps: Iterable[Step]) -> Sequence[str]:
    """What a runner of these steps has to do: to look for work in each lane, and to keep house."""
    return [*sorted({step.lane.name for step in steps}), HOUSEKEEPING]


class Duties:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._within_seconds: dict[str, float] = {}
        self._beaten_at_seconds: dict[str, float] = {}

    def begin(self, duty: str, within_seconds: float) -> None:
        """From now on the duty is dead whenever it has not beaten for so long."""
        self._within_seconds[duty] = within_seconds
        self.beat(duty)

    def beat(self, duty: str) -> None:
        self._beaten_at_seconds[duty] = self._clock()

    def end(self) -> None:
        """Nothing of it is to be done any more, or not until it begins again."""
        self._within_seconds.clear()

    @property
    def alive(self) -> Sequence[str]:
        return [duty for duty in self._within_seconds if self._is_alive(duty)]

    @property
    def dead(self) -> Sequence[str]:
        return [duty for duty in self._within_seconds if not self._is_alive(duty)]

    def _is_alive(self, duty: str) -> bool:
        return self._clock() <= self._beaten_at_seconds[duty] + self._within_seconds[duty]
