"""What all routes share: the simulation behind them, fal's authorization, and answers as HTTP."""

import re

import uuid_utils
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from simulator import answers
from simulator.answers import Answer, Refused
from simulator.simulation import Simulation

REQUEST_ID_HEADER = "x-fal-request-id"

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
    if isinstance(answer.body, str):
        return HTMLResponse(answer.body, answer.status_code, answer.headers)
    headers = {REQUEST_ID_HEADER: request_id or str(uuid_utils.uuid7()), **answer.headers}
    return JSONResponse(answer.body, answer.status_code, headers)


async def refused(_: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    return respond(error.answer)
