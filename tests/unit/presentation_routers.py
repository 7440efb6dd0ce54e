"""Routers that customers of FastAPI would write, and the ways to add one to an application."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel

from app.presentation.http.api import create_api
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute, account_of
from app.presentation.http.routing import DirectRoute, splice
from tests.builders import BUILT_IN
from tests.unit.presentation_stand_ins import World


class Owner(BaseModel):
    user: UUID


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
    splice(api, router)
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
    api = create_api(BUILT_IN, version="1")
    api.state.use_cases = world.use_cases()
    return api


def client_of(api: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate")


def router_with(endpoint: Callable[..., Any], route_class: type[DirectRoute] = KeyedRoute) -> APIRouter:
    router = APIRouter(route_class=route_class)
    router.post("/owner/{number}")(endpoint)
    return router
