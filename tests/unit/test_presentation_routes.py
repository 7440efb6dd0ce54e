"""Routes of ours are FastAPI's: what its manual promises holds, however they are added."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import fastapi.routing
import pytest
from fastapi import APIRouter, Depends, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.domain.accounts import Account
from app.presentation.http.api import create_api
from app.presentation.http.errors import problem
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute, account_of
from app.presentation.http.routing import DirectRoute, splice
from app.presentation.http.state import use_cases_of
from tests.builders import BUILT_IN
from tests.unit.presentation_routers import (
    Owner,
    Way,
    api_of,
    client_of,
    endpoints,
    included,
    router_with,
    spliced,
    ways,
    with_query,
    with_request,
    with_yield,
)
from tests.unit.presentation_stand_ins import WEBHOOK_SECRET, Health, World, problem_of


class OwnerAndMore(Owner):
    secret: str = "not documented"


class Refused(Exception):
    pass


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


class ReadOnce:
    parameter: ClassVar[Any] = {"name": "X-Once", "in": "header", "schema": {"type": "string"}}

    async def __call__(self, request: Request) -> object:
        return object()


Once = Annotated[object, Depends(ReadOnce())]


async def twice(account: CurrentAccount, some: Once, again: Once) -> Owner:
    assert some is again
    return Owner(user=account.external_user_id)


async def answers_nothing() -> None:
    return None


def test_splices_no_route_that_it_cannot_make_the_applications_own() -> None:
    router = APIRouter()
    router.get("/owner")(answers_nothing)

    with pytest.raises(TypeError, match="no DirectRoute"):
        splice(create_api(BUILT_IN, version="1"), router)


@pytest.mark.parametrize("endpoint", [through_another, through_a_class, twice])
async def test_leaves_to_fastapi_what_a_direct_call_cannot_do(endpoint: Callable[..., Any]) -> None:
    world = World()
    account, key = await world.a_user()
    api = api_of(world)

    response = await client_of(api).post(spliced(api, router_with(endpoint)), headers=key)

    assert response.json() == {"user": str(account.external_user_id)}


def test_documents_a_parameter_once_however_often_it_is_named() -> None:
    (route,) = router_with(twice).routes

    assert route.openapi_extra["parameters"] == [ReadOnce.parameter]  # type: ignore[attr-defined]


async def test_answers_without_a_body() -> None:
    router = APIRouter(route_class=DirectRoute)
    router.delete("/owner", status_code=204)(answers_nothing)
    api = api_of(World())
    splice(api, router)

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
