"""What all routes share: the simulation behind them, fal's authorization, and answers as HTTP."""

import asyncio
import re
from collections.abc import Callable

import uuid_utils
from starlette.requests import Request
from starlette.responses import Response

from simulator import answers
from simulator.answers import Answer, Refused
from simulator.dropping import CutAnswer, NoAnswer, SlowAnswer
from simulator.faults import FaultyCall, content_of
from simulator.simulation import Simulation

REQUEST_ID_HEADER = "x-fal-request-id"
STOP_LOOK_SECONDS = 0.25
NOTHING = Answer(200, "")

_KEY = re.compile(r"Key +(?P<key_id>[^\s:]+):[^\s:]+")


def simulation_of(request: Request) -> Simulation:
    simulation: Simulation = request.state.simulation
    return simulation


def base_url_of(request: Request) -> str:
    """Where the client sees this simulator, without a slash at the end."""
    public_url = simulation_of(request).config.public_url
    return public_url.rstrip("/") if public_url else str(request.base_url).rstrip("/")


def authorized_key_id(request: Request, operation: str, app_id: str = "storage") -> str:
    """Check the key and count the call. Raises: Refused with one of fal's three 401."""
    simulation = simulation_of(request)
    header = request.headers.get("authorization")
    match = _KEY.fullmatch(header.strip()) if header else None
    key_id = match["key_id"] if match else ""
    simulation.calls[operation, key_id] += 1
    if header is None:
        raise Refused(answers.missing_key(app_id))
    if match is None:
        raise Refused(answers.MALFORMED_KEY)
    if key_id in simulation.config.unknown_key_ids:
        raise Refused(answers.UNKNOWN_KEY)
    return key_id


def respond(answer: Answer, request_id: str | None = None) -> Response:
    return Response(content_of(answer), answer.status_code, _headers(answer, request_id))


def _headers(answer: Answer, request_id: str | None) -> dict[str, str]:
    """An answer in text is not from fal itself, and so has no id of a request unless it is marked."""
    if isinstance(answer.body, str):
        mark = {REQUEST_ID_HEADER: request_id or str(uuid_utils.uuid7())} if answer.is_marked else {}
        return {"content-type": "text/html; charset=utf-8", **mark, **answer.headers}
    return {
        "content-type": "application/json",
        REQUEST_ID_HEADER: request_id or str(uuid_utils.uuid7()),
        **answer.headers,
    }


async def respond_with_faults(request: Request, call: FaultyCall, answer: Answer, request_id: str) -> Response:
    """The answer to a call that was carried out, as spoilt as its faults want it."""
    answer = call.edited(answer)
    content, headers = call.truncated(content_of(answer)), _headers(answer, request_id)
    return await _spoilt(request, call, Response(content, answer.status_code, headers))


async def respond_with_faulty_file(request: Request, call: FaultyCall, whole: Response, request_id: str) -> Response:
    """A file as spoilt as its faults want it, and always from its beginning to its end, whatever part was asked for."""
    instead = call.edited(NOTHING)
    if instead is not NOTHING:
        whole = Response(content_of(instead), instead.status_code, _headers(instead, request_id))
    return await _spoilt(request, call, whole)


async def _spoilt(request: Request, call: FaultyCall, whole: Response) -> Response:
    is_stopping = simulation_of(request).is_stopping
    speed = simulation_of(request).config.speed
    is_over = await _wait(request, call.hang_seconds / speed, is_stopping)
    if call.is_dropped or not is_over:
        return NoAnswer()
    content, headers = bytes(whole.body), dict(whole.headers)
    if call.is_cut:
        return CutAnswer(content, whole.status_code, headers)
    if call.bytes_per_second:
        return SlowAnswer(content, whole.status_code, headers, call.bytes_per_second, is_stopping)
    return whole


async def _wait(request: Request, seconds: float, is_stopping: Callable[[], bool]) -> bool:
    """False: the client went away, or the simulator stops."""
    while seconds > 0:
        if is_stopping() or await request.is_disconnected():
            return False
        step_seconds = min(seconds, STOP_LOOK_SECONDS)
        await asyncio.sleep(step_seconds)
        seconds -= step_seconds
    return True


async def refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    return respond(error.answer)
