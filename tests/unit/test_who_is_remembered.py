"""Who is remembered, for how long, and which routes go by that."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI

from app.domain.accounts import Account, Caller
from app.infrastructure.postgres.keys.memory import REMEMBERED_MAX, REMEMBERED_SECONDS, CallerMemory
from app.presentation.http.keyed_routes import KeyedRoute, VersionedRoute
from app.presentation.http.routing import DirectRoute
from tests.unit.presentation_routers import (
    anything,
    api_of,
    client_of,
    included,
    included_in_an_included_one,
    included_with_dependencies,
    router_with,
    simple,
    spliced,
    with_query,
    with_yield,
)
from tests.unit.presentation_stand_ins import FULL_KEY, World


def a_caller() -> Caller:
    return Caller(Account(id=uuid4(), external_user_id=uuid4(), balance_tokens=0), FULL_KEY)


def test_a_caller_is_forgotten_after_its_time() -> None:
    now_seconds = 100.0
    memory = CallerMemory(lambda: now_seconds)
    memory.add(b"a", a_caller())

    now_seconds += REMEMBERED_SECONDS - 0.1
    known = memory.get(b"a")
    now_seconds += 0.2

    assert known is not None
    assert known.is_remembered
    assert memory.get(b"a") is None


def test_no_more_are_remembered_than_there_is_room_for() -> None:
    memory = CallerMemory()
    caller = a_caller()

    for number in range(2 * REMEMBERED_MAX + 1):
        memory.add(number.to_bytes(4), caller)

    kept = [number for number in range(2 * REMEMBERED_MAX + 1) if memory.get(number.to_bytes(4)) is not None]
    assert len(kept) <= REMEMBERED_MAX
    assert kept[-1] == 2 * REMEMBERED_MAX


def spliced_into_a_guarded_application(api: FastAPI, router: APIRouter) -> str:
    api.router.dependencies.append(Depends(anything))
    return spliced(api, router)


def spliced_and_overridden(api: FastAPI, router: APIRouter) -> str:
    api.dependency_overrides[anything] = anything
    return spliced(api, router)


def with_a_guard_of_its_own(api: FastAPI, router: APIRouter) -> str:
    guarded = APIRouter(route_class=VersionedRoute)
    guarded.post("/owner/{number}", dependencies=[Depends(anything)])(simple)
    return spliced(api, guarded)


@pytest.mark.parametrize(
    ("way", "endpoint", "route_class", "expected_lookups"),
    [
        (spliced, simple, VersionedRoute, 0),
        (spliced, simple, KeyedRoute, 1),
        (spliced, with_query, VersionedRoute, 1),
        (spliced, with_yield, VersionedRoute, 1),
        (included, simple, VersionedRoute, 1),
        (included_in_an_included_one, simple, VersionedRoute, 1),
        (included_with_dependencies, simple, VersionedRoute, 1),
        (spliced_into_a_guarded_application, simple, VersionedRoute, 1),
        (spliced_and_overridden, simple, VersionedRoute, 1),
        (with_a_guard_of_its_own, simple, VersionedRoute, 1),
    ],
)
async def test_only_a_route_that_asks_for_nothing_beside_takes_who_is_remembered(
    way: Callable[[FastAPI, APIRouter], str],
    endpoint: Callable[..., object],
    route_class: type[DirectRoute],
    expected_lookups: int,
) -> None:
    world = World()
    account, key = await world.a_user()
    world.accounts.remembers = True
    api = api_of(world)
    path = way(api, router_with(endpoint, route_class))
    world.accounts.lookups = 0

    answer = await client_of(api).post(path, headers=key)

    assert answer.status_code == 200, answer.text
    assert answer.json() == {"user": str(account.external_user_id)}
    assert world.accounts.lookups == expected_lookups
