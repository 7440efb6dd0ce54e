import json
from uuid import uuid4

import pytest

from tests.unit.presentation_stand_ins import World, problem_of

AUTH_SECRET = "the service secret"


async def test_issues_the_first_key_and_forbids_to_keep_the_answer() -> None:
    user = uuid4()

    response = await World().client().post("/auth", json={"external_user_id": str(user)})

    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.json().keys() == {"external_user_id", "api_key"}
    assert response.json()["external_user_id"] == str(user)
    assert response.json()["api_key"].startswith("tgk_")


async def test_answers_409_when_the_user_has_a_key_and_does_not_ask_to_rotate() -> None:
    world = World()
    account, key = await world.a_user()

    response = await world.client().post("/auth", json={"external_user_id": str(account.external_user_id)}, headers=key)

    assert response.status_code == 409
    assert problem_of(response)["code"] == "key_already_issued"


async def test_rotates_the_key_with_the_current_one_and_then_refuses_the_old_one() -> None:
    world = World()
    account, key = await world.a_user()
    body = {"external_user_id": str(account.external_user_id), "rotate": True}

    rotated = await world.client().post("/auth", json=body, headers=key)

    assert rotated.status_code == 201
    assert (await world.client().get("/balance", headers=key)).status_code == 401
    new_key = {"X-API-Key": rotated.json()["api_key"]}
    assert (await world.client().get("/balance", headers=new_key)).status_code == 200


async def test_answers_401_when_a_key_is_to_be_rotated_without_proof() -> None:
    world = World()
    account, _ = await world.a_user()
    body = {"external_user_id": str(account.external_user_id), "rotate": True}

    response = await world.client().post("/auth", json=body)

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "APIKey"
    assert problem_of(response)["code"] == "proof_required"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"X-Auth-Secret": "wrong"}, 401), ({"X-Auth-Secret": AUTH_SECRET}, 201)],
    ids=["none", "wrong", "right"],
)
async def test_wants_the_service_secret_where_there_is_one(headers: dict[str, str], status: int) -> None:
    client = World(auth_secrets=[AUTH_SECRET]).client()

    response = await client.post("/auth", json={"external_user_id": str(uuid4())}, headers=headers)

    assert response.status_code == status


@pytest.mark.parametrize(
    "user",
    [
        "",
        "x",
        "{0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b}",
        "urn:uuid:0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b",
        5,
        None,
        "\ud800",
    ],
)
async def test_refuses_a_user_id_that_is_no_uuid(user: object) -> None:
    body = json.dumps({"external_user_id": user})

    response = await World().client().post("/auth", content=body, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    error = {
        "pointer": "/external_user_id",
        "detail": problem_of(response)["errors"][0]["detail"],
        "code": "not_a_uuid",
    }
    assert problem_of(response)["errors"] == [error]


async def test_shows_the_balance_of_the_key() -> None:
    world = World()
    account, key = await world.a_user(tokens=42)

    response = await world.client().get("/balance", headers=key)

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {"external_user_id": str(account.external_user_id), "balance_tokens": 42}


@pytest.mark.parametrize("key", [None, "", "tgk_", "tgk_" + "a" * 49, "ключ".encode(), "a" * 10_000])
async def test_turns_a_malformed_key_away_without_looking_it_up(key: str | bytes | None) -> None:
    world = World()

    response = await world.client().get("/balance", headers={} if key is None else {b"X-API-Key": key})  # type: ignore[arg-type]

    assert response.status_code == 401
    assert problem_of(response)["code"] == "invalid_api_key"
    assert world.accounts.lookups == 0


async def test_does_not_take_a_key_from_the_query() -> None:
    world = World()
    _, key = await world.a_user()

    response = await world.client().get("/balance", params=key)

    assert response.status_code == 401
