"""Keys over HTTP: what each may do, that a change of one holds everywhere at once, and what nobody may."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.keys import new_key
from app.domain.budgets import AccountLimits
from app.domain.keys import digest_of, stored_form
from app.domain.limits import TooManyWrites
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.keys import issuing
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import Connection, Customer, begin_minute_of_writes, open_account
from tests.integration.api_on_postgres import TEXT_TO_IMAGE, Api, open_api

ALL = ["generate", "read", "manage"]
DAY = {"tokens": 12, "per": "day"}
SOON = (datetime.now(UTC) + timedelta(days=1)).isoformat()

SOME_ID = "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61"


@pytest.fixture
async def other_process(database: str) -> AsyncIterator[Api]:
    """The same service on connections of its own."""
    async with open_engine(database) as engine, open_api(engine) as api:
        yield api


@pytest.fixture
async def owner(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 1000)


async def call(api: Api, key: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    return await api.http.request(method, path, json=body, headers={"X-API-Key": key, **headers})


async def create(api: Api, owner: Customer, **settings: Any) -> dict[str, Any]:
    body = {"name": "one of several", "scopes": ALL, **settings}
    answer = await call(api, owner.api_key, "POST", "/keys", body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def start(api: Api, key: str, **body: Any) -> httpx.Response:
    """Five tokens an image."""
    return await call(api, key, "POST", TEXT_TO_IMAGE, {"prompt": "a lighthouse", **body})


async def code_of(api: Api, key: str, method: str, path: str, body: Any = None) -> str:
    answer = await call(api, key, method, path, body)
    return str(answer.json()["code"]) if answer.status_code >= 400 else "ok"


async def test_a_new_key_is_shown_once_with_its_secret(api: Api, owner: Customer) -> None:
    body = {
        "name": "marketing",
        "scopes": ["read", "generate"],
        "expires_at": "2099-01-01T01:00:00+01:00",
        "budget": DAY,
    }

    answer = await call(api, owner.api_key, "POST", "/keys", body)

    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Location"] == f"/keys/{made['id']}"
    assert made.pop("api_key")[:8] == made["hint"]
    renews_at = f"{datetime.now(UTC).date() + timedelta(days=1)}T00:00:00Z"
    assert made == {
        "id": made["id"],
        "hint": made["hint"],
        "name": "marketing",
        "scopes": ["generate", "read"],
        "budget": {**DAY, "spent_tokens": 0, "renews_at": renews_at},
        "created_at": made["created_at"],
        "expires_at": "2099-01-01T00:00:00Z",
        "last_used_at": None,
        "is_current": False,
    }
    assert (await call(api, owner.api_key, "GET", f"/keys/{made['id']}")).json() == made
    first, second = (await call(api, owner.api_key, "GET", "/keys")).json()["items"]
    assert second == made
    assert (first["name"], first["scopes"], first["is_current"]) == ("First key", ALL, True)


async def test_a_key_sees_what_it_may_do_itself(api: Api, owner: Customer) -> None:
    made = await create(api, owner, scopes=["generate"], budget={"tokens": 7, "per": "ever"})
    await start(api, made["api_key"])

    seen = (await call(api, made["api_key"], "GET", "/keys/current")).json()

    assert seen["id"] == made["id"]
    assert seen["is_current"]
    assert seen["budget"] == {"tokens": 7, "per": "ever", "spent_tokens": 5, "renews_at": None}


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (["read"], ("scope_missing", "ok", "scope_missing")),
        (["generate"], ("ok", "scope_missing", "scope_missing")),
        (["manage"], ("scope_missing", "scope_missing", "ok")),
    ],
)
async def test_a_key_does_what_its_scopes_say(api: Api, owner: Customer, scopes: list[str], expected: Any) -> None:
    key = (await create(api, owner, scopes=scopes))["api_key"]

    assert expected == (
        await code_of(api, key, "POST", TEXT_TO_IMAGE, {"prompt": "a lighthouse"}),
        await code_of(api, key, "GET", "/balance"),
        await code_of(api, key, "GET", "/keys"),
    )


@pytest.mark.parametrize(
    "restriction",
    [{"scopes": ["manage", "read"]}, {"budget": DAY}, {"expires_at": SOON}],
    ids=["scopes", "budget", "expiry"],
)
async def test_a_restricted_key_makes_and_changes_none(api: Api, owner: Customer, restriction: dict[str, Any]) -> None:
    key, other = await create(api, owner, **restriction), await create(api, owner)
    new = {"name": "more than itself", "scopes": ["read"]}

    codes = [
        await code_of(api, key["api_key"], "POST", "/keys", new),
        await code_of(api, key["api_key"], "PATCH", f"/keys/{key['id']}", {"budget": None, "expires_at": None}),
        await code_of(api, key["api_key"], "PATCH", f"/keys/{other['id']}", {"scopes": ["read"]}),
        await code_of(api, key["api_key"], "DELETE", f"/keys/{other['id']}"),
        await code_of(api, key["api_key"], "POST", f"/keys/{other['id']}/rotate", {}),
    ]

    assert codes == ["key_restricted"] * 5
    assert len((await call(api, owner.api_key, "GET", "/keys")).json()["items"]) == 3


async def test_a_key_does_not_change_itself_but_may_end_itself(api: Api, owner: Customer) -> None:
    key = await create(api, owner)
    path = f"/keys/{key['id']}"

    codes = [
        await code_of(api, key["api_key"], "PATCH", path, {"name": "mine"}),
        await code_of(api, key["api_key"], "DELETE", path),
        await code_of(api, key["api_key"], "POST", f"{path}/rotate", {}),
    ]

    assert codes == ["own_key"] * 3
    assert (await call(api, key["api_key"], "DELETE", "/keys/current")).status_code == 204
    assert await code_of(api, key["api_key"], "GET", "/keys/current") == "invalid_api_key"


async def test_the_most_restricted_key_ends_itself(api: Api, owner: Customer) -> None:
    key = await create(api, owner, scopes=["read"], budget=DAY, expires_at=SOON)

    answer = await call(api, key["api_key"], "DELETE", "/keys/current")

    assert (answer.status_code, answer.content) == (204, b"")
    assert await code_of(api, key["api_key"], "GET", "/balance") == "invalid_api_key"


async def test_keys_of_others_and_ended_ones_are_unknown(engine: AsyncEngine, api: Api, owner: Customer) -> None:
    stranger, ended = await open_account(engine), await create(api, owner)
    foreign = await create(api, stranger)
    await call(api, owner.api_key, "DELETE", f"/keys/{ended['id']}")

    for key_id in (foreign["id"], ended["id"], str(uuid4()), "zanzibar"):
        codes = [
            await code_of(api, owner.api_key, "GET", f"/keys/{key_id}"),
            await code_of(api, owner.api_key, "PATCH", f"/keys/{key_id}", {"name": "mine"}),
            await code_of(api, owner.api_key, "DELETE", f"/keys/{key_id}"),
            await code_of(api, owner.api_key, "POST", f"/keys/{key_id}/rotate", {}),
        ]
        assert codes == ["key_not_found"] * 4
    assert await code_of(api, foreign["api_key"], "GET", "/balance") == "ok"


async def test_a_deleted_key_opens_nothing_in_another_process(api: Api, other_process: Api, owner: Customer) -> None:
    key = await create(api, owner)
    assert await code_of(other_process, key["api_key"], "GET", "/balance") == "ok"

    answer = await call(api, owner.api_key, "DELETE", f"/keys/{key['id']}")

    assert answer.status_code == 204
    assert await code_of(other_process, key["api_key"], "GET", "/balance") == "invalid_api_key"


async def test_an_expired_key_opens_nothing_in_another_process(
    api: Api, other_process: Api, owner: Customer, sql: Connection
) -> None:
    key = await create(api, owner, expires_at=SOON)
    assert await code_of(other_process, key["api_key"], "GET", "/balance") == "ok"

    await sql.execute("UPDATE keys SET expires_at = now() WHERE id = $1", UUID(key["id"]))

    assert await code_of(other_process, key["api_key"], "GET", "/balance") == "invalid_api_key"
    assert await code_of(api, owner.api_key, "PATCH", f"/keys/{key['id']}", {"expires_at": None}) == "key_not_found"


async def test_a_lost_scope_is_missed_in_another_process(api: Api, other_process: Api, owner: Customer) -> None:
    key = await create(api, owner)
    assert await code_of(other_process, key["api_key"], "GET", "/balance") == "ok"

    await call(api, owner.api_key, "PATCH", f"/keys/{key['id']}", {"scopes": ["generate"]})

    assert await code_of(other_process, key["api_key"], "GET", "/balance") == "scope_missing"
    assert (
        await code_of(other_process, key["api_key"], "POST", "/keys", {"name": "a", "scopes": ALL}) == "scope_missing"
    )


async def test_a_change_leaves_what_it_does_not_name(api: Api, owner: Customer) -> None:
    key = await create(api, owner, scopes=["read"], expires_at=SOON, budget=DAY)
    path = f"/keys/{key['id']}"

    renamed = (await call(api, owner.api_key, "PATCH", path, {"name": "another"})).json()
    freed = (await call(api, owner.api_key, "PATCH", path, {"budget": None, "expires_at": None})).json()

    del key["api_key"]
    assert renamed == {**key, "name": "another"}
    assert freed == {**renamed, "budget": None, "expires_at": None}
    assert (await call(api, owner.api_key, "PATCH", path, {})).json() == freed


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"name": "   ", "scopes": ALL}, "/name", "blank"),
        ({"name": "a\0b", "scopes": ALL}, "/name", "invalid_text"),
        ({"name": "a" * 101, "scopes": ALL}, "/name", "too_long"),
        ({"scopes": ALL}, "/name", "required"),
        ({"name": "a"}, "/scopes", "required"),
        ({"name": "a", "scopes": []}, "/scopes", "too_few"),
        ({"name": "a", "scopes": ["everything"]}, "/scopes/0", "not_allowed"),
        ({"name": "a", "scopes": ALL, "expires_at": "2099-01-01"}, "/expires_at", "not_a_moment"),
        ({"name": "a", "scopes": ALL, "expires_at": "2099-01-01T00:00:00"}, "/expires_at", "not_a_moment"),
        ({"name": "a", "scopes": ALL, "expires_at": "9999-12-31T23:59:59-12:00"}, "/expires_at", "not_a_moment"),
        ({"name": "a", "scopes": ALL, "expires_at": 4_000_000_000}, "/expires_at", "not_a_moment"),
        ({"name": "a", "scopes": ALL, "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "not_in_the_future"),
        ({"name": "a", "scopes": ALL, "budget": {"tokens": 0, "per": "day"}}, "/budget/tokens", "too_small"),
        ({"name": "a", "scopes": ALL, "budget": {"tokens": 2**53, "per": "day"}}, "/budget/tokens", "too_large"),
        ({"name": "a", "scopes": ALL, "budget": {"tokens": 1, "per": "week"}}, "/budget/per", "not_allowed"),
        ({"name": "a", "scopes": ALL, "is_first": True}, "/is_first", "unknown_field"),
    ],
)
async def test_what_is_wrong_with_a_new_key_is_said(
    api: Api, owner: Customer, body: dict[str, Any], pointer: str, code: str
) -> None:
    answer = await call(api, owner.api_key, "POST", "/keys", body)

    assert answer.status_code == 422
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]


@pytest.mark.parametrize("body", [{"name": None}, {"scopes": None}, {"scopes": []}, {"name": ""}, {"id": str(uuid4())}])
async def test_what_a_key_must_have_cannot_be_taken_from_it(api: Api, owner: Customer, body: dict[str, Any]) -> None:
    key = await create(api, owner)

    answer = await call(api, owner.api_key, "PATCH", f"/keys/{key['id']}", body)

    assert answer.status_code == 422
    assert (await call(api, owner.api_key, "GET", f"/keys/{key['id']}")).json()["name"] == key["name"]


@pytest.mark.parametrize("seconds", [-1, 604_801, "1", 1.5, True])
async def test_an_overlap_has_bounds(api: Api, owner: Customer, seconds: object) -> None:
    key = await create(api, owner)

    answer = await call(api, owner.api_key, "POST", f"/keys/{key['id']}/rotate", {"overlap_seconds": seconds})

    assert answer.status_code == 422
    assert await code_of(api, key["api_key"], "GET", "/balance") == "ok"


@pytest.mark.parametrize(
    "rotates", ["/keys/{key}/rotate", "/webhook-secret/rotate", "/webhook-endpoints/{endpoint}/rotate-secret"]
)
async def test_a_rotation_without_a_body_is_one_without_an_overlap(api: Api, owner: Customer, rotates: str) -> None:
    key = await create(api, owner)
    endpoint = await call(api, owner.api_key, "POST", "/webhook-endpoints", {"url": "https://example.com/hook"})
    path, headers = rotates.format(key=key["id"], endpoint=endpoint.json()["id"]), {"X-API-Key": owner.api_key}

    nothing = await api.http.post(path, headers=headers)
    no_type = await api.http.post(path, headers=headers, content=b'{"overlap_seconds": 60}')
    no_body = await api.http.post(path, headers={**headers, "Content-Type": "application/json"})

    assert nothing.status_code == 200, nothing.text
    assert [no_type.json()["code"], no_body.json()["code"]] == ["unsupported_media_type", "invalid_json"]
    assert (await code_of(api, key["api_key"], "GET", "/balance") == "ok") is ("{key}" not in rotates)


async def test_a_repeat_shows_the_same_key_without_its_secret(api: Api, owner: Customer) -> None:
    body, name = {"name": "for a program", "scopes": ["read"]}, {"Idempotency-Key": "a name"}
    first = (await call(api, owner.api_key, "POST", "/keys", body, **name)).json()

    repeat = await call(api, owner.api_key, "POST", "/keys", body, **name)

    assert repeat.status_code == 201
    assert repeat.headers["Idempotent-Replayed"] == "true"
    assert repeat.json() == {**first, "api_key": None}
    assert await code_of(api, first["api_key"], "GET", "/balance") == "ok"
    other = await call(api, owner.api_key, "POST", "/keys", {**body, "scopes": ALL}, **name)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    await call(api, owner.api_key, "DELETE", f"/keys/{first['id']}")
    ended = await call(api, owner.api_key, "POST", "/keys", body, **name)
    assert (ended.status_code, ended.json()["code"]) == (409, "key_ended")


async def test_both_secrets_of_a_rotation_are_one_key_with_one_budget(api: Api, owner: Customer) -> None:
    key = await create(api, owner, budget=DAY)
    await start(api, key["api_key"])

    rotated = await call(api, owner.api_key, "POST", f"/keys/{key['id']}/rotate", {"overlap_seconds": 60})

    new = rotated.json()
    assert (rotated.status_code, rotated.headers["Cache-Control"]) == (200, "no-store")
    assert (new["id"], new["budget"]["spent_tokens"]) == (key["id"], 5)
    assert new["api_key"] != key["api_key"]
    assert (await start(api, new["api_key"])).status_code == 202
    refused = await start(api, key["api_key"])
    assert (refused.status_code, refused.json()["code"], refused.json()["spent_tokens"]) == (402, "budget_exceeded", 10)


async def test_an_overlap_ends_and_a_rotation_ends_what_is_older(api: Api, owner: Customer, sql: Connection) -> None:
    key = await create(api, owner)
    path = f"/keys/{key['id']}/rotate"
    second = (await call(api, owner.api_key, "POST", path, {"overlap_seconds": 60})).json()["api_key"]
    third = (await call(api, owner.api_key, "POST", path, {"overlap_seconds": 60})).json()["api_key"]

    async def alive() -> list[bool]:
        secrets = (key["api_key"], second, third)
        return [await code_of(api, secret, "GET", "/balance") == "ok" for secret in secrets]

    assert await alive() == [False, True, True]
    await sql.execute("UPDATE api_keys SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert await alive() == [False, False, True]
    await call(api, owner.api_key, "POST", path, {"overlap_seconds": 0})
    assert await alive() == [False, False, False]


async def test_rotation_by_the_key_itself_keeps_all_but_the_secret(api: Api, owner: Customer) -> None:
    key = await create(api, owner, scopes=["generate", "manage"], expires_at=SOON, budget=DAY)
    await start(api, key["api_key"])
    before = (await call(api, owner.api_key, "GET", f"/keys/{key['id']}")).json()
    body = {"external_user_id": str(owner.external_user_id), "rotate": True}

    answer = await call(api, key["api_key"], "POST", "/auth", body)

    secret = answer.json()["api_key"]
    assert answer.status_code == 201
    assert (await call(api, owner.api_key, "GET", f"/keys/{key['id']}")).json() == {**before, "hint": secret[:8]}
    assert await code_of(api, key["api_key"], "GET", "/keys") == "invalid_api_key"
    assert await code_of(api, secret, "GET", "/keys") == "ok"
    refused = await start(api, secret, num_images=2)
    assert (refused.json()["code"], refused.json()["spent_tokens"]) == ("budget_exceeded", 5)
    assert await code_of(api, owner.api_key, "GET", "/balance") == "ok"


async def test_a_secret_that_only_overlaps_replaces_nothing(api: Api, owner: Customer) -> None:
    """It is exchanged because somebody else may have it: who has it would keep the key, and the owner lose it."""
    key = await create(api, owner)
    new = await call(api, owner.api_key, "POST", f"/keys/{key['id']}/rotate", {"overlap_seconds": 60})
    body = {"external_user_id": str(owner.external_user_id), "rotate": True}

    answer = await call(api, key["api_key"], "POST", "/auth", body)

    assert (answer.status_code, answer.json()["code"]) == (401, "proof_required")
    for secret in (key["api_key"], new.json()["api_key"]):
        assert await code_of(api, secret, "GET", "/balance") == "ok"
    assert (await call(api, new.json()["api_key"], "POST", "/auth", body)).status_code == 201
    assert await code_of(api, key["api_key"], "GET", "/balance") == "invalid_api_key"


async def test_changes_of_keys_are_writes_and_their_ends_are_never_refused(
    engine: AsyncEngine, api: Api, owner: Customer, sql: Connection
) -> None:
    keys = [await create(api, owner) for _ in range(2)]
    await begin_minute_of_writes(sql, writes=2)
    async with open_api(engine, limits=AccountLimits(writes_per_minute=3)) as strict:
        path = f"/keys/{keys[0]['id']}"
        codes = [
            await code_of(strict, owner.api_key, "PATCH", path, {"name": "counted"}),
            await code_of(strict, owner.api_key, "PATCH", path, {"name": "counted"}),
            await code_of(strict, owner.api_key, "PATCH", path, {"name": "refused"}),
            await code_of(strict, owner.api_key, "POST", "/keys", {"name": "refused", "scopes": ALL}),
            await code_of(strict, owner.api_key, "POST", f"{path}/rotate", {}),
        ]
        assert codes == ["ok", "ok", *["too_many_writes"] * 3]
        assert await sql.fetchval("SELECT writes FROM accounts") == 3
        assert (await call(strict, owner.api_key, "DELETE", path)).status_code == 204
        assert (await call(strict, keys[1]["api_key"], "DELETE", "/keys/current")).status_code == 204
    assert await sql.fetchval("SELECT writes FROM accounts") == 5


async def rotated(api: Api, owner: Customer, key: str) -> tuple[str, str]:
    """By `POST /auth`: the key that is good from then on, and what was said."""
    body = {"external_user_id": str(owner.external_user_id), "rotate": True}
    answer = (await call(api, key, "POST", "/auth", body)).json()
    return answer.get("api_key", key), answer.get("code", "ok")


async def test_whoever_replaces_a_key_by_itself_makes_a_write(
    engine: AsyncEngine, owner: Customer, sql: Connection
) -> None:
    await begin_minute_of_writes(sql, writes=2)
    async with open_api(engine, limits=AccountLimits(writes_per_minute=4)) as strict:
        key, said = owner.api_key, []
        for _ in range(4):
            key, code = await rotated(strict, owner, key)
            said.append(code)
        assert said == ["ok", "ok", "too_many_writes", "too_many_writes"]
        assert await sql.fetchval("SELECT writes FROM accounts") == 4
        assert await code_of(strict, key, "GET", "/balance") == "ok"
        assert await code_of(strict, key, "POST", "/keys", {"name": "refused", "scopes": ALL}) == "too_many_writes"
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == 3
    # What the operator vouches for is nobody's write.
    assert await PostgresKeys(engine, AccountLimits(writes_per_minute=4)).replace_key(
        owner.external_user_id, stored_form(new_key()), None
    )
    assert await sql.fetchval("SELECT writes FROM accounts") == 4


async def test_whoever_replaces_a_key_by_itself_makes_one_of_the_secrets_of_the_day(
    api: Api, owner: Customer, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuing, "SECRETS_A_DAY_MAX", 3)
    key, said = owner.api_key, []
    for _ in range(4):
        key, code = await rotated(api, owner, key)
        said.append(code)

    assert said == ["ok", "ok", "too_many_new_keys", "too_many_new_keys"]
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == 3
    assert await code_of(api, key, "GET", "/balance") == "ok"
    await sql.execute("UPDATE api_keys SET created_at = created_at - interval '1 day'")
    assert (await rotated(api, owner, key))[1] == "ok"


async def test_many_that_replace_a_key_at_once_make_no_write_too_many(
    crowd: AsyncEngine, owner: Customer, sql: Connection
) -> None:
    keys = PostgresKeys(crowd, AccountLimits(writes_per_minute=3))
    await begin_minute_of_writes(sql, writes=2)
    current = digest_of(owner.api_key)

    async def replace() -> str:
        try:
            is_replaced = await keys.replace_key(owner.external_user_id, stored_form(new_key()), current)
        except TooManyWrites as error:
            return error.code
        return "replaced" if is_replaced else "no proof"

    outcomes = Counter(await asyncio.gather(*(replace() for _ in range(20))))

    assert outcomes == {"replaced": 1, "no proof": 19}
    assert await sql.fetchval("SELECT writes FROM accounts") == 3


async def test_a_cancel_is_a_write(engine: AsyncEngine, api: Api, owner: Customer, sql: Connection) -> None:
    jobs = [UUID((await start(api, owner.api_key)).json()["job_id"]) for _ in range(2)]
    await begin_minute_of_writes(sql, writes=2)
    async with open_api(engine, limits=AccountLimits(writes_per_minute=3)) as strict:
        answers = [await strict.cancel(owner, job_id, f"cancel {job_id}") for job_id in jobs]
        repeat = await strict.cancel(owner, jobs[0], f"cancel {jobs[0]}")

    assert [answer.status_code for answer in (*answers, repeat)] == [200, 429, 200]
    assert answers[1].json()["code"] == "too_many_writes"
    assert int(answers[1].headers["Retry-After"]) <= 60
    assert await sql.fetchval("SELECT writes FROM accounts") == 3
    assert await PostgresLedger(engine).violations() == []


FORMER_LOOK_UP = "SELECT count(*) FROM api_keys WHERE digest = sha256($1::bytea) AND revoked_at IS NULL"


@pytest.mark.parametrize(
    "restriction",
    [{"scopes": ["manage", "read"]}, {"budget": DAY}, {"expires_at": SOON}],
    ids=["scopes", "budget", "expiry"],
)
async def test_the_release_before_finds_no_key_that_it_would_let_do_everything(
    api: Api, owner: Customer, sql: Connection, restriction: dict[str, Any]
) -> None:
    async def finds(secret: str) -> bool:
        return bool(await sql.fetchval(FORMER_LOOK_UP, secret.encode()))

    made, full = await create(api, owner, **restriction), await create(api, owner)
    assert [await finds(made["api_key"]), await finds(full["api_key"])] == [False, True]
    path = f"/keys/{full['id']}"

    free = {"scopes": ALL, "budget": None, "expires_at": None}
    for change in (restriction, free, restriction, {"name": "another"}):
        assert await code_of(api, owner.api_key, "PATCH", path, change) == "ok"
        assert not await finds(full["api_key"])
        assert await code_of(api, full["api_key"], "GET", "/keys/current") == "ok"
    rotated = (await call(api, owner.api_key, "POST", f"{path}/rotate", {"overlap_seconds": 60})).json()["api_key"]
    assert [await finds(rotated), await finds(full["api_key"])] == [False, False]
    assert [await code_of(api, key, "GET", "/keys/current") for key in (rotated, full["api_key"])] == ["ok", "ok"]


async def test_the_release_before_finds_no_key_that_has_ended(api: Api, owner: Customer, sql: Connection) -> None:
    deleted, own, rotated = [await create(api, owner) for _ in range(3)]
    secrets = [key["api_key"] for key in (deleted, own, rotated)]
    assert [await sql.fetchval(FORMER_LOOK_UP, secret.encode()) for secret in secrets] == [1, 1, 1]

    await call(api, owner.api_key, "DELETE", f"/keys/{deleted['id']}")
    await call(api, own["api_key"], "DELETE", "/keys/current")
    await call(api, owner.api_key, "POST", f"/keys/{rotated['id']}/rotate", {})

    assert [await sql.fetchval(FORMER_LOOK_UP, secret.encode()) for secret in secrets] == [0, 0, 0]


async def test_a_secret_that_ends_is_none_that_the_release_before_would_let_in_for_ever(
    api: Api, owner: Customer, sql: Connection
) -> None:
    key = await create(api, owner)

    rotated = await call(api, owner.api_key, "POST", f"/keys/{key['id']}/rotate", {"overlap_seconds": 60})

    secrets = (key["api_key"], rotated.json()["api_key"])
    assert [await sql.fetchval(FORMER_LOOK_UP, secret.encode()) for secret in secrets] == [0, 1]
    assert [await code_of(api, secret, "GET", "/balance") for secret in secrets] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/keys", "GET, HEAD, POST"),
        ("/keys/current", "DELETE, GET, HEAD"),
        (f"/keys/{SOME_ID}", "DELETE, GET, HEAD, PATCH"),
        (f"/keys/{SOME_ID}/rotate", "POST"),
    ],
)
async def test_a_path_says_all_that_it_answers_to(api: Api, owner: Customer, path: str, allowed: str) -> None:
    answer = await call(api, owner.api_key, "PUT", path)

    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


async def test_no_key_is_called_current(api: Api, owner: Customer) -> None:
    assert await code_of(api, owner.api_key, "PATCH", "/keys/current", {"name": "mine"}) == "method_not_allowed"
    assert await code_of(api, owner.api_key, "POST", "/keys/current/rotate", {}) == "not_found"
    assert await code_of(api, owner.api_key, "GET", "/keys/currently") == "key_not_found"


async def test_a_secret_is_nowhere_in_the_database(api: Api, owner: Customer, sql: Connection) -> None:
    key = await create(api, owner, scopes=["read"])

    stored = await sql.fetchval(
        "SELECT string_agg(row::text, '') FROM (SELECT * FROM api_keys JOIN keys ON true) AS row"
    )

    assert key["hint"] in stored
    assert key["api_key"][:9] not in stored
    assert digest_of(key["api_key"]).hex() not in stored
