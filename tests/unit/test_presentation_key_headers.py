"""The key of a user may come in either of two headers, and in both if they agree."""

from typing import Any

import httpx
import pytest

from app.application.keys import new_key
from tests.unit.presentation_stand_ins import World, problem_of

OTHER_KEY = new_key()


async def asked(headers: list[tuple[str, str]], world: World | None = None) -> tuple[httpx.Response, str]:
    """`{key}` in a header stands for the key of a user."""
    world = world or World()
    account, carried = await world.a_user(7)
    filled = [(name.encode(), value.format(key=carried["X-API-Key"]).encode()) for name, value in headers]
    response = await world.client().get("/balance", headers=filled)
    return response, str(account.external_user_id)


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer {key}")],
        [("Authorization", "Key {key}")],
        [("authorization", "bearer {key}")],
        [("AUTHORIZATION", "BEARER   {key}")],
        [("Authorization", "kEy  {key}  ")],
        [("X-API-Key", "{key}"), ("Authorization", "Bearer {key}")],
        [("Authorization", "Key {key}"), ("X-API-Key", "{key}")],
        [("X-API-Key", "{key}"), ("X-API-Key", "{key}")],
        [("Authorization", "Bearer {key}"), ("Authorization", "Key {key}")],
        [("X-API-Key", "{key}"), ("Authorization", "Basic dXNlcjpwYXNz")],
        [("Authorization", "Digest username=a"), ("X-API-Key", "{key}")],
        [("X-API-Key", "{key}"), ("Authorization", "Bearer")],
        [("X-API-Key", "{key}"), ("Authorization", "")],
        [("Authorization", "Basic dXNlcjpwYXNz"), ("Authorization", "Bearer {key}")],
    ],
)
async def test_a_key_opens_in_whichever_header_it_comes(headers: list[tuple[str, str]]) -> None:
    response, user = await asked(headers)

    assert response.status_code == 200, response.text
    assert response.json() == {"external_user_id": user, "balance_tokens": 7}


@pytest.mark.parametrize(
    "headers",
    [
        [("X-API-Key", "{key}"), ("Authorization", f"Bearer {OTHER_KEY}")],
        [("X-API-Key", OTHER_KEY), ("Authorization", "Bearer {key}")],
        [("Authorization", "Key nonsense"), ("X-API-Key", "{key}")],
        [("X-API-Key", "{key}"), ("X-API-Key", OTHER_KEY)],
        [("Authorization", "Bearer {key}"), ("Authorization", f"Key {OTHER_KEY}")],
        [("X-API-Key", ""), ("Authorization", "Bearer {key}")],
    ],
)
async def test_two_different_keys_open_nothing(headers: list[tuple[str, str]]) -> None:
    world = World()

    response, _ = await asked(headers, world)

    assert response.status_code == 401
    problem = problem_of(response)
    assert (problem["code"], problem["detail"]) == (
        "invalid_api_key",
        "This request carries two different API keys. Send one of them alone.",
    )
    assert world.accounts.lookups == 0


@pytest.mark.parametrize(
    "value", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "{key}", "Token {key}", "", "Bearer{key}"]
)
async def test_says_what_an_authorization_of_another_kind_lacks(value: str) -> None:
    response, _ = await asked([("Authorization", value)])

    assert response.status_code == 401
    problem = problem_of(response)
    assert problem["code"] == "invalid_api_key"
    assert problem["detail"].startswith(
        "This Authorization header carries no API key. Send it as Authorization: Bearer"
    )


@pytest.mark.parametrize(
    "value", ["Bearer nonsense", f"Key {OTHER_KEY}", "Bearer {key} {key}", "Bearer {key},", "Bearer geh\u00e9im"]
)
async def test_a_wrong_key_opens_nothing(value: str) -> None:
    response, _ = await asked([("Authorization", value)])

    assert response.status_code == 401
    assert problem_of(response)["code"] == "invalid_api_key"


async def rotated(world: World, user: str, headers: Any) -> httpx.Response:
    return await world.client().post("/auth", json={"external_user_id": user, "rotate": True}, headers=headers)


@pytest.mark.parametrize("value", ["Bearer {key}", "key {key}"])
async def test_the_current_key_in_either_header_replaces_itself(value: str) -> None:
    world = World()
    account, carried = await world.a_user()

    response = await rotated(
        world, str(account.external_user_id), {"Authorization": value.format(key=carried["X-API-Key"])}
    )

    assert response.status_code == 201
    new = {"Authorization": f"Bearer {response.json()['api_key']}"}
    assert (await world.client().get("/balance", headers=new)).status_code == 200
    assert (await world.client().get("/balance", headers=carried)).status_code == 401


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", f"Bearer {OTHER_KEY}", "Bearer"])
async def test_no_other_authorization_replaces_a_key(value: str) -> None:
    world = World()
    account, carried = await world.a_user()

    response = await rotated(world, str(account.external_user_id), {"Authorization": value})

    assert (response.status_code, problem_of(response)["code"]) == (401, "proof_required")
    assert (await world.client().get("/balance", headers=carried)).status_code == 200


async def test_a_first_key_needs_no_key_whatever_a_proxy_adds() -> None:
    body = {"external_user_id": "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"}

    response = await World().client().post("/auth", json=body, headers={"Authorization": "Basic dXNlcjpwYXNz"})

    assert response.status_code == 201
