"""What was accepted, canceled and delivered, as lines of JSON: enough to go on after a restart.

All else follows from it.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simulator import answers
from simulator.behaviours import behaviour_of
from simulator.requests import Attempt, Outcome, QueueRequest

REQUESTS_KEPT = 2_000


class Journal:
    """Lines are flushed to the operating system, not to the disk: this survives a kill, not a power cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def record_request(self, request: QueueRequest) -> None:
        self._write({"request": _fields(request)})

    def record_cancel(self, request: QueueRequest) -> None:
        self._write({"canceled": request.request_id, "at": request.cancel_requested_at, "ended_at": request.ended_at})

    def record_settled_webhook(self, request: QueueRequest) -> None:
        self._write({"webhook_settled": request.request_id})

    def record_input(self, key: str, path: Path) -> None:
        self._write({"input": key, "file": path.name})

    def clear(self) -> None:
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read(path: Path) -> tuple[list[QueueRequest], dict[str, str]]:
    """The newest requests, oldest first, and the input files by key. A line that a kill cut short is skipped."""
    requests: dict[str, QueueRequest] = {}
    inputs: dict[str, str] = {}
    for line in _lines(path):
        if "request" in line:
            request = _request(line["request"])
            requests[request.request_id] = request
        elif "canceled" in line and line["canceled"] in requests:
            _cancel(requests[line["canceled"]], line["at"], line["ended_at"])
        elif "webhook_settled" in line and line["webhook_settled"] in requests:
            requests[line["webhook_settled"]].is_webhook_settled = True
        elif "input" in line:
            inputs[line["input"]] = line["file"]
    return list(requests.values())[-REQUESTS_KEPT:], inputs


def rewrite(path: Path, requests: Iterable[QueueRequest], inputs: dict[str, Path]) -> Journal:
    """Start a shorter journal with what is still known."""
    shorter = path.with_suffix(".new")
    shorter.unlink(missing_ok=True)
    journal = Journal(shorter)
    for key, file in inputs.items():
        journal.record_input(key, file)
    for request in requests:
        journal.record_request(request)
        if request.cancel_requested_at is not None:
            journal.record_cancel(request)
        if request.is_webhook_settled:
            journal.record_settled_webhook(request)
    shorter.rename(path)
    return journal


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _fields(request: QueueRequest) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "endpoint_id": request.endpoint_id,
        "app_id": request.app_id,
        "base_url": request.base_url,
        "input": request.input,
        "attempt": asdict(request.attempt) if request.attempt else None,
        "key_id": request.key_id,
        "submitted_at": request.submitted_at,
        "misses_start": request.misses_start,
        "media_seconds": request.media_seconds,
        # JSON has no infinity.
        "started_at": None if math.isinf(request.started_at) else request.started_at,
        "ended_at": None if math.isinf(request.ended_at) else request.ended_at,
    }


def _request(fields: dict[str, Any]) -> QueueRequest:
    arguments = fields["input"]
    behaviour = behaviour_of(arguments.get("prompt") if isinstance(arguments, dict) else None)
    attempt = Attempt(**fields.pop("attempt")) if fields["attempt"] else fields.pop("attempt")
    started_at, ended_at = fields.pop("started_at"), fields.pop("ended_at")
    return QueueRequest(
        **fields,
        attempt=attempt,
        behaviour=behaviour,
        started_at=math.inf if started_at is None else started_at,
        ended_at=math.inf if ended_at is None else ended_at,
    )


def _cancel(request: QueueRequest, at: float, ended_at: float | None) -> None:
    request.cancel_requested_at = at
    if not request.behaviour.ignores_cancel:
        request.ended_at = at if ended_at is None else ended_at
        request.outcome = Outcome(answers.infrastructure_error("client_cancelled"))
