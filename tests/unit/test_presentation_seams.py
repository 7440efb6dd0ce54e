"""What FastAPI's manual lets anybody add works here, and our short way through does the same as its long one."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.routing import Route

from app.presentation.http.keyed_routes import CurrentAccount
from app.presentation.http.routing import DirectRoute
from tests.unit.presentation_routers import api_of, client_of, included, router_with, simple, spliced, ways
from tests.unit.presentation_stand_ins import World, problem_of

Next = Callable[[Request], Awaitable[Response]]


class View(BaseModel):
    user_name: str = Field(serialization_alias="userName")


class MoreThanTheView(View):
    secret: str


async def hello(_: Request) -> Response:
    return PlainTextResponse("hello")


@pytest.mark.parametrize(
    "mounted", [FastAPI(), Starlette(routes=[Route("/hello", hello)])], ids=["fastapi", "starlette"]
)
async def test_a_mounted_application_answers(mounted: FastAPI | Starlette) -> None:
    if isinstance(mounted, FastAPI):
        mounted.get("/hello")(hello)
    api = api_of(World())
    api.mount("/sub", mounted)

    answer = await client_of(api).get("/sub/hello")

    assert answer.status_code == 200
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("way", [included, spliced], ids=lambda way: way.__name__)
async def test_what_guards_the_whole_application_guards_each_route(way: Callable[[FastAPI, APIRouter], str]) -> None:
    async def forbid() -> None:
        raise HTTPException(403)

    api = api_of(World())
    api.router.dependencies.append(Depends(forbid))

    answer = await client_of(api).post(way(api, router_with(anything_at_all, DirectRoute)))

    assert answer.status_code == 403


async def anything_at_all() -> View:
    return View(user_name="a")


async def test_no_middleware_can_say_whose_request_it_is() -> None:
    world = World()
    account, _ = await world.a_user()
    api = api_of(world)

    @api.middleware("http")
    async def pretend(request: Request, call_next: Next) -> Response:
        request.state.account = account
        return await call_next(request)

    @api.get("/whose")
    async def whose(owner: CurrentAccount) -> str:
        return str(owner.id)

    answer = await client_of(api).get("/whose")

    assert answer.status_code == 500


@ways
async def test_an_account_is_that_of_the_key(way: Callable[[FastAPI, APIRouter], str]) -> None:
    world = World()
    (first, key), (_, other) = await world.a_user(), await world.a_user()
    api = api_of(world)
    path, client = way(api, router_with(simple)), client_of(api)

    users = [(await client.post(path, headers=headers)).json()["user"] for headers in (key, other, key)]

    assert users[0] == users[2] == str(first.external_user_id) != users[1]


@pytest.mark.parametrize("way", [included, spliced], ids=lambda way: way.__name__)
async def test_an_answer_has_the_fields_of_the_model_by_their_published_names(
    way: Callable[[FastAPI, APIRouter], str],
) -> None:
    async def more() -> View:
        return MoreThanTheView(user_name="a", secret="b")

    api = api_of(World())

    answer = await client_of(api).post(way(api, router_with(more, DirectRoute)))

    assert answer.json() == {"userName": "a"}


@pytest.mark.parametrize("way", [included, spliced], ids=lambda way: way.__name__)
async def test_a_dependency_may_take_the_request_by_keyword_only(way: Callable[[FastAPI, APIRouter], str]) -> None:
    async def method(*, request: Request) -> str:
        return request.method

    async def named(name: Annotated[str, Depends(method)]) -> View:
        return View(user_name=name)

    api = api_of(World())

    answer = await client_of(api).post(way(api, router_with(named, DirectRoute)))

    assert answer.json() == {"userName": "POST"}


@pytest.mark.parametrize("what", [Exception, 500])
async def test_a_handler_for_whatever_is_not_handled_otherwise_is_called(what: type[Exception] | int) -> None:
    api = api_of(World())

    @api.exception_handler(what)
    async def handle(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"sorry: {type(error).__name__}", 500)

    @api.get("/breaks")
    async def breaks() -> None:
        raise ZeroDivisionError

    answer = await client_of(api).get("/breaks")

    assert (answer.status_code, answer.text) == (500, "sorry: ZeroDivisionError")
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(("status", "title"), [(418, "I'm a Teapot"), (599, "Error")])
async def test_answers_any_status_that_a_route_raises(status: int, title: str) -> None:
    api = api_of(World())

    @api.get("/raises")
    async def raises() -> None:
        raise HTTPException(status, "words of a library")

    answer = await client_of(api).get("/raises")

    assert problem_of(answer)["title"] == title
    assert "words of a library" not in answer.text


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    api = api_of(World())

    @api.get("/raises")
    async def raises() -> None:
        raise HTTPException(status)

    answer = await client_of(api).get("/raises")

    assert (answer.status_code, answer.content) == (status, b"")
