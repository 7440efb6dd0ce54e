"""The operator's own entries: each once for its id, of either sign, also to below zero."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import AccountNotFound, AdjustmentConflict, BalanceLimitExceeded
from app.domain.ledger import BALANCE_TOKENS_MAX, Adjustment
from app.infrastructure.postgres.adjustments import PostgresAdjustments
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import Connection, Customer, balance_of, contents, open_account
from tests.integration.api_on_postgres import Api


def adjustment(customer: Customer, amount: int, adjustment_id: str = "ticket-1") -> Adjustment:
    return Adjustment(
        id=adjustment_id,
        external_user_id=customer.external_user_id,
        amount=amount,
        reason="an apology",
        actor="maria@example.com",
    )


async def test_gives_and_takes_also_to_below_zero(engine: AsyncEngine) -> None:
    customer, adjustments = await open_account(engine, 10), PostgresAdjustments(engine)

    assert await adjustments.adjust(adjustment(customer, 5)) == 15
    assert await adjustments.adjust(adjustment(customer, -40, "ticket-2")) == -25

    entries = await PostgresLedger(engine).entries(customer.external_user_id, limit=10)
    assert [(str(entry.kind), entry.amount, entry.balance_after) for entry in entries] == [
        ("ADJUSTMENT", -40, -25),
        ("ADJUSTMENT", 5, 15),
        ("CREDIT", 10, 10),
    ]
    assert (entries[0].adjustment_id, entries[0].reason, entries[0].actor) == (
        "ticket-2",
        "an apology",
        "maria@example.com",
    )
    assert await PostgresLedger(engine).violations() == []


async def test_the_holder_of_the_account_sees_the_reason_and_not_who_it_was(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine)
    await PostgresAdjustments(engine).adjust(adjustment(customer, 5))

    (item,) = (await api.ledger(customer))["items"]

    assert (item["kind"], item["amount"], item["reason"], item["payment_event_id"]) == (
        "ADJUSTMENT",
        5,
        "an apology",
        None,
    )
    assert "maria" not in str(item)


async def test_a_repeated_adjustment_is_booked_once(crowd: AsyncEngine) -> None:
    customer = await open_account(crowd, 10)

    balances = await asyncio.gather(*(PostgresAdjustments(crowd).adjust(adjustment(customer, -30)) for _ in range(25)))

    assert set(balances) == {-20}
    assert await balance_of(crowd, customer) == -20
    assert await PostgresLedger(crowd).violations() == []


@pytest.mark.parametrize("change", [{"amount": 6}, {"reason": "other"}, {"actor": "other"}, {"external_user_id": None}])
async def test_an_id_with_another_content_is_refused(
    engine: AsyncEngine, sql: Connection, change: dict[str, Any]
) -> None:
    customer, other = await open_account(engine), await open_account(engine)
    adjustments = PostgresAdjustments(engine)
    await adjustments.adjust(adjustment(customer, 5))
    before = await contents(sql)
    if "external_user_id" in change:
        change = {"external_user_id": other.external_user_id}

    with pytest.raises(AdjustmentConflict):
        await adjustments.adjust(replace(adjustment(customer, 5), **change))

    assert await contents(sql) == before


async def test_an_unknown_user_gets_no_account(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine)
    before = await contents(sql)

    with pytest.raises(AccountNotFound):
        await PostgresAdjustments(engine).adjust(replace(adjustment(customer, 5), external_user_id=uuid4()))

    assert await contents(sql) == before


@pytest.mark.parametrize("sign", [1, -1])
async def test_a_balance_stays_in_its_range(engine: AsyncEngine, sql: Connection, sign: int) -> None:
    customer, adjustments = await open_account(engine), PostgresAdjustments(engine)
    assert await adjustments.adjust(adjustment(customer, sign * BALANCE_TOKENS_MAX)) == sign * BALANCE_TOKENS_MAX
    before = await contents(sql)

    with pytest.raises(BalanceLimitExceeded):
        await adjustments.adjust(adjustment(customer, sign, "ticket-2"))

    assert await contents(sql) == before
