"""Requests in the queue. Where one stands follows from its timestamps: nothing runs while it waits."""

import itertools
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from simulator.answers import Answer
from simulator.behaviours import Behaviour
from simulator.media import Film, Picture


class Phase(StrEnum):
    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: what the result endpoint answers from now on, and the media behind its URLs."""

    answer: Answer
    media: Sequence[Picture | Film] = ()
    files: Sequence[dict[str, Any]] = ()
    """What the answer says of each of the media."""

    @property
    def error_fields(self) -> dict[str, str]:
        """The part of a COMPLETED status that names the failure; empty after success."""
        if self.answer.status_code == 200:
            return {}
        detail = self.answer.body["detail"]
        if isinstance(detail, str):
            error_type = self.answer.body.get("error_type")
            return {"error": detail} | ({"error_type": error_type} if error_type else {})
        return {
            "error": f"Invalid status code: {self.answer.status_code}",
            "error_type": detail[0]["type"],
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a client sent along to recognise its submit later."""

    webhook_url: str | None
    tags: dict[str, str]


@dataclass(slots=True, eq=False)
class QueueRequest:
    request_id: str
    endpoint_id: str
    app_id: str
    base_url: str
    input: object
    behaviour: Behaviour
    attempt: Attempt | None
    key_id: str
    submitted_at: float
    started_at: float
    """Infinite, like `ended_at`, for a request that never leaves the queue."""
    ended_at: float
    misses_start: bool = False
    """It ends because it did not start within the limit that its client set."""
    place: int = 0
    """Order of arrival; a stuck request keeps 0 and so has nobody ahead."""
    cancel_requested_at: float | None = None
    outcome: Outcome | None = None
    media_seconds: float | None = None
    """How long after its end its outputs are there; None: for ever."""
    is_webhook_settled: bool = False
    """Its webhook was received, or will not be sent again."""

    @property
    def webhook_url(self) -> str | None:
        return (self.attempt.webhook_url or None) if self.attempt else None

    def phase(self, now: float) -> Phase:
        if self.outcome is not None or now >= self.ended_at:
            return Phase.COMPLETED
        return Phase.IN_QUEUE if now < self.started_at else Phase.IN_PROGRESS

    @property
    def url(self) -> str:
        return f"{self.base_url}/{self.app_id}/requests/{self.request_id}"

    @property
    def media_gone_at(self) -> float:
        asked = (self.media_seconds, self.behaviour.media_seconds)
        return self.ended_at + min((seconds for seconds in asked if seconds is not None), default=math.inf)

    @property
    def run_seconds(self) -> float | None:
        """None when a cancel took it out of the queue."""
        return self.ended_at - self.started_at if self.started_at <= self.ended_at else None


class RequestStore:
    def __init__(self, requests_kept: int) -> None:
        self._requests_kept = requests_kept
        self._requests: dict[str, QueueRequest] = {}
        self._waiting: deque[QueueRequest] = deque()
        self._places = 0

    def add(self, request: QueueRequest, now: float) -> None:
        if not request.behaviour.is_stuck:
            self._places += 1
            request.place = self._places
            self._waiting.append(request)
        self._requests[request.request_id] = request
        if len(self._requests) > self._requests_kept:
            self._forget_oldest_finished(now)

    def find(self, request_id: str) -> QueueRequest | None:
        return self._requests.get(request_id)

    def waiting_count(self, now: float) -> int:
        while self._waiting and self._waiting[0].phase(now) is not Phase.IN_QUEUE:
            self._waiting.popleft()
        return len(self._waiting)

    def position(self, request: QueueRequest, now: float) -> int:
        """How many requests wait ahead of this one."""
        if not self.waiting_count(now):
            return 0
        return max(0, request.place - self._waiting[0].place)

    def newest(self, count: int | None = None) -> Iterable[QueueRequest]:
        return itertools.islice(reversed(self._requests.values()), count)

    def before(self, request: QueueRequest) -> Iterable[QueueRequest]:
        """Those that came earlier, the latest of them first."""
        return itertools.islice(
            itertools.dropwhile(lambda other: other is not request, reversed(self._requests.values())), 1, None
        )

    def count_by_phase(self, now: float) -> dict[str, int]:
        counts = Counter(request.phase(now) for request in self._requests.values())
        return {phase.value: counts[phase] for phase in Phase}

    def _forget_oldest_finished(self, now: float) -> None:
        # Unfinished requests at the front are skipped, but not without end: a submit stays cheap.
        for request in itertools.islice(self._requests.values(), 100):
            if request.phase(now) is Phase.COMPLETED:
                del self._requests[request.request_id]
                return
