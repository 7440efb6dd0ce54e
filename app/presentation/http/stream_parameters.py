"""What callers say who wait: for how long, and from where they go on."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from app.domain.events import SEQ_MAX
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import field_error

WAIT_SECONDS_MAX = 60
_WAIT = re.compile(r"[0-9]{1,3}", re.ASCII)
_SEQ = re.compile(r"[0-9]{1,16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class WaitInQuery:
    async def __call__(self, request: Request) -> int | None:
        """Raises InvalidRequest."""
        if not request.scope["query_string"]:
            return None
        given = request.query_params.getlist("wait")
        if not given:
            return None
        seconds = int(given[-1]) if _WAIT.fullmatch(given[-1]) else 0
        if not 1 <= seconds <= WAIT_SECONDS_MAX:
            raise InvalidRequest([field_error("invalid_wait", "wait")])
        return seconds

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": "wait",
            "in": "query",
            "required": False,
            "description": "Answer at the next change of `status`, or after so many seconds. A job that is final is "
            "answered at once.",
            "schema": {"type": "integer", "minimum": 1, "maximum": WAIT_SECONDS_MAX},
        }


@dataclass(frozen=True, slots=True)
class LastEventIdHeader:
    async def __call__(self, request: Request) -> int | None:
        """Raises InvalidRequest."""
        given = request.headers.get("last-event-id")
        if given is None:
            return None
        seq = int(given) if _SEQ.fullmatch(given) else SEQ_MAX + 1
        if seq > SEQ_MAX:
            raise InvalidRequest([field_error("invalid_last_event_id", "Last-Event-ID")])
        return seq

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "The `id` of the last message that came, as browsers send it by themselves.",
            "schema": {"type": "string", "pattern": f"^{_SEQ.pattern}$"},
        }


Wait = Annotated[int | None, Depends(WaitInQuery())]
LastEventId = Annotated[int | None, Depends(LastEventIdHeader())]
