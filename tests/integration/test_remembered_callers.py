"""A caller who was looked up some seconds ago is let in without another look, and by nothing that has changed since."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import Caller
from app.domain.errors import CommitUnknown
from app.domain.orders import Accepted
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.jobs import acceptance
from app.infrastructure.postgres.jobs.order_batches import FruitlessOrders, OrderBatches
from app.infrastructure.postgres.jobs.purses import Purses, locked_purses
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder
from app.infrastructure.postgres.keys import memory
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.presentation.http.rates import FAILURES_PER_MINUTE
from tests.builders import Connection, Customer, accept_job, open_account
from tests.integration.api_on_postgres import TEXT_TO_IMAGE, Api, open_api

PROMPT = {"prompt": "a lighthouse"}
# So many ask at once.
STARTING = 4


@pytest.fixture
async def owner(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 1000)


@pytest.fixture
async def other_process(database: str) -> AsyncIterator[Api]:
    """The service that remembers, on connections of its own. What changes, changes elsewhere."""
    async with open_engine(database) as engine, open_api(engine) as api:
        yield api


async def code_of(api: Api, key: str, method: str, path: str, body: Any = None, **headers: str) -> str:
    answer = await api.http.request(method, path, json=body, headers={"X-API-Key": key, **headers})
    return str(answer.json()["code"]) if answer.status_code >= 400 else "ok"


async def create(api: Api, owner: Customer, **settings: Any) -> tuple[str, str]:
    """Its id and its secret."""
    body = {"name": "remembered", "scopes": ["generate", "read", "manage"], **settings}
    answer = await api.http.post("/keys", json=body, headers={"X-API-Key": owner.api_key})
    return answer.json()["id"], answer.json()["api_key"]


async def change(api: Api, owner: Customer, method: str, path: str, body: Any = None) -> Any:
    answer = await api.http.request(method, path, json=body, headers={"X-API-Key": owner.api_key})
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every look at the database for a secret."""
    seen: list[bytes] = []
    find = PostgresKeys.find_by_key

    async def noting(self: PostgresKeys, digest: bytes) -> Caller | None:
        seen.append(digest)
        return await find(self, digest)

    monkeypatch.setattr(PostgresKeys, "find_by_key", noting)
    return seen


async def test_starts_and_looks_are_let_in_without_another_look_up(
    other_process: Api, engine: AsyncEngine, owner: Customer, lookups: list[bytes]
) -> None:
    job_id = await accept_job(engine, owner)

    codes = [await code_of(other_process, owner.api_key, "POST", TEXT_TO_IMAGE, PROMPT) for _ in range(3)]
    codes += [await code_of(other_process, owner.api_key, "GET", f"/generations/{job_id}") for _ in range(3)]

    assert codes == ["ok"] * 6
    assert len(lookups) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("GET", "/balance", None, {}),
        ("GET", "/generations", None, {}),
        ("POST", "/quotes", {"type": "TEXT_TO_IMAGE", **PROMPT}, {}),
        ("POST", TEXT_TO_IMAGE, PROMPT, {"Idempotency-Key": "one"}),
        ("POST", TEXT_TO_IMAGE, {"prompt": "a" * 70_000}, {}),
    ],
    ids=["balance", "list", "quote", "named", "large"],
)
async def test_whatever_does_not_look_at_the_version_looks_the_key_up(
    other_process: Api,
    owner: Customer,
    lookups: list[bytes],
    *,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
) -> None:
    await code_of(other_process, owner.api_key, "POST", TEXT_TO_IMAGE, PROMPT)
    del lookups[:]

    for _ in range(2):
        await code_of(other_process, owner.api_key, method, path, body, **headers)

    assert len(lookups) == 2


async def delete(api: Api, owner: Customer, sql: Connection, key_id: str) -> None:
    await change(api, owner, "DELETE", f"/keys/{key_id}")


async def rotate(api: Api, owner: Customer, sql: Connection, key_id: str) -> None:
    await change(api, owner, "POST", f"/keys/{key_id}/rotate", {"overlap_seconds": 0})


async def end_overlap(api: Api, owner: Customer, sql: Connection, key_id: str) -> None:
    await change(api, owner, "POST", f"/keys/{key_id}/rotate", {"overlap_seconds": 60})
    await sql.execute(
        "UPDATE api_keys SET expires_at = now() WHERE key_id = $1 AND expires_at IS NOT NULL", UUID(key_id)
    )


async def revoke_all(api: Api, owner: Customer, sql: Connection, key_id: str) -> None:
    await sql.execute("UPDATE api_keys SET revoked_at = now() WHERE account_id = $1", owner.account_id)


async def expire(api: Api, owner: Customer, sql: Connection, key_id: str) -> None:
    await sql.execute("UPDATE keys SET expires_at = now() WHERE id = $1", UUID(key_id))


