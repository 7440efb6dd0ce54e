"""What an account orders for nothing, again and again, costs that account time, and nobody else."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.budgets import NO_LIMITS
from app.domain.errors import DomainError, Overloaded
from app.domain.orders import IdempotencyKey
from app.infrastructure.postgres.jobs import order_batches
from app.infrastructure.postgres.jobs.acceptance import accept_all
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.jobs.order_batches import (
    APART_AT_ONCE_MAX,
    APART_EVERY_SECONDS,
    FRUITLESS_PER_SECOND,
    FruitlessOrders,
    OrderBatches,
)
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder
from app.infrastructure.postgres.ledger import PostgresLedger
from app.presentation.http.body_room import SMALL_BODY_BYTES_MAX
from tests.builders import Connection, Customer, balance_of, connect, new_job, open_account
from tests.integration.api_on_postgres import TEXT_TO_IMAGE, open_api

NAME = IdempotencyKey("a name", b"a" * 32)


class Clock:
    now = 600.025

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[set[UUID]]:
    """Whose orders came together, batch by batch."""
    seen: list[set[UUID]] = []

    async def recording(driver: Any, storable: Sequence[StorableOrder], **options: Any) -> Sequence[Any]:
        seen.append({one.order.job.account_id for one in storable})
        return await accept_all(driver, storable, **options)

    monkeypatch.setattr(order_batches, "accept_all", recording)
    return seen


def desk_of(engine: AsyncEngine) -> PostgresJobDesk:
    """One whose second never ends: on a slow machine a few refusals take longer than that."""
    desk = PostgresJobDesk(engine)
    desk._accept = OrderBatches(engine, NO_LIMITS, Clock())
    return desk


async def outcome(desk: PostgresJobDesk, customer: Customer, cost_tokens: int = 5, **named: Any) -> str:
    try:
        accepted = await desk.accept(new_job(customer, cost_tokens=cost_tokens), **named)
    except DomainError as error:
        return error.code
    return "replayed" if accepted.is_replay else "accepted"


async def refuse(desk: PostgresJobDesk, customer: Customer, times: int = FRUITLESS_PER_SECOND) -> None:
    for _ in range(times):
        assert await outcome(desk, customer, 10**6) == "insufficient_balance"


def test_many_are_so_many_in_a_second_or_the_one_before() -> None:
    clock, one, other = Clock(), uuid4(), uuid4()
    orders = FruitlessOrders(clock)
    for _ in range(FRUITLESS_PER_SECOND - 1):
        orders.count(one)
    assert not orders.are_many(one)
    orders.count(one)
    assert orders.are_many(one)
    assert not orders.are_many(other)
    clock.now += 1
    assert orders.are_many(one)
    clock.now += 1
    assert not orders.are_many(one)


def test_what_is_remembered_is_of_two_seconds() -> None:
    clock = Clock()
    orders = FruitlessOrders(clock)
    for _ in range(3):
        for _ in range(100):
            orders.count(uuid4())
        clock.now += 1
    assert len(orders._counts) + len(orders._counts_before) == 200
    clock.now += 60
    assert not orders.are_many(uuid4())
    assert not len(orders._counts_before)


@pytest.mark.parametrize("idempotency", [None, NAME], ids=["refused", "repeated"])
async def test_nobody_is_in_a_batch_with_who_orders_for_nothing(
    engine: AsyncEngine, batches: list[set[UUID]], idempotency: IdempotencyKey | None
) -> None:
    noisy, quiet = await open_account(engine, 10), await open_account(engine, 10_000)
    desk = desk_of(engine)
    cost_tokens = 5 if idempotency else 10**6
    for _ in range(FRUITLESS_PER_SECOND + 1):
        await outcome(desk, noisy, cost_tokens, idempotency=idempotency)
    batches.clear()
    began = asyncio.get_running_loop().time()

    each = [(noisy, cost_tokens, idempotency), (quiet, 5, None)] * (3 * APART_AT_ONCE_MAX)
    outcomes = await asyncio.gather(*(outcome(desk, who, cost, idempotency=name) for who, cost, name in each))

    noise = "replayed" if idempotency else "insufficient_balance"
    assert Counter(outcomes) == {noise: 3 * APART_AT_ONCE_MAX, "accepted": 3 * APART_AT_ONCE_MAX}
    assert {noisy.account_id, quiet.account_id} not in batches
    # Each of its own waits for its moment.
    assert batches.count({noisy.account_id}) >= 3
    assert asyncio.get_running_loop().time() - began > APART_EVERY_SECONDS


async def test_among_many_refusals_what_fits_is_accepted_and_a_repeat_is_answered(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 10)
    desk = desk_of(engine)
    assert await outcome(desk, customer, idempotency=NAME) == "accepted"
    await refuse(desk, customer)

    outcomes = await asyncio.gather(
        *(outcome(desk, customer, 10**6) for _ in range(40)),
        outcome(desk, customer, idempotency=NAME),
        *(outcome(desk, customer) for _ in range(2)),
    )

    assert Counter(outcomes) == {"insufficient_balance": 41, "replayed": 1, "accepted": 1}
    assert await balance_of(engine, customer) == 0
    assert await PostgresLedger(engine).violations() == []


async def test_who_is_refused_now_and_then_waits_for_nobody(engine: AsyncEngine, batches: list[set[UUID]]) -> None:
    customer, other = await open_account(engine, 100), await open_account(engine, 100)
    desk = desk_of(engine)
    await refuse(desk, customer, FRUITLESS_PER_SECOND - 1)
    batches.clear()

    await asyncio.gather(*(outcome(desk, each) for each in (other, customer, other, customer)))

    assert {customer.account_id, other.account_id} in batches


async def test_one_account_takes_no_more_places_than_it_has(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_batches, "APART_WAITING_MAX", 3)
    noisy, other = await open_account(engine, 10), await open_account(engine, 10)
    desk = desk_of(engine)
    await refuse(desk, noisy)
    await refuse(desk, other)

    outcomes = await asyncio.gather(*(outcome(desk, noisy, 10**6) for _ in range(5)), outcome(desk, other))

    assert outcomes == [*["insufficient_balance"] * 3, *[Overloaded.code] * 2, "accepted"]
    assert desk._accept._apart_of == {}


async def test_who_goes_away_leaves_no_place_taken(engine: AsyncEngine) -> None:
    noisy = await open_account(engine, 10)
    clock = Clock()
    accept = OrderBatches(engine, NO_LIMITS, clock)
    for _ in range(FRUITLESS_PER_SECOND):
        accept._fruitless.count(noisy.account_id)
    waiting = [
        asyncio.create_task(accept(StorableOrder.of(new_job(noisy), None, None))) for _ in range(APART_AT_ONCE_MAX + 5)
    ]
    await asyncio.sleep(0)
    assert accept._apart_of[noisy.account_id].waiting == APART_AT_ONCE_MAX + 5

    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)

    assert accept._apart_of == {}
    assert await balance_of(engine, noisy) == 10


async def test_all_accounts_together_take_no_more_places_than_there_are(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_batches, "APART_WAITING_OF_ALL_MAX", 3)
    noisy = [await open_account(engine, 10) for _ in range(3)]
    desk = desk_of(engine)
    for each in noisy:
        await refuse(desk, each)

    outcomes = await asyncio.gather(*(outcome(desk, each, 10**6) for each in noisy for _ in range(2)))

    assert outcomes == [*["insufficient_balance"] * 3, *[Overloaded.code] * 3]
    assert desk._accept._apart_of == {}
    assert await outcome(desk, noisy[2]) == "accepted"


async def test_a_large_order_does_not_go_apart(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it waits for its answer, every other large body waits for its turn."""
    noisy = await open_account(engine, 10)
    desk = desk_of(engine)
    await refuse(desk, noisy)
    monkeypatch.setattr(desk._accept, "_turn_of", None)
    large = replace(new_job(noisy), parameters={"image_urls": ["data:image/png;base64," + "A" * 64 * 1024]})

    accepted = await desk.accept(large)

    assert not accepted.is_replay
    with pytest.raises(TypeError):
        await desk.accept(new_job(noisy))


async def test_a_body_that_blanks_made_large_keeps_nobody_waiting(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    customer = await open_account(engine, 10)
    padded = b'{"prompt": "a lighthouse"' + b" " * SMALL_BODY_BYTES_MAX + b"}"
    headers = {"X-API-Key": customer.api_key, "Content-Type": "application/json"}
    async with open_api(engine) as api, connect(database) as blocker:
        async with blocker.transaction():
            await blocker.execute("SELECT FROM accounts FOR UPDATE")
            request = asyncio.create_task(api.http.post(TEXT_TO_IMAGE, content=padded, headers=headers))
            while not await sql.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not request.done()
                await asyncio.sleep(0.01)
            assert not api.room.parsing.locked()
        assert (await request).status_code == 202
