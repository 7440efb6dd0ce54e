"""fal's queue: submit, status, status stream, result, cancel."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from simulator import answers
from simulator.answers import Answer, Refused
from simulator.faults import FaultyCall
from simulator.http import (
    REQUEST_ID_HEADER,
    authorized_key_id,
    base_url_of,
    respond,
    respond_with_faults,
    simulation_of,
)
from simulator.lifetimes import lifetime_seconds
from simulator.listed import LISTED
from simulator.models import ENDPOINTS, app_id_of
from simulator.requests import Attempt, Phase, QueueRequest
from simulator.simulation import Simulation, SubmitPost, prompt_of

STREAM_LOOK_SECONDS = 0.1
STREAM_PING_SECONDS = 15.0
APP_IDS = frozenset(app_id_of(endpoint_id) for endpoint_id in (*ENDPOINTS, *LISTED))
START_LIMIT_HEADERS = ("x-fal-request-timeout", "x-fal-request-start-timeout")
START_SECONDS_MIN = 0.1
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
    endpoint_id = request.path_params["path"].strip("/")
    arguments = await _arguments(request)
    call = FaultyCall(())
    key_id, seen_at = "", simulation.now()
    try:
        key_id = _check_gateway(request, endpoint_id)
        call = simulation.faulty_call("submit", prompt_of(arguments))
        if call.refusal is not None:
            raise Refused(call.refusal)
        submitted = await _accept(request, endpoint_id, arguments, key_id)
    except Refused as refused:
        simulation.record_post(SubmitPost(seen_at, prompt_of(arguments), key_id, refused.answer.status_code))
        return respond(refused.answer)
    # Counted whether or not the client gets to know of it.
    simulation.record_post(SubmitPost(seen_at, prompt_of(arguments), key_id, 200, submitted.request_id))
    position = simulation.requests.position(submitted, simulation.now())
    answer = Answer(200, _status_fields(submitted, Phase.IN_QUEUE) | {"queue_position": position})
    return await _answered(request, call, answer, submitted)


def _check_gateway(request: Request, endpoint_id: str) -> str:
    """The key id. Raises Refused for what never gets to the queue."""
    simulation = simulation_of(request)
    app_id = app_id_of(endpoint_id)
    key_id = authorized_key_id(request, "submit", app_id or endpoint_id)
    if key_id in simulation.config.locked_key_ids:
        raise Refused(answers.LOCKED)
    if app_id is None or app_id not in APP_IDS:
        raise Refused(answers.unknown_application((app_id or endpoint_id).rpartition("/")[2]))
    length_max = request.query_params.get("fal_max_queue_length", "")
    if length_max.isdecimal() and simulation.requests.waiting_count(simulation.now()) > int(length_max):
        raise Refused(answers.TOO_MANY_REQUESTS)
    return key_id


async def _accept(request: Request, endpoint_id: str, arguments: object, key_id: str) -> QueueRequest:
    app_id = app_id_of(endpoint_id)
    assert app_id is not None
    return await simulation_of(request).submit(
        endpoint_id=endpoint_id,
        app_id=app_id,
        arguments=arguments,
        base_url=base_url_of(request),
        attempt=_attempt(request),
        key_id=key_id,
        start_seconds_max=_start_seconds_max(request),
        media_seconds=lifetime_seconds(request.headers),
    )


def _start_seconds_max(request: Request) -> float:
    """How long the client lets it wait. Raises Refused."""
    text = next((request.headers[name] for name in START_LIMIT_HEADERS if name in request.headers), None)
    if text is None:
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not START_SECONDS_MIN < seconds < math.inf:
        raise Refused(answers.infrastructure_error("bad_request"))
    return seconds


async def _answered(request: Request, call: FaultyCall, answer: Answer, found: QueueRequest) -> Response:
    simulation = simulation_of(request)
    if not call.faults:
        return respond(answer, found.request_id)
    others = (other.request_id for other in simulation.requests.before(found))
    circumstances = replace(call.circumstances, request_id=found.request_id, other_request_id=next(iter(others), None))
    return await respond_with_faults(request, replace(call, circumstances=circumstances), answer, found.request_id)


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
    if address.operation == "stream":
        stream = _stream(simulation_of(request), found, with_logs=_wants_logs(request))
        headers = {REQUEST_ID_HEADER: found.request_id, "cache-control": "no-store"}
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")
    return await _carry_out(request, address.operation, found, _status if address.operation == "status" else _result)


async def change(request: Request) -> Response:
    _, found = _found(request, "PUT")
    return await _carry_out(request, "cancel", found, _cancel)


async def _carry_out(
    request: Request,
    operation: str,
    found: QueueRequest,
    handle: Callable[[Request, QueueRequest], Awaitable[Answer]],
) -> Response:
    call = simulation_of(request).faulty_call(operation, prompt_of(found.input), found)
    if call.refusal is not None:
        return respond(call.refusal, found.request_id)
    return await _answered(request, call, await handle(request, found), found)


async def _cancel(request: Request, found: QueueRequest) -> Answer:
    return await simulation_of(request).cancel(found)


async def _result(request: Request, found: QueueRequest) -> Answer:
    simulation = simulation_of(request)
    outcome = await simulation.outcome_of(found)
    if outcome is None:
        return answers.STILL_IN_PROGRESS
    return outcome.answer if simulation.is_result_kept(found, outcome) else answers.UNKNOWN_REQUEST


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


async def _status(request: Request, found: QueueRequest) -> Answer:
    body = await _status_body(simulation_of(request), found, with_logs=_wants_logs(request))
    return Answer(200 if body["status"] == Phase.COMPLETED else 202, body)


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
