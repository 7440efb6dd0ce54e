"""fal's queue: submit, status, status stream, result, cancel."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from simulator import answers
from simulator.answers import Answer, Refused
from simulator.dropping import NoAnswer
from simulator.http import REQUEST_ID_HEADER, authorized_key_id, base_url_of, respond, simulation_of
from simulator.models import APP_IDS, app_id_of
from simulator.requests import Attempt, Phase, QueueRequest
from simulator.simulation import Simulation

STREAM_LOOK_SECONDS = 0.1
STREAM_PING_SECONDS = 15.0
STOP_LOOK_SECONDS = 0.25
PROGRESS_LOGS = 4

OPERATIONS = {
    (): "result",
    ("response",): "result",
    ("status",): "status",
    ("status", "stream"): "stream",
    ("cancel",): "cancel",
}


@dataclass(frozen=True, slots=True)
class RequestAddress:
    """What a path under `/requests/` names; the app may be spelt short (owner/app) or in full."""

    endpoint_id: str
    request_id: str
    operation: str

    @classmethod
    def parse(cls, path: str) -> "RequestAddress | None":
        app_path, marker, rest = path.rpartition("/requests/")
        request_id, *tail = rest.strip("/").split("/")
        operation = OPERATIONS.get(tuple(tail))
        if not marker or not request_id or operation is None:
            return None
        return cls(app_path.strip("/"), request_id, operation)


async def submit(request: Request) -> Response:
    simulation = simulation_of(request)
    try:
        submitted = await _accept(simulation, request)
    except Refused as refused:
        simulation.posts[str(refused.answer.status_code)] += 1
        return respond(refused.answer)
    # Counted whether or not the client gets to know of it.
    simulation.posts["200"] += 1
    position = simulation.requests.position(submitted, simulation.now())
    answer = Answer(200, _status_fields(submitted, Phase.IN_QUEUE) | {"queue_position": position})
    behaviour = submitted.behaviour
    await _hang(simulation, behaviour.submit_hang_seconds / simulation.config.speed)
    if behaviour.drops_submit or (behaviour.submit_hang_seconds and simulation.is_stopping()):
        return NoAnswer()
    return respond(answer, submitted.request_id)


async def _hang(simulation: Simulation, seconds: float) -> None:
    while seconds > 0 and not simulation.is_stopping():
        step_seconds = min(seconds, STOP_LOOK_SECONDS)
        await asyncio.sleep(step_seconds)
        seconds -= step_seconds


async def _accept(simulation: Simulation, request: Request) -> QueueRequest:
    endpoint_id = request.path_params["path"].strip("/")
    app_id = app_id_of(endpoint_id)
    key_id = authorized_key_id(request, "submit", app_id or endpoint_id)
    if key_id in simulation.config.locked_key_ids:
        raise Refused(answers.LOCKED)
    if app_id is None or app_id not in APP_IDS:
        raise Refused(answers.unknown_application((app_id or endpoint_id).rpartition("/")[2]))
    length_max = request.query_params.get("fal_max_queue_length", "")
    if length_max.isdecimal() and simulation.requests.waiting_count(simulation.now()) > int(length_max):
        raise Refused(answers.TOO_MANY_REQUESTS)
    return await simulation.submit(
        endpoint_id=endpoint_id,
        app_id=app_id,
        arguments=await _arguments(request),
        base_url=base_url_of(request),
        attempt=_attempt(request),
        key_id=key_id,
    )


async def _arguments(request: Request) -> object:
    # A body that is no JSON is accepted too: only the run looks at it.
    try:
        return json.loads(await request.body())
    except ValueError:
        return None


def _attempt(request: Request) -> Attempt | None:
    webhook_url = request.query_params.get("fal_webhook")
    header = request.headers.get("x-fal-tags")
    if webhook_url is None and header is None:
        return None
    pairs = (pair.partition("=") for pair in (header or "").split(","))
    return Attempt(webhook_url, {name.strip(): value.strip() for name, equals, value in pairs if equals})


async def look(request: Request) -> Response:
    """Status, status stream and result."""
    address, found = _found(request, "GET")
    if address.operation == "status":
        return await _status(request, found)
    if address.operation == "stream":
        stream = _stream(simulation_of(request), found, with_logs=_wants_logs(request))
        headers = {REQUEST_ID_HEADER: found.request_id, "cache-control": "no-store"}
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")
    outcome = await simulation_of(request).outcome_of(found)
    return respond(outcome.answer if outcome else answers.STILL_IN_PROGRESS, found.request_id)


async def change(request: Request) -> Response:
    _, found = _found(request, "PUT")
    return respond(await simulation_of(request).cancel(found), found.request_id)


def _found(request: Request, method: str) -> tuple[RequestAddress, QueueRequest]:
    path = "/" + request.path_params["path"]
    address = RequestAddress.parse(path)
    app_id = app_id_of(address.endpoint_id) if address else None
    authorized_key_id(request, address.operation if address else "unknown", app_id or path.strip("/"))
    if address is None:
        raise Refused(answers.unknown_path(path.strip("/")))
    if (address.operation == "cancel") != (method == "PUT"):
        raise Refused(answers.METHOD_NOT_ALLOWED)
    found = simulation_of(request).requests.find(address.request_id)
    if found is None or found.app_id != app_id:
        raise Refused(answers.UNKNOWN_REQUEST)
    return address, found


async def _status(request: Request, found: QueueRequest) -> Response:
    if found.flaky_polls_left:
        found.flaky_polls_left -= 1
        return respond(answers.ingress_page(503))
    body = await _status_body(simulation_of(request), found, with_logs=_wants_logs(request))
    return respond(Answer(200 if body["status"] == Phase.COMPLETED else 202, body), found.request_id)


async def _status_body(simulation: Simulation, request: QueueRequest, *, with_logs: bool) -> dict[str, Any]:
    outcome = await simulation.outcome_of(request)
    now = simulation.now()
    phase = request.phase(now)
    if outcome is not None:
        body = _status_fields(request, Phase.COMPLETED)
        if request.run_seconds is not None:
            body["metrics"] = {"inference_time": round(request.run_seconds, 3)}
        if not request.behaviour.hides_error:
            body |= outcome.error_fields
    elif phase is Phase.IN_QUEUE:
        return _status_fields(request, phase) | {"queue_position": simulation.requests.position(request, now)}
    else:
        # Also when its time is over, but its inputs are still being loaded.
        body = _status_fields(request, Phase.IN_PROGRESS)
    if with_logs:
        body["logs"] = _logs(request, now)
    return body


def _status_fields(request: QueueRequest, phase: Phase) -> dict[str, Any]:
    url = request.url
    return {
        "status": phase.value,
        "request_id": request.request_id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "logs": None,
        "metrics": {},
    }


def _wants_logs(request: Request) -> bool:
    # The Python client says true, the JavaScript client 1.
    return request.query_params.get("logs", "").lower() in ("1", "true")


def _logs(request: QueueRequest, now: float) -> list[dict[str, str]]:
    """The lines that the run has written so far; like its phase they follow from the timestamps."""
    if request.run_seconds is None:
        return []
    seconds = [request.run_seconds * step / PROGRESS_LOGS for step in range(PROGRESS_LOGS + 1)]
    return [
        {
            "message": f"simulated run of {request.endpoint_id}: {elapsed:.1f} s",
            "level": "INFO",
            "source": "USER",
            "timestamp": datetime.fromtimestamp(request.started_at + elapsed, UTC).isoformat(),
        }
        for elapsed in seconds
        if request.started_at + elapsed <= now
    ]


async def _stream(simulation: Simulation, request: QueueRequest, *, with_logs: bool) -> AsyncIterator[str]:
    sent: dict[str, Any] = {}
    silent_since = simulation.now()
    while sent.get("status") != Phase.COMPLETED and not simulation.is_stopping():
        body = await _status_body(simulation, request, with_logs=with_logs)
        if body != sent:
            sent, silent_since = body, simulation.now()
            yield f"data: {json.dumps(body)}\n\n"
        elif simulation.now() - silent_since >= STREAM_PING_SECONDS:
            silent_since = simulation.now()
            yield ": ping\n\n"
        else:
            await asyncio.sleep(STREAM_LOOK_SECONDS)


routes = [
    Route("/{path:path}", submit, methods=["POST"]),
    Route("/{path:path}", look, methods=["GET"]),
    Route("/{path:path}", change, methods=["PUT"]),
]
