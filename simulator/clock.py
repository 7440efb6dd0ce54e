from collections.abc import Callable


class Clock:
    """The machine's time, which a test can move forward or hold still."""

    def __init__(self, machine_now: Callable[[], float]) -> None:
        self.machine_now = machine_now
        self._moved_seconds = 0.0
        self._held_at: float | None = None

    @property
    def is_held(self) -> bool:
        return self._held_at is not None

    def now(self) -> float:
        return (self.machine_now() if self._held_at is None else self._held_at) + self._moved_seconds

    def advance(self, seconds: float) -> None:
        self._moved_seconds += seconds

    def hold(self) -> None:
        if self._held_at is None:
            self._held_at = self.machine_now()

    def release(self) -> None:
        """Time goes on from where it was held."""
        if self._held_at is not None:
            self._moved_seconds += self._held_at - self.machine_now()
            self._held_at = None

    def reset(self) -> None:
        self._moved_seconds, self._held_at = 0.0, None
