"""Pauses submissions while fal is away or refuses the operator's key: jobs wait in QUEUED and none fails."""

import time
from collections.abc import Callable

import structlog

from app.application.ports.health import Check

log = structlog.get_logger(__name__)

FAILURES_MAX = 5
PAUSE_SECONDS_MIN = 10.0
PAUSE_SECONDS_MAX = 60.0


class Breaker:
    """Opens after FAILURES_MAX failures in a row, or at once for a refused key. While it is open, one submission
    in each pause tries whether fal is back; the pause doubles with each try that fails.

    One for each process: what one of them learns, the others learn by themselves.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._reason: str | None = None
        self._pause_seconds = PAUSE_SECONDS_MIN
        self._next_try_at = 0.0
        self._is_trying = False

    @property
    def reason(self) -> str | None:
        """Why it is open; None while it is closed."""
        return self._reason

    def wait_seconds(self) -> float:
        """How long a submission has to wait. If it is 0 the submission may go on: with an open breaker, as the one that
        tries whether fal is back.
        """
        if self._reason is None:
            return 0.0
        remaining = self._next_try_at - self._clock()
        if remaining > 0:
            return remaining
        self._next_try_at = self._clock() + self._pause_seconds
        self._is_trying = True
        return 0.0

    def record_success(self) -> None:
        """fal answered, whatever it said about the job."""
        if self._reason is not None:
            log.warning("submissions_resumed")
        self._failures, self._reason, self._pause_seconds = 0, None, PAUSE_SECONDS_MIN

    def record_failure(self, reason: str, *, at_once: bool = False) -> None:
        self._failures += 1
        if self._reason is not None:
            if not self._is_trying:
                # This submission was under way when the breaker opened, and says nothing new.
                return
            self._is_trying = False
            self._pause_seconds = min(self._pause_seconds * 2, PAUSE_SECONDS_MAX)
        elif not at_once and self._failures < FAILURES_MAX:
            return
        else:
            log.error("submissions_paused", reason=reason, seconds=self._pause_seconds)
        self._reason = reason
        self._next_try_at = self._clock() + self._pause_seconds

    async def check(self) -> Check:
        """Report the state. It never makes the service unready: accepting, answering and following go on."""
        if self._reason is None:
            return Check("fal", True, "submissions go on")
        return Check("fal", True, f"submissions pause: {self._reason}")
