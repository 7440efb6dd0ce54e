"""Behind a path of a proxy, in a browser, and watched by probes."""

import httpx
import pytest
import structlog
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.application.ports.health import Check
from app.presentation.http import middleware
from app.presentation.http.api import create_api
from app.presentation.http.root_path import RootPathTaken
from tests.builders import BUILT_IN
from tests.unit.presentation_routers import client_of
from tests.unit.presentation_stand_ins import World, problem_of

ORIGIN = "https://app.example.com"
START = "/generations/images/text-to-image"
EXPOSED = {
    "X-Request-Id",
    "Retry-After",
    "RateLimit-Policy",
    "RateLimit",
    "Location",
    "Idempotent-Replayed",
    "ETag",
    "X-Cost-Tokens",
    "X-Balance-Tokens",
}


def api_with(world: World, *, root_path: str = "", cors_origins: tuple[str, ...] = ()) -> FastAPI:
    api = create_api(BUILT_IN, version="1", root_path=root_path, cors_origins=cors_origins)
    api.state.use_cases = world.use_cases()
    return api


@pytest.mark.parametrize("prefix", ["", "/ai/v2"], ids=["cut off", "kept"])
async def test_answers_behind_a_path(prefix: str) -> None:
    world = World()
    _, key = await world.a_user(tokens=5)
    client = client_of(api_with(world, root_path="/ai/v2"))

    started = await client.post(f"{prefix}{START}", json={"prompt": "a fox"}, headers=key)
    assert started.status_code == 202
    job_id = started.json()["job_id"]
    assert started.headers["location"] == f"/ai/v2/generations/{job_id}"
    assert (await client.get(f"{prefix}/generations/{job_id}", headers=key)).status_code == 200
    document = (await client.get(f"{prefix}/openapi.json")).json()
    assert document["servers"] == [{"url": "/ai/v2"}]
    assert "/balance" in document["paths"]
    for page in ("/docs", "/redoc"):
        text = (await client.get(f"{prefix}{page}")).text
        assert "/ai/v2/static-offline-docs/" in text
        assert "/ai/v2/openapi.json" in text
    for asset in ("swagger-ui.css", "redoc.standalone.js"):
        assert (await client.get(f"{prefix}/static-offline-docs/{asset}")).status_code == 200
    for path in ("/nothing", "/ai", "/ai/v2/ai/v2/balance", "/ai/v2balance"):
        assert (await client.get(path)).status_code == 404
    assert (await client.get(f"{prefix}/balance")).status_code == 401


async def test_names_no_server_where_there_is_no_such_path() -> None:
    assert "servers" not in (await World().client().get("/openapi.json")).json()


@pytest.mark.parametrize("root_path", ["/generations", "/docs", "/webhooks", "/generations/images"])
def test_refuses_a_path_that_its_own_routes_begin_with(root_path: str) -> None:
    with pytest.raises(RootPathTaken, match="beginning of a route"):
        create_api(BUILT_IN, version="1", root_path=root_path)


