"""No way to add a route, and none of the routes that there are, answers for an account without its key."""

import re
from collections.abc import Callable
from typing import Any

import fastapi.routing
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.types import Message

from app.presentation.http.api import create_api
from app.presentation.http.keyed_routes import KeyedRoute, account_of
from app.presentation.http.routing import DirectRoute
from tests.builders import BUILT_IN
from tests.unit.presentation_routers import (
    Way,
    anything,
    api_of,
    client_of,
    endpoints,
    in_a_thread,
    included,
    router_with,
    simple,
    spliced,
    ways,
    with_body,
    with_query,
    with_request,
    with_yield,
)
from tests.unit.presentation_stand_ins import SOURCE_SECRET, WEBHOOK_SECRET, World, problem_of


@ways
@endpoints
async def test_asks_for_the_key_however_it_is_added(way: Way, endpoint: Callable[..., Any]) -> None:
    world = World()
    account, key = await world.a_user()
    api = api_of(world)
    path = way(api, router_with(endpoint))

    without, wrong, right = [
        await client_of(api).post(path, headers=headers) for headers in ({}, {"X-API-Key": "tgk_wrong"}, key)
    ]

    assert [without.status_code, wrong.status_code, right.status_code] == [401, 401, 200], right.text
    assert problem_of(without)["code"] == problem_of(wrong)["code"] == "invalid_api_key"
    assert right.json() == {"user": str(account.external_user_id)}
    operation = api.openapi()["paths"][path.replace("1", "{number}")]["post"]
    assert operation["security"] == [{"ApiKey": []}, {"Authorization": []}]


@ways
async def test_asks_for_the_key_before_it_reads_or_judges_anything(way: Way) -> None:
    api = api_of(World())
    judged: list[str] = []

    async def judge(limit: int) -> None:
        judged.append("query")

    router = APIRouter(route_class=KeyedRoute, dependencies=[Depends(judge)])
    router.post("/owner/{number}")(with_body)
    path = way(api, router)
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"1")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"limit=none"}
    await api(scope, receive, send)

    assert sent[0]["status"] == 401
    assert judged == []


@pytest.mark.parametrize("endpoint", [simple, with_request, in_a_thread, with_query, with_yield])
@pytest.mark.parametrize("way", [included, spliced])
async def test_never_answers_for_an_account_where_the_route_asks_for_no_key(
    way: Way, endpoint: Callable[..., Any]
) -> None:
    world = World()
    _, key = await world.a_user()
    api = api_of(world)
    path = way(api, router_with(endpoint, DirectRoute))
    client = client_of(api)
    assert (await client.get("/balance", headers=key)).status_code == 200

    responses = [await client.post(path, headers=headers) for headers in ({}, key)]

    assert [response.status_code for response in responses] == [500, 500]


@pytest.mark.parametrize("state", [{}, {"state": {"request_id": "r-1"}}])
async def test_says_which_route_asks_for_an_account_but_for_no_key(state: dict[str, Any]) -> None:
    (route,) = router_with(simple, DirectRoute).routes

    with pytest.raises(RuntimeError, match=r"/owner/{number} asks for an account"):
        await account_of(Request({"type": "http", "route": route} | state))


API = create_api(BUILT_IN, version="1")
DOCUMENT = API.openapi()
# The digest of the files of the studio.
STUDIO = next(path.split("/")[2] for route in API.routes if (path := getattr(route, "path", "")).startswith("/studio/"))

# What answers without an API key, and why it may.
WITHOUT_KEY = {
    "POST /auth": "hands out the keys; replacing one needs a proof, which it checks itself",
    "GET /healthz": "says that the process lives, and nothing else",
    "GET /models": "says what is sold, and nothing of anybody",
    "GET /models/{model}": "says what is sold, and nothing of anybody",
    "GET /media/{media}/{name}": "a link is signed, and all that is needed: so pages can show what it leads to",
    "GET /readyz": "says whether the service works, for load balancers",
    "GET /openapi.json": "documentation",
    "HEAD /openapi.json": "documentation",
    "GET /docs": "documentation",
    "GET /docs/oauth2-redirect": "a part of /docs",
    "GET /redoc": "documentation",
    "GET /static-offline-docs/{name}": "what /docs and /redoc load",
    "HEAD /static-offline-docs/{name}": "what /docs and /redoc load",
    "GET /": "the studio: a page without anybody's data, which asks for a key itself",
    "HEAD /": "the studio",
    f"GET /studio/{STUDIO}/{{name}}": "what the studio loads",
    f"HEAD /studio/{STUDIO}/{{name}}": "what the studio loads",
}
# What answers 401 to a proof that OpenAPI cannot describe.
OTHER_PROOF = {"POST /webhooks/fal/{token}": "fal signs the body"}


def routes_of(api: FastAPI) -> list[tuple[str, str]]:
    """The method and the path of whatever the application answers; GET for what has no methods, such as a mount."""
    return [
        (method, re.sub(r":\w+}", "}", context.path or ""))
        for context in fastapi.routing.iter_route_contexts(api.routes)
        for method in sorted(context.methods or {"GET"})
    ]


def operations() -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


async def status_of(api: FastAPI, operation: str, headers: dict[str, str] | None = None) -> int:
    method, _, path = operation.partition(" ")
    # Neither the parameters nor the missing body can be what is wrong with the request before its key is.
    response = await client_of(api).request(method, re.sub(r"{\w+}", "x", path), headers=headers)
    return response.status_code


@pytest.mark.parametrize("operation", [f"{method} {path}" for method, path in routes_of(API)])
async def test_every_route_asks_for_a_key_unless_it_is_listed(operation: str) -> None:
    assert (await status_of(api_of(World()), operation) != 401) == (operation in WITHOUT_KEY)


def test_the_walk_meets_every_operation_and_lists_no_route_that_is_gone() -> None:
    walked = {f"{method} {path}" for method, path in routes_of(API)}

    assert walked >= operations().keys()
    assert walked >= WITHOUT_KEY.keys() | OTHER_PROOF.keys()


@pytest.mark.parametrize("operation", operations())
async def test_the_document_says_what_a_route_asks_for(operation: str) -> None:
    world = World()
    _, key = await world.a_user()
    proofs = {
        "ApiKey": key,
        "Authorization": {"Authorization": f"Bearer {key['X-API-Key']}"},
        "WebhookSecret": {"X-Webhook-Secret": WEBHOOK_SECRET},
        "SourceSecret": {"X-Webhook-Secret": SOURCE_SECRET},
        "AuthSecret": {"X-Auth-Secret": ""},
    }
    security = operations()[operation].get("security", [])
    named = {name for alternative in security for name in alternative}
    api = api_of(world)

    if operation in OTHER_PROOF:
        assert security == []
        return
    is_needed = bool(security) and {} not in security
    assert (await status_of(api, operation) == 401) == is_needed
    for name, proof in proofs.items():
        assert (await status_of(api, operation, proof) == 401) == (is_needed and name not in named)
    assert named <= DOCUMENT["components"]["securitySchemes"].keys()


async def test_the_walk_finds_a_route_without_the_key_check() -> None:
    api = api_of(World())
    api.include_router(router_with(simple, DirectRoute), prefix="/x")
    api.get("/y")(anything)

    assert ("POST", "/x/owner/{number}") in routes_of(api)
    assert await status_of(api, "POST /x/owner/{number}") == 500
    assert await status_of(api, "GET /y") == 200
