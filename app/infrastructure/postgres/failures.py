"""What the database refused lately: a log event for the operator, and whether writes fail."""

import time
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.faults import WRITES_REFUSED, fault_of

log = structlog.get_logger(__name__)

# An outage fails thousands of requests a second, for one and the same reason.
SAID_SECONDS = 1.0
# For so long after the last refusal the service is not ready: a proxy that keeps requests away proves nothing.
REFUSED_SECONDS = 15.0


@dataclass(slots=True)
class _Kind:
    count: int = 0
    said_at_seconds: float = float("-inf")
    failed_at_seconds: float = float("-inf")


@dataclass(slots=True)
class Failures:
    _kinds: dict[str, _Kind] = field(default_factory=dict)

    def note(self, error: BaseException) -> None:
        fault = fault_of(error)
        now_seconds = time.monotonic()
        kind = self._kinds.setdefault(fault.kind, _Kind())
        kind.count += 1
        kind.failed_at_seconds = now_seconds
        if now_seconds >= kind.said_at_seconds + SAID_SECONDS:
            log.warning("database_failed", sqlstate=fault.kind, message=fault.message, count=kind.count)
            kind.count, kind.said_at_seconds = 0, now_seconds

    def writes_refused(self) -> str | None:
        """Why writes failed within the last REFUSED_SECONDS, in words for everybody."""
        since_seconds = time.monotonic() - REFUSED_SECONDS
        for code, words in WRITES_REFUSED.items():
            if code in self._kinds and self._kinds[code].failed_at_seconds > since_seconds:
                return words
        return None


_failures: WeakKeyDictionary[AsyncEngine, Failures] = WeakKeyDictionary()


def failures_of(engine: AsyncEngine) -> Failures:
    return _failures.setdefault(engine, Failures())