async def remove(api: Api, owner: Customer, sql: Connection, key_id: str) -> None:
    await sql.execute("DELETE FROM api_keys WHERE key_id = $1", UUID(key_id))


@pytest.mark.parametrize("end", [delete, rotate, end_overlap, revoke_all, expire, remove], ids=lambda end: end.__name__)
@pytest.mark.parametrize("asks", ["start", "look", "unknown job", "wrong body", "wrong id"])
async def test_what_has_ended_opens_nothing(
    api: Api,
    other_process: Api,
    sql: Connection,
    owner: Customer,
    *,
    end: Callable[[Api, Customer, Connection, str], Awaitable[None]],
    asks: str,
) -> None:
    key_id, secret = await create(api, owner)
    answer = await other_process.http.post(TEXT_TO_IMAGE, json=PROMPT, headers={"X-API-Key": secret})
    job_id = answer.json()["job_id"]
    requests = {
        "start": ("POST", TEXT_TO_IMAGE, PROMPT),
        "look": ("GET", f"/generations/{job_id}", None),
        "unknown job": ("GET", f"/generations/{uuid4()}", None),
        "wrong body": ("POST", TEXT_TO_IMAGE, {"prompt": 1}),
        "wrong id": ("GET", "/generations/one", None),
    }

    await end(api, owner, sql, key_id)

    assert await code_of(other_process, secret, *requests[asks]) == "invalid_api_key"
    assert await sql.fetchval("SELECT count(*) FROM jobs") == 1


async def test_an_overlap_is_open_until_its_end(api: Api, other_process: Api, owner: Customer) -> None:
    key_id, secret = await create(api, owner)
    assert await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT) == "ok"
    await change(api, owner, "POST", f"/keys/{key_id}/rotate", {"overlap_seconds": 60})

    assert [await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT) for _ in range(2)] == ["ok"] * 2


async def test_scopes_and_budgets_change_at_once(api: Api, other_process: Api, owner: Customer) -> None:
    key_id, secret = await create(api, owner)
    answer = await other_process.http.post(TEXT_TO_IMAGE, json=PROMPT, headers={"X-API-Key": secret})
    look = ("GET", f"/generations/{answer.json()['job_id']}")
    start = ("POST", TEXT_TO_IMAGE, PROMPT)

    async def after(**settings: Any) -> list[str]:
        await change(api, owner, "PATCH", f"/keys/{key_id}", settings)
        return [await code_of(other_process, secret, *request) for request in (start, look)]

    assert await after(scopes=["read"]) == ["scope_missing", "ok"]
    assert await after(scopes=["generate", "read"]) == ["ok", "ok"]
    assert await after(scopes=["generate"]) == ["ok", "scope_missing"]
    assert await after(scopes=["generate", "read"], budget={"tokens": 4, "per": "day"}) == ["budget_exceeded", "ok"]
    assert await after(budget=None) == ["ok", "ok"]


async def test_how_often_an_account_may_read_changes_at_once(
    other_process: Api, engine: AsyncEngine, owner: Customer, sql: Connection
) -> None:
    job_id = await accept_job(engine, owner)

    async def looks() -> list[str]:
        return [await code_of(other_process, owner.api_key, "GET", f"/generations/{job_id}") for _ in range(4)]

    assert await looks() == ["ok"] * 4
    await sql.execute("UPDATE accounts SET reads_per_second = 1 WHERE id = $1", owner.account_id)
    assert "too_many_reads" in (await looks())[1:]
    await sql.execute("UPDATE accounts SET reads_per_second = 0 WHERE id = $1", owner.account_id)
    assert await looks() == ["ok"] * 4


async def test_a_job_of_somebody_else_is_unknown(other_process: Api, engine: AsyncEngine, owner: Customer) -> None:
    foreign = await accept_job(engine, await open_account(engine, 10))
    own = await accept_job(engine, owner)
    assert await code_of(other_process, owner.api_key, "GET", f"/generations/{own}") == "ok"

    assert await code_of(other_process, owner.api_key, "GET", f"/generations/{foreign}") == "job_not_found"


async def test_nothing_starts_once_the_end_of_a_key_is_answered(
    api: Api, other_process: Api, owner: Customer, sql: Connection
) -> None:
    key_id, secret = await create(api, owner)
    is_ended = asyncio.Event()
    late: list[str] = []

    async def keep_starting() -> None:
        # As many failures as are not slowed down.
        after_the_end = 0
        while after_the_end < FAILURES_PER_MINUTE // STARTING:
            was_ended = is_ended.is_set()
            code = await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT)
            if was_ended:
                after_the_end += 1
                late.append(code)

    async def end() -> None:
        await asyncio.sleep(0.2)
        await delete(api, owner, sql, key_id)
        is_ended.set()

    await asyncio.gather(end(), *(keep_starting() for _ in range(STARTING)))

    assert set(late) == {"invalid_api_key"}


