"""Routes of ours are FastAPI's, however they are added: the key first, then all that the manual promises."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import fastapi.routing
import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.accounts import Account
from app.presentation.http.api import create_api
from app.presentation.http.errors import problem
from app.presentation.http.routing import CurrentAccount, DirectRoute, KeyedRoute, account_of, splice
from app.presentation.http.state import use_cases_of
from app.presentation.routers import jobs, keys, ledger, payments, provider_events, system
from tests.unit.presentation_stand_ins import WEBHOOK_SECRET, Health, World, problem_of

OUR_ROUTERS = (jobs.router, ledger.router, payments.router, provider_events.router, system.router, keys.router)


class Owner(BaseModel):
    user: UUID


class OwnerAndMore(Owner):
    secret: str = "not documented"


class Refused(Exception):
    pass


async def simple(account: CurrentAccount) -> Owner:
    return Owner(user=account.external_user_id)


async def with_request(request: Request) -> Response:
    account = await account_of(request)
    return Response(Owner(user=account.external_user_id).model_dump_json(), media_type="application/json")


def in_a_thread(account: CurrentAccount) -> Owner:
    return Owner(user=account.external_user_id)


async def with_query(account: CurrentAccount, limit: Annotated[int, Query(le=5)] = 1) -> Owner:
    return Owner(user=account.external_user_id)


async def with_body(account: CurrentAccount, size: Annotated[int, Body(embed=True)] = 1) -> Owner:
    return Owner(user=account.external_user_id)


async def with_response(account: CurrentAccount, response: Response) -> Owner:
    response.headers["X-More"] = "yes"
    return Owner(user=account.external_user_id)


async def opened(request: Request) -> AsyncIterator[list[str]]:
    steps = ["opened"]
    request.app.state.steps = steps
    yield steps
    steps.append("closed")


async def with_yield(account: CurrentAccount, steps: Annotated[list[str], Depends(opened)]) -> Owner:
    steps.append("used")
    return Owner(user=account.external_user_id)


async def anything() -> None:
    return None


def included(api: FastAPI, router: APIRouter) -> str:
    api.include_router(router, prefix="/x")
    return "/x/owner/1"


def included_in_an_included_one(api: FastAPI, router: APIRouter) -> str:
    between = APIRouter(prefix="/y")
    between.include_router(router, prefix="/z")
    api.include_router(between, prefix="/x")
    return "/x/y/z/owner/1"


def included_with_dependencies(api: FastAPI, router: APIRouter) -> str:
    api.include_router(router, dependencies=[Depends(anything)])
    return "/owner/1"


def spliced(api: FastAPI, router: APIRouter) -> str:
    splice(api, [router])
    return "/owner/1"


def added_to_the_application(api: FastAPI, router: APIRouter) -> str:
    (route,) = router.routes
    api.router.route_class = KeyedRoute
    api.api_route("/owner/{number}", methods=["POST"])(route.endpoint)  # type: ignore[attr-defined]
    return "/owner/1"


Way = Callable[[FastAPI, APIRouter], str]
WAYS = (included, included_in_an_included_one, included_with_dependencies, spliced, added_to_the_application)
ENDPOINTS = (simple, with_request, in_a_thread, with_query, with_body, with_response, with_yield)

ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
endpoints = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.__name__)


def api_of(world: World) -> FastAPI:
    api = create_api(version="1")
    api.state.use_cases = world.use_cases()
    return api


def client_of(api: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate")


def router_with(endpoint: Callable[..., Any], route_class: type[DirectRoute] = KeyedRoute) -> APIRouter:
    router = APIRouter(route_class=route_class)
    router.post("/owner/{number}")(endpoint)
    return router


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
    assert operation["security"] == [{"ApiKey": []}]


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


@ways
@pytest.mark.parametrize(("query", "status"), [("limit=5", 200), ("limit=6", 422), ("limit=five", 422)])
async def test_maps_a_refused_parameter_to_a_problem(way: Way, query: str, status: int) -> None:
    world = World()
    _, key = await world.a_user()
    api = api_of(world)
    path = way(api, router_with(with_query))

    response = await client_of(api).post(f"{path}?{query}", headers=key)

    assert response.status_code == status
    if status == 422:
        assert [error["pointer"] for error in problem_of(response)["errors"]] == ["/limit"]


@ways
async def test_closes_what_a_dependency_opened(way: Way) -> None:
    world = World()
    _, key = await world.a_user()
    api = api_of(world)

    await client_of(api).post(way(api, router_with(with_yield)), headers=key)

    assert api.state.steps == ["opened", "used", "closed"]


@pytest.mark.parametrize("route_class", [DirectRoute, KeyedRoute])
async def test_obeys_the_dependencies_that_an_inclusion_brings(route_class: type[DirectRoute]) -> None:
    async def refuse() -> None:
        raise Refused

    async def answer() -> Owner:
        raise AssertionError("the endpoint was called")

    async def say_no(request: Request, error: Refused) -> Response:
        return problem(request.scope, 403, "refused", "No.")

    world = World()
    _, key = await world.a_user()
    api = api_of(world)
    api.add_exception_handler(Refused, say_no)  # type: ignore[arg-type]
    api.include_router(router_with(answer, route_class), dependencies=[Depends(refuse)])

    response = await client_of(api).post("/owner/1", headers=key)

    assert (response.status_code, problem_of(response)["code"]) == (403, "refused")


@ways
@endpoints
async def test_obeys_overrides_of_dependencies(way: Way, endpoint: Callable[..., Any]) -> None:
    world = World()
    mine, key = await world.a_user()
    other, _ = await world.a_user()
    api = api_of(world)
    path = way(api, router_with(endpoint))

    async def the_other() -> Account:
        return other

    api.dependency_overrides[account_of] = the_other
    overridden = await client_of(api).post(path, headers=key)
    without_a_key = await client_of(api).post(path)
    api.dependency_overrides.clear()
    response = await client_of(api).post(path, headers=key)

    # It calls account_of by itself, and not as a dependency.
    seen = mine if endpoint is with_request else other
    assert overridden.json() == {"user": str(seen.external_user_id)}
    assert without_a_key.status_code == 401
    assert response.json() == {"user": str(mine.external_user_id)}


async def test_overrides_reach_our_own_routes_of_this_application_only() -> None:
    world, unhealthy = World(), World(health=Health(checks=()))
    _, key = await world.a_user(tokens=7)
    api, another = api_of(world), api_of(world)
    looked: list[str] = []

    async def instead(request: Request) -> Any:
        looked.append(request.url.path)
        return unhealthy.use_cases()

    api.dependency_overrides[use_cases_of] = instead
    ready = await client_of(api).get("/readyz")
    unknown = await client_of(api).get("/generations/0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b", headers=key)
    elsewhere = await client_of(another).get("/readyz")

    assert ready.json()["checks"] == []
    assert unknown.status_code == 404
    assert elsewhere.json()["checks"] != []
    assert looked == ["/readyz", "/generations/0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"]


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


async def test_takes_middleware_after_the_application_was_made() -> None:
    class AddHeader:
        def __init__(self, app: ASGIApp, value: str) -> None:
            self.app, self.value = app, value

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def send_more(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"].append((b"x-added", self.value.encode()))
                await send(message)

            await self.app(scope, receive, send_more)

    world = World()
    api = api_of(world)
    api.add_middleware(AddHeader, value="later")

    response = await client_of(api).get("/balance")

    assert response.status_code == 401
    assert response.headers["x-added"] == "later"
    assert problem_of(response)["code"] == "invalid_api_key"


@pytest.mark.parametrize("way", [included, spliced])
async def test_takes_exception_handlers_after_the_application_was_made(way: Way) -> None:
    async def fail() -> Response:
        raise Refused

    api = api_of(World())
    path = way(api, router_with(fail, DirectRoute))

    @api.exception_handler(Refused)
    async def say_no(request: Request, error: Refused) -> Response:
        return problem(request.scope, 418, "refused", "No.")

    response = await client_of(api).post(path)

    assert (response.status_code, problem_of(response)["code"]) == (418, "refused")


async def test_calls_busy_endpoints_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    account, key = await world.a_user(tokens=100)
    payment = {"external_user_id": str(account.external_user_id), "amount": 5}
    job = world.jobs.add(account.id)
    client = world.client()

    async def fail(**_: object) -> None:
        raise AssertionError("FastAPI looked for parameters")

    monkeypatch.setattr(fastapi.routing, "solve_dependencies", fail)

    assert (await client.get("/balance", headers=key)).status_code == 200
    assert (await client.get(f"/generations/{job.id}", headers=key)).status_code == 200
    assert (await client.post(f"/generations/{job.id}/cancel", headers=key)).status_code == 200
    assert (await client.get("/healthz")).status_code == 200
    for path, body in (("images/text-to-image", {"prompt": "fox"}), ("videos/text-to-video", {"prompt": "fox"})):
        assert (await client.post(f"/generations/{path}", json=body, headers=key)).status_code == 202
    secret = {"X-Webhook-Secret": WEBHOOK_SECRET}
    assert (await client.post("/webhook/topup", json=payment, headers=secret)).status_code == 200


async def nested(request: Request, account: CurrentAccount) -> Account:
    return account


class OfTheRequest:
    def __init__(self, request: Request) -> None:
        self.path = request.url.path

    async def __call__(self, request: Request) -> None:
        raise AssertionError("FastAPI would make one, and not call it")


async def through_another(account: Annotated[Account, Depends(nested)]) -> Owner:
    return Owner(user=account.external_user_id)


async def through_a_class(account: CurrentAccount, seen: Annotated[OfTheRequest, Depends()]) -> Owner:
    assert seen.path == "/owner/1"
    return Owner(user=account.external_user_id)


async def twice(account: CurrentAccount, again: CurrentAccount) -> Owner:
    assert account is again
    return Owner(user=account.external_user_id)


async def answers_nothing() -> None:
    return None


@pytest.mark.parametrize("endpoint", [through_another, through_a_class, twice])
async def test_leaves_to_fastapi_what_a_direct_call_cannot_do(endpoint: Callable[..., Any]) -> None:
    world = World()
    account, key = await world.a_user()
    api = api_of(world)

    response = await client_of(api).post(spliced(api, router_with(endpoint)), headers=key)

    assert response.json() == {"user": str(account.external_user_id)}


async def test_answers_without_a_body() -> None:
    router = APIRouter(route_class=DirectRoute)
    router.delete("/owner", status_code=204)(answers_nothing)
    api = api_of(World())
    splice(api, [router])

    response = await client_of(api).delete("/owner")

    assert (response.status_code, response.content) == (204, b"")


async def answers_more(account: CurrentAccount) -> Owner:
    return OwnerAndMore(user=account.external_user_id)


@ways
async def test_never_shows_a_field_that_the_route_does_not_document(way: Way) -> None:
    world = World()
    _, key = await world.a_user()
    api = api_of(world)

    response = await client_of(api).post(way(api, router_with(answers_more)), headers=key)

    assert "secret" not in response.text


Call = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


async def test_our_routes_answer_alike_where_they_are_included() -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)
    job = world.jobs.add(account.id)
    payment = {"external_user_id": str(account.external_user_id), "amount": 5}
    secret = {"X-Webhook-Secret": WEBHOOK_SECRET, "X-Event-Id": "pay_1"}
    repeated = [*key.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    start = "/generations/images/text-to-image"
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/balance", {"headers": key}),
        ("GET", "/balance", {}),
        ("GET", f"/generations/{job.id}", {"headers": key}),
        ("GET", "/generations/other", {"headers": key}),
        ("GET", "/generations", {"headers": key}),
        ("GET", "/generations?limit=0", {"headers": key}),
        ("GET", "/ledger?cursor=0", {"headers": key}),
        ("POST", start, {"headers": key | {"Idempotency-Key": "k"}, "json": {"prompt": "fox"}}),
        ("POST", start, {"headers": key | {"Idempotency-Key": "k"}, "json": {"prompt": "fox"}}),
        ("POST", start, {"headers": repeated, "json": {"prompt": ""}}),
        ("POST", start, {"headers": repeated, "json": {"prompt": "fox"}}),
        ("POST", start, {"headers": key, "content": b"{"}),
        ("POST", "/generations/other/cancel", {"headers": repeated}),
        ("POST", f"/generations/{job.id}/cancel", {"headers": repeated}),
        ("POST", "/webhook/topup", {"headers": secret, "json": payment}),
        ("POST", "/webhook/topup", {"headers": {}, "content": b"{"}),
        ("POST", "/webhooks/fal/other", {"content": b"{"}),
        ("POST", "/auth", {"json": {"external_user_id": str(account.external_user_id)}}),
        ("POST", "/auth", {"content": b"{"}),
        ("GET", "/healthz", {}),
        ("GET", "/readyz", {}),
    ]
    api = api_of(world)
    for router in OUR_ROUTERS:
        api.include_router(router, prefix="/included")
    client = client_of(api)
    # Whatever the first request of a kind writes is there for both that are compared.
    for method, path, options in requests:
        await client.request(method, path, **options)
    headers_of_each = {"x-request-id"}

    for method, path, options in requests:
        direct = await client.request(method, path, **options)
        through_fastapi = await client.request(method, f"/included{path}", **options)

        assert direct.status_code == through_fastapi.status_code, path
        mask = lambda answer: answer.text.replace(answer.headers["x-request-id"], "")  # noqa: E731
        assert mask(direct) == mask(through_fastapi), path
        names = [set(answer.headers.items()) for answer in (direct, through_fastapi)]
        assert {name for name, _ in names[0] ^ names[1]} <= headers_of_each, path
