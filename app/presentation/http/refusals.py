"""What is logged of refused events of fal: anybody can send one, and nobody may fill the log."""

import asyncio
import time
from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass, field

import structlog

from app.domain.errors import InvalidProviderEvent

log = structlog.get_logger(__name__)

# Of each reason.
SECONDS_BETWEEN_LINES = 1.0


@dataclass(slots=True)
class _Held:
    """What came since the last line of its reason."""

    written_at: float = float("-inf")
    count: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class RefusalLog:
    """One warning for a refused event, with its reason. In a flood, one a second, with a count and the last facts."""

    _held: dict[str, _Held] = field(default_factory=dict)

    def add(self, refused: InvalidProviderEvent) -> None:
        held = self._held.setdefault(refused.reason, _Held())
        held.count += 1
        held.facts = refused.facts
        wait_seconds = held.written_at + SECONDS_BETWEEN_LINES - time.monotonic()
        if wait_seconds <= 0:
            self._write(refused.reason)
        elif held.count == 1:
            # The line is about many requests, and so has no request's context.
            asyncio.get_running_loop().call_later(wait_seconds, self._write, refused.reason, context=Context())

    def _write(self, reason: str) -> None:
        held = self._held[reason]
        if held.count:
            log.warning("provider_event_refused", reason=reason, count=held.count, **held.facts)
            held.count, held.written_at = 0, time.monotonic()
