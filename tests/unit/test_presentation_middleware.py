import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from starlette.responses import StreamingResponse
from starlette.types import Message
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from app.presentation.http.api import create_api
from app.presentation.http.middleware import HEADERS_BYTES_MAX
from tests.builders import BUILT_IN
from tests.unit.presentation_stand_ins import World, problem_of


@pytest.mark.parametrize("request_id", ["a", "A-z.0_9", "x" * 128])
async def test_echoes_a_valid_request_id(request_id: str) -> None:
    response = await World().client().get("/healthz", headers={"X-Request-Id": request_id})

    assert response.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a;b", "a\r\nSet-Cookie: b", "ä", "x" * 10_000])
async def test_makes_a_request_id_where_the_caller_sends_no_valid_one(request_id: str) -> None:
    headers: Any = {"X-Request-Id": request_id.encode()}

    responses = [await World().client().get("/healthz", headers=headers) for _ in range(2)]

    ids = [response.headers["x-request-id"] for response in responses]
    assert all(re.fullmatch("[0-9a-f]{32}", made) for made in ids)
    assert ids[0] != ids[1]


async def test_answers_431_to_large_headers() -> None:
    fits = {"X-Long": "x" * (HEADERS_BYTES_MAX - 1024)}
    one_large = {"X-Long": "x" * HEADERS_BYTES_MAX}
    many_small = {f"X-{number}": "x" * 200 for number in range(200)}

    responses = [await World().client().get("/healthz", headers=headers) for headers in (fits, one_large, many_small)]

    assert [response.status_code for response in responses] == [200, 431, 431]
    assert problem_of(responses[1])["code"] == "request_headers_too_large"


@pytest.mark.parametrize("path", ["/healthz", "/balance", "/nothing", "/docs", "/openapi.json"])
async def test_forbids_to_guess_the_media_type(path: str) -> None:
    response = await World().client().get(path)

    assert response.headers["x-content-type-options"] == "nosniff"


async def test_logs_a_request_by_its_route_without_headers_or_body() -> None:
    world = World()
    _, key = await world.a_user(tokens=5)

    with capture_logs() as logs:
        await world.client().post("/generations/images/text-to-image", json={"prompt": "a secret fox"}, headers=key)
        await world.client().get("/generations/some-id", headers=key)
        await world.client().get("/nothing/here")

    served = [entry for entry in logs if entry["event"] == "request_served"]
    assert [(entry["method"], entry["route"], entry["status"]) for entry in served] == [
        ("POST", "/generations/images/text-to-image", 202),
        ("GET", "/generations/{job_id}", 404),
        ("GET", None, 404),
    ]
    assert all(entry["duration_ms"] >= 0 for entry in served)
    assert not any(secret in str(logs) for secret in ("secret fox", key["X-API-Key"], "some-id"))


async def test_logs_an_included_route_with_its_prefix() -> None:
    router = APIRouter()

    @router.get("/{name}")
    async def get_name(name: str) -> str:
        return name

    api = create_api(BUILT_IN, version="1")
    api.include_router(router, prefix="/names")

    with capture_logs() as logs:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate") as client:
            await client.get("/names/fox")

    assert [entry["route"] for entry in logs] == ["/names/{name}"]


async def test_binds_the_request_id_for_what_is_logged_meanwhile_and_no_longer() -> None:
    world = World()
    seen: list[dict[str, Any]] = []

    async def run() -> list[Any]:
        seen.append(get_contextvars())
        return []

    world.health.run = run  # type: ignore[method-assign]

    await world.client().get("/readyz", headers={"X-Request-Id": "r-1"})

    assert seen == [{"request_id": "r-1"}]
    assert get_contextvars() == {}


async def test_ends_an_answer_that_breaks_after_it_has_begun_without_a_second_one() -> None:
    api = create_api(BUILT_IN, version="1")
    api.state.use_cases = World().use_cases()
    sent: list[str] = []

    async def break_after_the_first_chunk() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError

    @api.get("/breaks")
    async def answer() -> StreamingResponse:
        return StreamingResponse(break_after_the_first_chunk())

    async def forever() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message["type"])

    scope = {"type": "http", "method": "GET", "path": "/breaks", "headers": [], "query_string": b""}

    with capture_logs() as logs:
        await api(scope, forever, send)

    assert sent == ["http.response.start", "http.response.body"]
    assert [entry["event"] for entry in logs] == ["request_failed", "request_served"]


async def test_logs_no_failure_when_the_client_goes_away_before_its_body_is_complete() -> None:
    sent: list[Message] = []

    async def messages() -> AsyncIterator[Message]:
        yield {"type": "http.request", "body": b"{", "more_body": True}
        yield {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/auth", "headers": headers, "query_string": b""}

    with capture_logs() as logs:
        api = create_api(BUILT_IN, version="1")
        api.state.use_cases = World().use_cases()
        await api(scope, messages().__anext__, send)

    assert [(entry["event"], entry["status"]) for entry in logs] == [("request_served", 499)]
    assert sent == []
