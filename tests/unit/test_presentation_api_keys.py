"""Every way in which a request may carry a key, and those in which it may not."""

from uuid import uuid4

import httpx
import pytest

from app.domain.errors import InvalidApiKey
from app.presentation.http.api_keys import presented_key
from tests.unit.presentation_stand_ins import World, problem_of

Headers = list[tuple[str, str]]
KEY, OTHER = "tgk_one", "tgk_other"


def keys_in(headers: Headers) -> str | None:
    return presented_key([(name.lower().encode(), value.encode()) for name, value in headers])


@pytest.mark.parametrize(
    "headers",
    [
        [("X-API-Key", KEY)],
        [("Authorization", f"Bearer {KEY}")],
        [("Authorization", f"bearer {KEY}")],
        [("Authorization", f"BEARER   {KEY}  ")],
        [("Authorization", f"Key {KEY}")],
        [("authorization", f"KEY {KEY}")],
        [("X-API-Key", KEY), ("Authorization", f"Bearer {KEY}")],
        [("X-API-Key", KEY), ("X-API-Key", KEY)],
        [("Authorization", f"Key {KEY}"), ("Authorization", f"Bearer {KEY}")],
        # A proxy's own, which is none of our business beside a key.
        [("X-API-Key", KEY), ("Authorization", "Basic dXNlcjpwYXNz")],
        [("Authorization", "Basic dXNlcjpwYXNz"), ("X-API-Key", KEY)],
        [("X-API-Key", KEY), ("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln")],
    ],
)
def test_finds_the_key(headers: Headers) -> None:
    assert keys_in(headers) == KEY


@pytest.mark.parametrize(
    "headers",
    [
        [("X-API-Key", KEY), ("Authorization", f"Bearer {OTHER}")],
        [("Authorization", f"Key {OTHER}"), ("X-API-Key", KEY)],
        [("X-API-Key", KEY), ("X-API-Key", OTHER)],
        [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Key {OTHER}")],
        [("X-API-Key", KEY), ("Authorization", "Bearer ")],
        [("X-API-Key", ""), ("Authorization", f"Bearer {KEY}")],
    ],
)
def test_refuses_two_different_keys(headers: Headers) -> None:
    with pytest.raises(InvalidApiKey, match="two different keys"):
        keys_in(headers)


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", KEY, "Digest x", "", f"Bearer:{KEY}", f"Token {KEY}"])
def test_takes_no_other_authorization_for_a_key(value: str) -> None:
    assert keys_in([("Authorization", value)]) is None


def test_finds_nothing_where_there_is_nothing() -> None:
    assert keys_in([("Accept", "*/*")]) is None


async def answers_to(world: World, *headers: tuple[str, str]) -> httpx.Response:
    return await world.client().get("/balance", headers=list(headers))


async def test_a_key_opens_its_account_whichever_way_it_comes() -> None:
    world = World()
    _, headers = await world.a_user()
    _, others = await world.a_user()
    key, other = headers["X-API-Key"], others["X-API-Key"]

    for good in ([("Authorization", f"Bearer {key}")], [("Authorization", f"Key {key}")], [("X-API-Key", key)]):
        assert (await answers_to(world, *good)).status_code == 200
    for bad in (
        [("Authorization", f"Bearer {key}"), ("X-API-Key", other)],
        [("Authorization", f"Basic {key}")],
        [("Authorization", f"Bearer {key[:-1]}")],
        [("Authorization", "Bearer ")],
    ):
        refused = await answers_to(world, *bad)
        assert (refused.status_code, problem_of(refused)["code"]) == (401, "invalid_api_key")
        assert key not in refused.text


async def test_a_first_key_needs_none_whatever_a_proxy_wants_to_know() -> None:
    issued = (
        await World()
        .client()
        .post("/auth", json={"external_user_id": str(uuid4())}, headers={"Authorization": "Basic dXNlcjpwYXNz"})
    )

    assert issued.status_code == 201


async def test_a_key_is_replaced_by_whoever_shows_it_in_either_way() -> None:
    world = World()
    account, headers = await world.a_user()
    body = {"external_user_id": str(account.external_user_id), "rotate": True}

    replaced = await world.client().post(
        "/auth", json=body, headers={"Authorization": f"Bearer {headers['X-API-Key']}"}
    )

    assert replaced.status_code == 201
    assert (await answers_to(world, ("X-API-Key", headers["X-API-Key"]))).status_code == 401
