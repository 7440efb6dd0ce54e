"""What is logged of refused events of fal: anybody can send one, and nobody may fill the log."""

import asyncio
import contextvars
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from app.domain.errors import InvalidProviderEvent

log = structlog.get_logger(__name__)

# Of each reason.
SECONDS_BETWEEN_LINES = 1.0


@dataclass(slots=True)
class _Held:
    """What came since the last line of its reason."""

    count: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class RefusalLog:
    """One warning for a refused event, with its reason. In a flood, one a second, with a count and the last facts."""

    _held: dict[str, _Held] = field(default_factory=dict)

    def add(self, refused: InvalidProviderEvent) -> None:
        held = self._held.get(refused.reason)
        if held is None:
            self._write(refused.reason, _Held(1, refused.facts))
        else:
            held.count += 1
            held.facts = refused.facts

    def _write(self, reason: str, held: _Held) -> None:
        log.warning("provider_event_refused", reason=reason, count=held.count, **held.facts)
        self._held[reason] = _Held()
        # What comes later is no longer about the request of this one.
        asyncio.get_running_loop().call_later(SECONDS_BETWEEN_LINES, self._go_on, reason, context=contextvars.Context())

    def _go_on(self, reason: str) -> None:
        held = self._held.pop(reason)
        if held.count:
            self._write(reason, held)
