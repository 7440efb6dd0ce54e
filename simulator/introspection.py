"""For tests: what the simulator saw, and its settings, under `/_sim/`, which is no endpoint of fal."""

import json
import math
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from simulator.behaviours import help_text
from simulator.config import SimulatorConfig
from simulator.http import simulation_of
from simulator.requests import QueueRequest


class ClockChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    advance_seconds: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] = 0
    is_held: bool | None = None


async def list_requests(request: Request) -> Response:
    """Accepted submits, newest first; `?limit=` bounds their number."""
    simulation = simulation_of(request)
    limit = request.query_params.get("limit", "")
    newest = simulation.requests.newest(int(limit) if limit.isdecimal() else None)
    now = simulation.now()
    return JSONResponse({"requests": [_described(found, now) for found in newest]})


def _described(request: QueueRequest, now: float) -> dict[str, Any]:
    attempt = request.attempt
    return {
        "request_id": request.request_id,
        "endpoint_id": request.endpoint_id,
        "input": request.input,
        "words": request.behaviour.words,
        "attempt": None if attempt is None else {"webhook_url": attempt.webhook_url, "tags": attempt.tags},
        "key_id": request.key_id,
        "media_seconds": request.media_seconds,
        "state": request.phase(now),
        # Null also for a run that is over but that nobody has asked about yet.
        "result_status_code": request.outcome.answer.status_code if request.outcome else None,
        "submitted_at": _moment(request.submitted_at),
        "started_at": _moment(request.started_at),
        "ended_at": _moment(request.ended_at),
        "cancel_requested_at": _moment(request.cancel_requested_at),
    }


def _moment(timestamp: float | None) -> str | None:
    if timestamp is None or math.isinf(timestamp):
        return None
    return datetime.fromtimestamp(timestamp, UTC).isoformat()


async def list_webhooks(request: Request) -> Response:
    """The last POSTs of webhooks, newest first; `?limit=` bounds their number."""
    limit = request.query_params.get("limit", "")
    newest = simulation_of(request).webhooks.newest(int(limit) if limit.isdecimal() else None)
    return JSONResponse({"webhooks": [asdict(post) | {"sent_at": _moment(post.sent_at)} for post in newest]})


async def list_posts(request: Request) -> Response:
    """The last POSTs of submits, also those that were refused, newest first; `?limit=` bounds their number."""
    limit = request.query_params.get("limit", "")
    newest = simulation_of(request).newest_posts(int(limit) if limit.isdecimal() else None)
    return JSONResponse({"posts": [asdict(post) | {"seen_at": _moment(post.seen_at)} for post in newest]})


async def list_uploads(request: Request) -> Response:
    """The files that clients uploaded, newest first."""
    files = simulation_of(request).storage.files()
    return JSONResponse(
        {
            "uploads": [
                {
                    "name": name,
                    "content_type": file.content_type,
                    "size_bytes": file.size_bytes,
                    "expires_at": _moment(file.expires_at),
                }
                for name, file in reversed(files.items())
            ]
        }
    )


async def change_clock(request: Request) -> Response:
    """Move the time forward, hold it still, let it go on."""
    simulation = simulation_of(request)
    try:
        change = ClockChange.model_validate_json(await request.body())
    except ValidationError as error:
        return JSONResponse({"detail": error.errors(include_context=False, include_url=False)}, 422)
    simulation.move_clock(change.advance_seconds, is_held=change.is_held)
    return await show_clock(request)


async def show_clock(request: Request) -> Response:
    simulation = simulation_of(request)
    return JSONResponse({"now": _moment(simulation.now()), "is_held": simulation.clock.is_held})


async def show_stats(request: Request) -> Response:
    simulation = simulation_of(request)
    return JSONResponse(
        {
            "posts_received": simulation.posts.total(),
            "posts_accepted": simulation.posts["200"],
            "posts_by_status_code": dict(simulation.posts),
            "requests_by_state": simulation.requests.count_by_phase(simulation.now()),
        }
    )


async def show_calls(request: Request) -> Response:
    """Per operation, how often it was called, and with which key id ("" where none is needed or readable)."""
    by_operation: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (operation, key_id), count in simulation_of(request).calls.items():
        by_operation[operation][key_id] = count
    return JSONResponse(
        {operation: {"count": sum(counts.values()), "by_key_id": counts} for operation, counts in by_operation.items()}
    )


async def change_config(request: Request) -> Response:
    """Change some settings. Requests that are already queued keep their times."""
    simulation = simulation_of(request)
    try:
        changes = json.loads(await request.body())
        simulation.config = SimulatorConfig.model_validate({**simulation.config.model_dump(), **changes})
    except ValidationError as error:
        return JSONResponse({"detail": error.errors(include_context=False, include_url=False)}, 422)
    except (ValueError, TypeError):
        return JSONResponse({"detail": "The body is no JSON object"}, 400)
    return await show_config(request)


async def show_config(request: Request) -> Response:
    return JSONResponse(simulation_of(request).config.model_dump(mode="json"))


async def reset(request: Request) -> Response:
    simulation_of(request).reset()
    return Response(status_code=204)


async def show_help(_: Request) -> Response:
    return PlainTextResponse(help_text() + "\n")


routes = [
    Mount(
        "/_sim",
        routes=[
            Route("/requests", list_requests),
            Route("/webhooks", list_webhooks),
            Route("/posts", list_posts),
            Route("/uploads", list_uploads),
            Route("/clock", show_clock, methods=["GET"]),
            Route("/clock", change_clock, methods=["POST"]),
            Route("/stats", show_stats),
            Route("/calls", show_calls),
            Route("/config", show_config, methods=["GET"]),
            Route("/config", change_config, methods=["POST"]),
            Route("/reset", reset, methods=["POST"]),
            Route("/help", show_help),
        ],
    )
]
