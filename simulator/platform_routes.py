"""fal's platform API under `/v1`: the history of requests, prices, billing.

Only finished requests are listed, as fal seems to do. All of it follows from the requests themselves, so that a
submit that was repeated is there twice, in the history and on the bill.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from simulator import catalogue_routes
from simulator.answers import BILLABLE_UNITS_HEADER
from simulator.catalogue_routes import IMAGE_DOLLARS, VIDEO_SECOND_DOLLARS
from simulator.http import respond, simulation_of
from simulator.listed import LISTED
from simulator.models import ENDPOINTS, VideoArguments
from simulator.platform_http import authorize, ids_of, one_of, page_of, refusal, values_of
from simulator.requests import Outcome, QueueRequest

HISTORY_LIMIT, HISTORY_LIMIT_MAX = 50, 100
BILLING_LIMIT, BILLING_LIMIT_MAX = 50, 10_000
DEFAULT_SPAN_SECONDS = 24 * 3600
CREDIT_DOLLARS = 1_000.0
NANO = 10**9


@dataclass(frozen=True, slots=True)
class Finished:
    request: QueueRequest
    outcome: Outcome


async def list_requests(request: Request) -> Response:
    authorize(request, "history", is_admins=True)
    query = request.query_params
    endpoint_id = query.get("endpoint_id")
    if not endpoint_id:
        raise refusal(400, "endpoint_id is required")
    status = one_of(request, "status", ("success", "error", "user_error"))
    sort_by = one_of(request, "sort_by", ("ended_at", "duration")) or "ended_at"
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
    with_payloads = "payloads" in values_of(request, "expand")
    shown, rest = page_of(request, found, limit_default=HISTORY_LIMIT, limit_max=HISTORY_LIMIT_MAX)
    items = [_past(finished.request, finished.outcome) for finished in shown]
    if with_payloads:
        pictures = simulation_of(request).pictures
        for item, finished in zip(items, shown, strict=True):
            item["json_input"] = await pictures.as_sent(finished.request.input)
            item["json_output"] = finished.outcome.answer.body
    return JSONResponse({"items": items, **rest})


def _past(request: QueueRequest, outcome: Outcome) -> dict[str, Any]:
    return {
        "request_id": request.request_id,
        "endpoint_id": request.endpoint_id,
        # A request that a cancel took out of the queue was never started.
        "started_at": None if math.isinf(request.started_at) else _moment(request.started_at),
        "sent_at": _moment(request.submitted_at),
        "ended_at": _moment(request.ended_at),
        "status_code": outcome.answer.status_code,
        "duration": round(_duration(request), 3),
    }


async def list_billing_events(request: Request) -> Response:
    authorize(request, "billing-events", is_admins=True)
    filters = {name: ids_of(request, name) for name in ("endpoint_id", "request_id", "api_key_id")}
    start, end = _span(request)
    rows = [
        finished
        for finished in await _billed(request)
        if start <= _instant(finished.request.ended_at) < end
        and all(not wanted or _billed_as(finished.request, name) in wanted for name, wanted in filters.items())
    ]
    rows.sort(key=lambda item: item.request.ended_at, reverse=True)
    shown, rest = page_of(request, rows, limit_default=BILLING_LIMIT, limit_max=BILLING_LIMIT_MAX)
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
    authorize(request, "account-billing", is_admins=True)
    body: dict[str, Any] = {"username": simulation_of(request).config.user_id}
    if "credits" in values_of(request, "expand"):
        spent = sum(_cost_nano_dollars(finished) for finished in await _billed(request))
        body["credits"] = {"current_balance": CREDIT_DOLLARS - spent / NANO, "currency": "USD"}
    return JSONResponse(body)


async def not_found(_: Request) -> Response:
    return respond(refusal(404, "There is no such operation").answer)


async def _finished(request: Request) -> Sequence[Finished]:
    simulation = simulation_of(request)
    newest = list(simulation.requests.newest())
    return [Finished(one, outcome) for one in newest if (outcome := await simulation.outcome_of(one)) is not None]


async def _billed(request: Request) -> Sequence[Finished]:
    """fal charges what succeeded."""
    return [finished for finished in await _finished(request) if finished.outcome.answer.status_code == 200]


def _units(finished: Finished) -> float:
    units = float(finished.outcome.answer.headers[BILLABLE_UNITS_HEADER])
    return int(units) if units.is_integer() else units


def _unit_price(request: QueueRequest) -> float:
    if request.endpoint_id in LISTED:
        return float(LISTED[request.endpoint_id].unit.usd)
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
        raise refusal(400, f"{name} is not an ISO 8601 date") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


routes = [
    Mount(
        "/v1",
        routes=[
            Route("/models/requests/by-endpoint", list_requests, methods=["GET"]),
            *catalogue_routes.routes,
            Route("/models/billing-events", list_billing_events, methods=["GET"]),
            Route("/account/billing", show_account, methods=["GET"]),
            Route("/{path:path}", not_found),
        ],
    )
]
