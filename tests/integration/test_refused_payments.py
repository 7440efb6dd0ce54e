"""What is refused for good waits for somebody, once for each refusal, and in a list that ends."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.ledger import BALANCE_TOKENS_MAX
from app.infrastructure.postgres import refused_payments
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.refused_payments import PostgresRefusedPayments
from tests.builders import Connection, balance_of, open_account, payment
from tests.integration.api_on_postgres import Api
from tests.integration.test_payment_names import deliver

CONFLICT = "payment_event_conflict"


async def test_a_conflict_is_on_the_list_with_all_that_somebody_needs(api: Api, engine: AsyncEngine) -> None:
    first, second = await open_account(engine), await open_account(engine)
    await deliver(api, first.external_user_id, "1001", source="stripe")

    statuses = [await deliver(api, second.external_user_id, "1001", source="stripe", amount=9) for _ in range(3)]

    (refused,) = await PostgresRefusedPayments(engine).newest(limit=10)
    assert statuses == [409] * 3
    assert (refused.source, refused.event_id, refused.external_user_id) == (
        "webhook:stripe",
        "1001",
        second.external_user_id,
    )
    assert (refused.amount, refused.reason, refused.deliveries, refused.resolved_at) == (9, CONFLICT, 3, None)
    assert refused.first_seen_at < refused.last_seen_at
    assert await balance_of(engine, second) == 0


async def test_deliveries_that_meet_are_one_row(crowd: AsyncEngine, sql: Connection) -> None:
    payments, event = PostgresPayments(crowd), payment(uuid4(), 7)

    counts = await asyncio.gather(*(payments.record_refusal(event, CONFLICT) for _ in range(20)))

    assert sorted(count or 0 for count in counts) == list(range(1, 21))
    assert await sql.fetchval("SELECT count(*) FROM refused_payments") == 1


async def test_a_flood_of_made_up_payments_ends_in_a_full_list(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_payments, "REFUSED_PAYMENTS_MAX", 5)
    payments, user = PostgresPayments(engine), uuid4()

    counts = [await payments.record_refusal(payment(user, amount, event_id="1"), CONFLICT) for amount in range(1, 21)]
    again = await payments.record_refusal(payment(user, 1, event_id="1"), CONFLICT)

    assert counts == [1] * 5 + [None] * 15
    assert again == 2
    assert await sql.fetchval("SELECT count(*) FROM refused_payments") == 5


async def test_one_source_fills_its_own_list_alone(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_payments, "REFUSED_PAYMENTS_MAX", 2)
    payments, user = PostgresPayments(engine), uuid4()
    of_stripe = [replace(payment(user, amount, event_id="1"), source="webhook:stripe") for amount in range(1, 5)]
    credited = payment(user, 9, event_id="2")
    assert await payments.credit(credited)

    assert [await payments.record_refusal(event, CONFLICT) for event in of_stripe] == [1, 1, None, None]
    # What was credited after all is not on the list, and takes no room there.
    events = [credited, payment(user, 7, event_id="3"), payment(user, 8, event_id="3")]
    assert [await payments.record_refusal(event, CONFLICT) for event in events] == [1, 1, 1]


async def test_a_payment_without_an_id_comes_back_as_it_may_be_another_one(engine: AsyncEngine) -> None:
    payments, refusals = PostgresPayments(engine), PostgresRefusedPayments(engine)
    unnamed = replace(payment(uuid4(), 7), event_id="")
    await payments.record_refusal(unnamed, CONFLICT)
    (refused,) = await refusals.newest(limit=10)
    await refusals.resolve([refused.id])

    assert await payments.record_refusal(unnamed, CONFLICT) == 2
    assert [one.id for one in await refusals.newest(limit=10)] == [refused.id]


async def test_what_was_dealt_with_makes_room_and_does_not_come_back(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_payments, "REFUSED_PAYMENTS_MAX", 1)
    payments, refusals = PostgresPayments(engine), PostgresRefusedPayments(engine)
    first, second = payment(uuid4(), 7), payment(uuid4(), 7)
    await payments.record_refusal(first, CONFLICT)
    (refused,) = await refusals.newest(limit=10)

    assert await refusals.resolve([refused.id, refused.id + 1]) == [refused.id]
    assert await refusals.resolve([refused.id]) == []
    assert await payments.record_refusal(first, CONFLICT) == 2
    assert await payments.record_refusal(second, CONFLICT) == 1
    assert [one.event_id for one in await refusals.newest(limit=10)] == [second.event_id]
    assert {one.event_id for one in await refusals.newest(limit=10, with_resolved=True)} == {
        first.event_id,
        second.event_id,
    }


async def test_what_was_credited_after_all_leaves_the_list(api: Api, engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, BALANCE_TOKENS_MAX - 5)
    refusals = PostgresRefusedPayments(engine)
    assert await deliver(api, customer.external_user_id, "pay_1", source="stripe") == 409
    assert [one.reason for one in await refusals.newest(limit=10)] == ["balance_limit_exceeded"]

    await sql.execute("SET session_replication_role = replica")
    await sql.execute("UPDATE accounts SET balance_tokens = 0 WHERE id = $1", customer.account_id)
    await sql.execute("SET session_replication_role = origin")

    assert await deliver(api, customer.external_user_id, "pay_1", source="stripe") == 200
    assert await refusals.newest(limit=10) == []
    assert len(await refusals.newest(limit=10, with_resolved=True)) == 1
