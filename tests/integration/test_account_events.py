"""What an account is told of its balance and its budgets: once for each crossing, once for each period."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.budgets import Budget, Period
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import Connection, Customer, open_account, open_key, payment
from tests.integration.api_on_postgres import TEXT_TO_IMAGE, Api, open_api

BODY = {"prompt": "a lighthouse"}


async def told(engine: AsyncEngine, api: Api, customer: Customer) -> list[dict[str, Any]]:
    """All but what the jobs and the payments of the test make."""
    while await EventSequencer(engine).move():
        pass
    items = (await api.get(customer, "/events", limit=100)).json()["items"]
    return [item for item in items if not item["type"].startswith(("generation.", "balance.credited"))]


async def change(api: Api, customer: Customer, body: object) -> httpx.Response:
    return await api.http.patch("/account", json=body, headers={"X-API-Key": customer.api_key})


async def test_a_low_balance_is_told_and_told_again_after_it_recovered(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine, 20)
    changed = await change(api, customer, {"balance_low_tokens": 12})
    assert changed.json() == {
        "external_user_id": str(customer.external_user_id),
        "balance_tokens": 20,
        "balance_low_tokens": 12,
    }
    assert (await api.get(customer, "/account")).json() == changed.json()

    for _ in range(3):
        assert (await api.start(customer, None)).status_code == 202
    await PostgresPayments(engine).credit(payment(customer.external_user_id, 50))

    low, recovered = await told(engine, api, customer)
    assert (low["type"], low["data"]) == ("balance.low", {"balance_tokens": 10, "balance_low_tokens": 12})
    assert (recovered["type"], recovered["data"]["balance_tokens"]) == ("balance.recovered", 55)


async def test_a_bound_that_the_balance_is_below_is_told_at_once_and_once(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine, 20)

    for tokens in (100, 200, None, 10, None, 50):
        assert (await change(api, customer, {"balance_low_tokens": tokens})).status_code == 200
    assert (await change(api, customer, {})).json()["balance_low_tokens"] == 50

    assert [event["data"]["balance_low_tokens"] for event in await told(engine, api, customer)] == [100, 50]


@pytest.mark.parametrize("tokens", [0, -1, 2**53, 1.5, "10", True])
async def test_a_bound_that_is_none_is_refused(engine: AsyncEngine, api: Api, tokens: object) -> None:
    customer = await open_account(engine, 20)

    refused = await change(api, customer, {"balance_low_tokens": tokens})

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/balance_low_tokens")


async def test_a_refusal_for_a_budget_is_told_once_for_each_key_and_period(
    engine: AsyncEngine, api: Api, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    key, other = [
        await open_key(engine, customer, budget=Budget(tokens, period))
        for tokens, period in ((7, Period.DAY), (3, Period.EVER))
    ]

    async def order(secret: str) -> int:
        return (await api.http.post(TEXT_TO_IMAGE, json=BODY, headers={"X-API-Key": secret})).status_code

    assert await order(key) == 202
    statuses = await asyncio.gather(*(order(secret) for secret in (key, other) * 10))

    assert set(statuses) == {402}
    first, second = sorted(await told(engine, api, customer), key=lambda event: str(event["data"]["per"]))
    assert {first["type"], second["type"]} == {"key.budget_exceeded"}
    figures = [{**event["data"], "key_id": None, "renews_at": None} for event in (first, second)]
    assert figures == [
        {"key_id": None, "required_tokens": 5, "budget_tokens": 7, "per": "day", "spent_tokens": 5, "renews_at": None},
        {"key_id": None, "required_tokens": 5, "budget_tokens": 3, "per": "ever", "spent_tokens": 0, "renews_at": None},
    ]
    assert first["data"]["renews_at"] is not None
    assert await sql.fetchval("SELECT count(*) FROM budget_notices") == 2


async def test_another_process_does_not_tell_it_again_and_the_next_period_does(
    engine: AsyncEngine, api: Api, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    key = await open_key(engine, customer, budget=Budget(3, Period.DAY))
    async with open_api(engine) as another:
        for process in (api, another):
            refused = await process.http.post(TEXT_TO_IMAGE, json=BODY, headers={"X-API-Key": key})
            assert refused.json()["code"] == "budget_exceeded"
    assert len(await told(engine, api, customer)) == 1

    await sql.execute("UPDATE budget_notices SET ends_at = ends_at - interval '1 day'")
    async with open_api(engine) as tomorrow:
        await tomorrow.http.post(TEXT_TO_IMAGE, json=BODY, headers={"X-API-Key": key})
    assert len(await told(engine, api, customer)) == 2
    assert await sql.fetchval("SELECT count(*) FROM budget_notices") == 1