async def test_what_ends_by_itself_is_not_remembered(api: Api, owner: Customer, lookups: list[bytes]) -> None:
    _, secret = await create(api, owner, expires_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    del lookups[:]

    assert [await code_of(api, secret, "POST", TEXT_TO_IMAGE, PROMPT) for _ in range(2)] == ["ok"] * 2
    assert len(lookups) == 2


async def test_memory_ends(
    other_process: Api, owner: Customer, lookups: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "REMEMBERED_SECONDS", 0.0)

    assert [await code_of(other_process, owner.api_key, "POST", TEXT_TO_IMAGE, PROMPT) for _ in range(2)] == ["ok"] * 2
    assert len(lookups) == 2


async def test_a_secret_that_has_ended_burdens_its_account_once(
    api: Api, other_process: Api, owner: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever still has it must not get the orders of the account set apart."""
    key_id, secret = await create(api, owner)
    assert await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT) == "ok"
    await change(api, owner, "DELETE", f"/keys/{key_id}")
    burdened: list[UUID] = []
    monkeypatch.setattr(FruitlessOrders, "count", lambda self, account_id: burdened.append(account_id))

    codes = [await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT) for _ in range(6)]

    assert set(codes) == {"invalid_api_key"}
    assert len(burdened) == 1


async def test_a_change_of_keys_costs_one_order_a_second_look(
    api: Api, other_process: Api, owner: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that are in its batch wait for that look."""
    key_id, _ = await create(api, owner)
    assert await code_of(other_process, owner.api_key, "POST", TEXT_TO_IMAGE, PROMPT) == "ok"
    await change(api, owner, "PATCH", f"/keys/{key_id}", {"scopes": ["read"]})
    looks: list[object] = []

    async def noting(*arguments: Any, **named: Any) -> Purses:
        looks.append(arguments)
        return await locked_purses(*arguments, **named)

    monkeypatch.setattr(acceptance, "locked_purses", noting)
    codes = [await code_of(other_process, owner.api_key, "POST", TEXT_TO_IMAGE, PROMPT) for _ in range(4)]

    assert codes == ["ok"] * 4
    assert len(looks) == 1


async def rotate_slowly(api: Api, owner: Customer, key_id: str) -> None:
    await change(api, owner, "POST", f"/keys/{key_id}/rotate", {"overlap_seconds": 60})


async def set_an_end(api: Api, owner: Customer, key_id: str) -> None:
    expires_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    await change(api, owner, "PATCH", f"/keys/{key_id}", {"expires_at": expires_at})


@pytest.mark.parametrize("end", [rotate_slowly, set_an_end], ids=lambda end: end.__name__)
async def test_what_ends_by_itself_from_now_on_is_forgotten(
    api: Api,
    other_process: Api,
    owner: Customer,
    sql: Connection,
    end: Callable[[Api, Customer, str], Awaitable[None]],
) -> None:
    key_id, secret = await create(api, owner)
    answer = await other_process.http.post(TEXT_TO_IMAGE, json=PROMPT, headers={"X-API-Key": secret})
    look = ("GET", f"/generations/{answer.json()['job_id']}")
    await end(api, owner, key_id)
    assert await code_of(other_process, secret, *look) == "ok"

    await sql.execute("UPDATE accounts SET reads_per_second = 1 WHERE id = $1", owner.account_id)

    assert "too_many_reads" in [await code_of(other_process, secret, *look) for _ in range(4)]


async def test_who_lost_a_scope_is_told_so_whatever_is_wrong_besides(
    api: Api, other_process: Api, owner: Customer
) -> None:
    key_id, secret = await create(api, owner)
    assert await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT) == "ok"
    await change(api, owner, "PATCH", f"/keys/{key_id}", {"scopes": ["read"]})

    assert await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, {"prompt": 1}) == "scope_missing"


async def test_an_order_that_may_be_written_is_never_said_to_be_refused(
    api: Api, other_process: Api, owner: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the key ends before its caller hears of the order."""
    key_id, secret = await create(api, owner)
    assert await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT) == "ok"
    accept = OrderBatches.__call__

    async def lose_the_answer(self: OrderBatches, order: StorableOrder) -> Accepted:
        await accept(self, order)
        await change(api, owner, "DELETE", f"/keys/{key_id}")
        raise CommitUnknown

    monkeypatch.setattr(OrderBatches, "__call__", lose_the_answer)

    assert await code_of(other_process, secret, "POST", TEXT_TO_IMAGE, PROMPT) == "outcome_unknown"
