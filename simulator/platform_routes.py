"""fal's platform API under `/v1`: the history of requests, prices, billing.

Only finished requests are listed, as fal seems to do. All of it follows from the requests themselves, so that a
submit that was repeated is there twice, in the history and on the bill.
"""

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import uuid_utils
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from simulator.answers import BILLABLE_UNITS_HEADER, Answer, Refused
from simulator.http import authorized_key_id, respond, simulation_of
from simulator.models import ENDPOINTS, VideoArguments
from simulator.requests import Outcome, QueueRequest

Item = TypeVar("Item")

HISTORY_LIMIT, HISTORY_LIMIT_MAX = 50, 100
BILLING_LIMIT, BILLING_LIMIT_MAX = 50, 10_000
IDS_MAX = 50
DEFAULT_SPAN_SECONDS = 24 * 3600
CREDIT_DOLLARS = 1_000.0
IMAGE_DOLLARS = 0.05
VIDEO_SECOND_DOLLARS = {"480p": 0.05, "720p": 0.10, "1080p": 0.15}
NANO = 10**9

_ERROR_TYPES = {400: "validation_error", 401: "authorization_error", 403: "authorization_error", 404: "not_found"}


def _refusal(status_code: int, message: str) -> Refused:
    error = {
        "type": _ERROR_TYPES[status_code],
        "message": message,
        "docs_url": "https://docs.fal.ai/platform-apis",
        "request_id": str(uuid_utils.uuid7()),
    }
    return Refused(Answer(status_code, {"error": error}))


@dataclass(frozen=True, slots=True)
class Finished:
    request: QueueRequest
    outcome: Outcome


def _authorize(request: Request, operation: str, *, is_admins: bool) -> None:
    """Raises Refused, in the form of the platform's own errors."""
    try:
        key_id = authorized_key_id(request, operation, "platform")
    except Refused as refused:
        raise _refusal(401, str(refused.answer.body["detail"])) from None
    if is_admins and key_id not in simulation_of(request).config.admin_key_ids:
        raise _refusal(403, "This operation needs an ADMIN API key")


async def list_requests(request: Request) -> Response:
    _authorize(request, "history", is_admins=True)
    query = request.query_params
    endpoint_id = query.get("endpoint_id")
    if not endpoint_id:
        raise _refusal(400, "endpoint_id is required")
    status = _one_of(request, "status", ("success", "error", "user_error"))
    sort_by = _one_of(request, "sort_by", ("ended_at", "duration")) or "ended_at"
    request_id = query.get("request_id")
    start, end = _span(request)
    found = [
        finished
        for finished in await _finished(request)
        if finished.request.endpoint_id == endpoint_id
        and start <= _instant(finished.request.ended_at) < end
        and request_id in (None, finished.request.request_id)
        and status in (None, _status_word(finished.outcome.answer.status_code))
    ]
    by_time = sort_by == "ended_at"
    found.sort(key=lambda item: item.request.ended_at if by_time else _duration(item.request), reverse=True)
    with_payloads = "payloads" in _values(request, "expand")
    shown, rest = _page(request, found, limit_default=HISTORY_LIMIT, limit_max=HISTORY_LIMIT_MAX)
    return JSONResponse({"items": [_past(finished, with_payloads) for finished in shown], **rest})


def _past(finished: Finished, with_payloads: bool) -> dict[str, Any]:
    request, answer = finished.request, finished.outcome.answer
    fields = {
        "request_id": request.request_id,
        "endpoint_id": request.endpoint_id,
        # A request that a cancel took out of the queue was never started.
        "started_at": None if math.isinf(request.started_at) else _moment(request.started_at),
        "sent_at": _moment(request.submitted_at),
        "ended_at": _moment(request.ended_at),
        "status_code": answer.status_code,
        "duration": round(_duration(request), 3),
    }
    return fields | ({"json_input": request.input, "json_output": answer.body} if with_payloads else {})


async def list_prices(request: Request) -> Response:
    _authorize(request, "pricing", is_admins=False)
    endpoint_ids = _ids(request, "endpoint_id") or list(ENDPOINTS)
    unknown = [endpoint_id for endpoint_id in endpoint_ids if endpoint_id not in ENDPOINTS]
    if unknown:
        raise _refusal(404, f"Endpoint not found: {unknown[0]}")
    prices = [
        {
            "endpoint_id": endpoint_id,
            "unit_price": VIDEO_SECOND_DOLLARS["1080p"] if ENDPOINTS[endpoint_id].makes_video else IMAGE_DOLLARS,
            "unit": "seconds" if ENDPOINTS[endpoint_id].makes_video else "images",
            "currency": "USD",
        }
        for endpoint_id in endpoint_ids
    ]
    return JSONResponse({"prices": prices, "next_cursor": None, "has_more": False})


async def list_billing_events(request: Request) -> Response:
    _authorize(request, "billing-events", is_admins=True)
    filters = {name: _ids(request, name) for name in ("endpoint_id", "request_id", "api_key_id")}
    start, end = _span(request)
    rows = [
        finished
        for finished in await _billed(request)
        if start <= _instant(finished.request.ended_at) < end
        and all(not wanted or _billed_as(finished.request, name) in wanted for name, wanted in filters.items())
    ]
    rows.sort(key=lambda item: item.request.ended_at, reverse=True)
    shown, rest = _page(request, rows, limit_default=BILLING_LIMIT, limit_max=BILLING_LIMIT_MAX)
    return JSONResponse({"billing_events": [_billing_event(finished) for finished in shown], **rest})