async def test_lets_pages_ask_that_the_operator_allows() -> None:
    world = World()
    _, key = await world.a_user(tokens=5)
    client = client_of(api_with(world, cors_origins=(ORIGIN, "http://localhost:5173")))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key, content-type"}

    for origin in (ORIGIN, "http://localhost:5173"):
        preflight = await client.options(START, headers={"Origin": origin, **asks})
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == origin
        assert "X-API-Key" in preflight.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in preflight.headers
        assert preflight.headers["x-request-id"]
        started = await client.post(START, json={"prompt": "a fox"}, headers={**key, "Origin": origin})
        assert started.headers["access-control-allow-origin"] == origin
        exposed = started.headers["access-control-expose-headers"].split(", ")
        assert set(exposed) == EXPOSED
        assert "Origin" in started.headers["vary"]
    for answer in (
        await client.get("/balance", headers={"Origin": ORIGIN}),
        await client.get("/nothing", headers={"Origin": ORIGIN}),
        await client.get("/healthz", headers={"Origin": ORIGIN, "X-Long": "x" * 40_000}),
    ):
        assert answer.status_code >= 400
        assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_a_page_can_read_each_header_that_an_answer_tells_it_something_by() -> None:
    world = World()
    _, key = await world.a_user(tokens=100)
    api = api_with(world, cors_origins=(ORIGIN,))
    client = client_of(api)
    page = {**key, "Origin": ORIGIN, "Idempotency-Key": "order 4711"}

    documented = {
        name
        for path in api.openapi()["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
        for name in response.get("headers", {})
    }
    first = await client.post(START, json={"prompt": "a fox"}, headers=page)
    repeat = await client.post(START, json={"prompt": "a fox"}, headers=page)
    world.jobs.keys_in_use.add("busy")
    busy = await client.post(START, json={"prompt": "a fox"}, headers=page | {"Idempotency-Key": "busy"})
    models = await client.get("/models", headers=page)

    assert documented <= EXPOSED
    assert {"location", "x-cost-tokens", "x-balance-tokens", "x-request-id"} <= set(first.headers)
    assert repeat.headers["idempotent-replayed"] == "true"
    assert busy.headers["retry-after"]
    assert models.headers["etag"]
    for answer in (first, repeat, busy, models):
        assert set(answer.headers["access-control-expose-headers"].split(", ")) == EXPOSED


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", f"{ORIGIN}.evil.com", "http://app.example.com"])
async def test_lets_no_other_page_ask(origin: str) -> None:
    client = client_of(api_with(World(), cors_origins=(ORIGIN,)))
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}

    preflight = await client.options(START, headers=headers)
    plain = await client.get("/healthz", headers={"Origin": origin})

    assert preflight.status_code == 403
    assert problem_of(preflight)["code"] == "origin_not_allowed"
    assert plain.status_code == 200
    for answer in (preflight, plain):
        assert "access-control-allow-origin" not in answer.headers


async def test_is_for_no_page_unless_the_operator_says_so() -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}

    answers = [
        await World().client().options(START, headers=headers),
        await World().client().get("/docs", headers=headers),
    ]

    assert answers[0].status_code == 405
    assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_good_probe_is_no_news(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A logger that was used after a command had set up its own levels keeps them.
    monkeypatch.setattr(middleware, "log", structlog.get_logger())
    world = World()
    world.health.checks = (Check("database", True, "answers"),)
    with capture_logs() as logs:
        for path in ("/healthz", "/readyz", "/balance"):
            await world.client().request(method, path)
        world.health.checks = (Check("database", False, "does not answer"),)
        await world.client().request(method, "/readyz")

    levels = [(entry["route"], entry["method"], entry["status"], entry["log_level"]) for entry in logs]
    assert levels == [
        ("/healthz", method, 200, "debug"),
        ("/readyz", method, 200, "debug"),
        ("/balance", method, 401, "info"),
        ("/readyz", method, 503, "info"),
    ]


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ([b"tollgate"], 200),
        ([b"tollgate:8000"], 200),
        ([b"[::1]:8000"], 200),
        ([b"127.0.0.1"], 200),
        ([b""], 200),
        ([b"xn--80ak6aa92e.com."], 200),
        ([], 400),
        ([b"a", b"a"], 400),
        ([b"a", b"b"], 400),
        ([b"a b"], 400),
        ([b"a/b"], 400),
        ([b"user@a"], 400),
        ([b"a,b:1"], 200),
        ([b"a:80:80"], 400),
        ([b"http://a"], 400),
        (["фокс".encode()], 400),
    ],
    ids=repr,
)
async def test_asks_for_one_host(hosts: list[bytes], status: int) -> None:
    sent = []

    async def send(message: httpx.Response) -> None:
        sent.append(message)

    headers = [(b"host", host) for host in hosts]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/healthz",
        "headers": headers,
        "query_string": b"",
    }
    await api_with(World())(scope, None, send)  # type: ignore[arg-type]

    start = sent[0]
    assert start["status"] == status  # type: ignore[index]
    assert ((b"connection", b"close") in start["headers"]) == (status == 400)  # type: ignore[index]