def _billed_as(request: QueueRequest, name: str) -> str:
    return {"endpoint_id": request.endpoint_id, "request_id": request.request_id, "api_key_id": request.key_id}[name]


def _billing_event(finished: Finished) -> dict[str, Any]:
    request = finished.request
    cost = _cost_nano_dollars(finished)
    return {
        "request_id": request.request_id,
        "endpoint_id": request.endpoint_id,
        "timestamp": _moment(request.ended_at),
        "output_units": _units(finished),
        "unit_price": _unit_price(request),
        "percent_discount": 0,
        "cost_subtotal": cost / NANO,
        "cost_discount": 0,
        "cost_total": cost / NANO,
        "cost_estimate_nano_usd": cost,
    }


async def show_account(request: Request) -> Response:
    _authorize(request, "account-billing", is_admins=True)
    body: dict[str, Any] = {"username": simulation_of(request).config.user_id}
    if "credits" in _values(request, "expand"):
        spent = sum(_cost_nano_dollars(finished) for finished in await _billed(request))
        body["credits"] = {"current_balance": CREDIT_DOLLARS - spent / NANO, "currency": "USD"}
    return JSONResponse(body)


async def not_found(_: Request) -> Response:
    return respond(_refusal(404, "There is no such operation").answer)


async def _finished(request: Request) -> Sequence[Finished]:
    simulation = simulation_of(request)
    newest = list(simulation.requests.newest())
    return [Finished(one, outcome) for one in newest if (outcome := await simulation.outcome_of(one)) is not None]


async def _billed(request: Request) -> Sequence[Finished]:
    """fal charges what succeeded."""
    return [finished for finished in await _finished(request) if finished.outcome.answer.status_code == 200]


def _units(finished: Finished) -> int:
    return int(finished.outcome.answer.headers[BILLABLE_UNITS_HEADER])


def _unit_price(request: QueueRequest) -> float:
    if not ENDPOINTS[request.endpoint_id].makes_video:
        return IMAGE_DOLLARS
    given = request.input.get("resolution") if isinstance(request.input, dict) else None
    return VIDEO_SECOND_DOLLARS[given or VideoArguments.model_fields["resolution"].default]


def _cost_nano_dollars(finished: Finished) -> int:
    return round(_units(finished) * _unit_price(finished.request) * NANO)


def _duration(request: QueueRequest) -> float:
    return request.run_seconds or 0.0


def _status_word(status_code: int) -> str:
    if status_code == 200:
        return "success"
    return "user_error" if status_code < 500 else "error"


def _instant(timestamp: float) -> datetime:
    """As exact as what is shown, so that who asks with a time that was shown finds what it was shown of."""
    return datetime.fromtimestamp(timestamp, UTC)


def _moment(timestamp: float) -> str:
    return _instant(timestamp).isoformat().replace("+00:00", "Z")


def _span(request: Request) -> tuple[datetime, datetime]:
    """`end` is exclusive; without it, everything that has ended."""
    now = simulation_of(request).now()
    forever = datetime.max.replace(tzinfo=UTC)
    return _time(request, "start", _instant(now - DEFAULT_SPAN_SECONDS)), _time(request, "end", forever)


def _time(request: Request, name: str, default: datetime) -> datetime:
    value = request.query_params.get(name)
    if value is None:
        return default
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise _refusal(400, f"{name} is not an ISO 8601 date") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _one_of(request: Request, name: str, words: Sequence[str]) -> str | None:
    value = request.query_params.get(name)
    if value is not None and value not in words:
        raise _refusal(400, f"{name} must be one of {', '.join(words)}")
    return value


def _values(request: Request, name: str) -> list[str]:
    """Repeated, or separated by commas."""
    return [word for value in request.query_params.getlist(name) for word in value.split(",") if word]


def _ids(request: Request, name: str) -> list[str]:
    ids = _values(request, name)
    if len(ids) > IDS_MAX:
        raise _refusal(400, f"at most {IDS_MAX} of {name}")
    return ids


def _page(
    request: Request, items: Sequence[Item], *, limit_default: int, limit_max: int
) -> tuple[Sequence[Item], dict[str, Any]]:
    """The items of the page, and what the answer says of the next one. fal's cursor is its number in base64."""
    given = request.query_params.get("limit", str(limit_default))
    if not given.isdecimal() or not 1 <= int(given) <= limit_max:
        raise _refusal(400, f"limit must be 1 to {limit_max}")
    limit, number = int(given), _page_number(request)
    has_more = len(items) > number * limit
    next_cursor = base64.b64encode(str(number + 1).encode()).decode() if has_more else None
    return items[(number - 1) * limit : number * limit], {"next_cursor": next_cursor, "has_more": has_more}


def _page_number(request: Request) -> int:
    cursor = request.query_params.get("cursor")
    if not cursor:
        return 1
    try:
        number = int(base64.b64decode(cursor, validate=True))
    except (binascii.Error, ValueError):
        number = 0
    if number < 1:
        raise _refusal(400, "cursor is not one of ours")
    return number


routes = [
    Mount(
        "/v1",
        routes=[
            Route("/models/requests/by-endpoint", list_requests, methods=["GET"]),
            Route("/models/pricing", list_prices, methods=["GET"]),
            Route("/models/billing-events", list_billing_events, methods=["GET"]),
            Route("/account/billing", show_account, methods=["GET"]),
            Route("/{path:path}", not_found),
        ],
    )
]
