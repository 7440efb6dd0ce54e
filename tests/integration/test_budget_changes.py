"""A key gets another budget while its account goes on: nobody waits for the sum, and it is right to the token."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import ApiKey
from app.domain.budgets import Budget, Period
from app.domain.errors import InsufficientBalance, Overloaded
from app.domain.jobs import Outcome
from app.domain.limits import BudgetExceeded, TooManyWrites
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.keys import management
from app.infrastructure.postgres.keys.management import PostgresKeyManagement
from app.infrastructure.postgres.keys.windows import sum_windows
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    LINE,
    RESULT,
    Connection,
    Customer,
    begin_minute_of_writes,
    connect,
    find_caller,
    jobs_of,
    new_job,
    open_account,
    open_key,
)

DAY, MONTH, EVER = (Budget(10_000, period) for period in Period)


async def budgeted(engine: AsyncEngine, customer: Customer, budget: Budget | None = DAY) -> ApiKey:
    return (await find_caller(engine, await open_key(engine, customer, budget=budget))).key


async def spent(sql: Connection, key: ApiKey) -> list[int]:
    return [row["spent_tokens"] for row in await sql.fetch("SELECT * FROM key_windows WHERE key_id = $1", key.id)]


async def booked(sql: Connection, key: ApiKey) -> list[int]:
    return [await sql.fetchval("SELECT sum(cost_tokens - refunded_tokens) FROM jobs WHERE key_id = $1", key.id)]


class Account:
    """Two keys of one account, what they start and how it ends."""

    def __init__(self, engine: AsyncEngine, customer: Customer, key: ApiKey) -> None:
        self.engine, self.customer, self.key = engine, customer, key
        self.desk, self.manager = PostgresJobDesk(engine), PostgresKeyManagement(engine)

    async def start(self, cost_tokens: int, key: ApiKey | None = None) -> Any:
        job = new_job(self.customer, cost_tokens=cost_tokens)
        return (await self.desk.accept(job, key=key or self.key)).job.id

    async def cancel(self, job_id: Any) -> None:
        assert await jobs_of(self.engine).settle(job_id, Outcome.canceled())

    async def complete(self, job_id: Any, refunded_tokens: int) -> None:
        outcome = Outcome.completed(RESULT, {LINE: refunded_tokens})
        # Where a run has begun.
        assert await jobs_of(self.engine).claim(job_id, job_id) is not None
        assert await jobs_of(self.engine).settle(job_id, outcome)

    async def change(self, budget: Budget | None) -> None:
        await self.manager.change(self.customer.account_id, self.key.id, {"budget": budget}, None)


@pytest.fixture
async def account(engine: AsyncEngine) -> Account:
    customer = await open_account(engine, 1_000_000)
    return Account(engine, customer, await budgeted(engine, customer))


async def test_nobody_waits_for_the_sum(account: Account, sql: Connection, database: str) -> None:
    await account.start(7)
    async with connect(database) as other, other.transaction():
        # The sum lasts as long as this.
        await other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        change = asyncio.create_task(account.change(MONTH))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass"
        while not await sql.fetchval(waits):
            assert not change.done()
            await asyncio.sleep(0.01)

        await sql.fetch("SELECT FROM accounts FOR UPDATE NOWAIT")

    await change
    assert await spent(sql, account.key) == [7]


async def test_what_happens_after_the_sum_is_added_to_the_token(
    account: Account, engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that the sum has seen, and those that it has not, are each started and ended in every way."""
    other = await budgeted(engine, account.customer)
    seen = {way: await account.start(10) for way in ("goes on", "canceled", "in part", "canceled before")}
    of_other = await account.start(10, other)
    await account.cancel(seen["canceled before"])

    async def and_then(*named: Any) -> Mapping[Any, Any]:
        sums = await sum_windows(*named)
        await account.start(100)
        await account.cancel(await account.start(200))
        await account.complete(await account.start(400), 40)
        await account.cancel(seen["canceled"])
        await account.complete(seen["in part"], 3)
        await account.start(1000, other)
        await account.cancel(of_other)
        return sums

    monkeypatch.setattr(management, "sum_windows", and_then)
    await account.change(MONTH)

    assert await spent(sql, account.key) == await booked(sql, account.key) == [10 + 7 + 100 + 360]
    assert await spent(sql, other) == await booked(sql, other) == [1000]
    assert await PostgresLedger(engine).violations() == []


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked of each sum that was begun."""
    begun: list[Any] = []

    async def noted(*asked: Any) -> Mapping[Any, Any]:
        begun.append(asked)
        return await sum_windows(*asked)

    monkeypatch.setattr(management, "sum_windows", noted)
    return begun


async def test_a_sum_is_made_only_where_nothing_else_stands_against_the_change(
    account: Account, engine: AsyncEngine, sql: Connection, sums: list[Any]
) -> None:
    await account.start(5)
    await begin_minute_of_writes(sql, writes=1)
    await sql.execute("UPDATE accounts SET writes_per_minute = 1")
    by = (await find_caller(engine, account.customer.api_key)).key
    for _ in range(3):
        with pytest.raises(TooManyWrites):
            await account.manager.change(account.customer.account_id, account.key.id, {"budget": MONTH}, by)
    await account.change(Budget(9_000, Period.DAY))
    await account.change(None)
    assert sums == []

    await account.change(EVER)
    assert len(sums) == 1
    assert await spent(sql, account.key) == [5]


async def test_an_account_makes_one_sum_at_a_time_and_no_more_than_it_may_write(
    account: Account, engine: AsyncEngine, sql: Connection, database: str, sums: list[Any]
) -> None:
    """Others, who share the connections, go on meanwhile."""
    await account.start(5)
    other = await open_account(engine, 100)
    await begin_minute_of_writes(sql)
    await sql.execute("UPDATE accounts SET writes_per_minute = 5 WHERE id = $1", account.customer.account_id)
    by = (await find_caller(engine, account.customer.api_key)).key

    async def change(number: int) -> None:
        budget = Budget(20_000 + number, (Period.MONTH, Period.EVER)[number % 2])
        await account.manager.change(account.customer.account_id, account.key.id, {"budget": budget}, by)

    async with connect(database) as slow, slow.transaction():
        # A sum lasts as long as this.
        await slow.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        changes = [asyncio.create_task(change(number)) for number in range(40)]
        await asyncio.wait_for(find_caller(engine, other.api_key), 20)
        # The sum is still under way: nobody had to wait for its end.
        assert not all(change.done() for change in changes)
        going_on = set(changes)
        while len(going_on) > 1:
            _, going_on = await asyncio.wait(going_on, return_when=asyncio.FIRST_COMPLETED)

    outcomes = Counter(type(each) for each in await asyncio.gather(*changes, return_exceptions=True))
    assert outcomes == {type(None): 1, Overloaded: 4, TooManyWrites: 35}
    assert len(sums) == 5
    assert await sql.fetchval("SELECT writes FROM accounts WHERE id = $1", account.customer.account_id) == 5
    assert await spent(sql, account.key) == [5]


async def test_changes_race_with_accepts_and_ends(
    account: Account, engine: AsyncEngine, crowd: AsyncEngine, sql: Connection
) -> None:
    other = await budgeted(engine, account.customer)
    racing = Account(crowd, account.customer, account.key)
    changed: list[Budget | None] = []

    async def spend(number: int) -> None:
        key = other if number % 4 == 0 else account.key
        for each in range(12):
            job_id = await racing.start(2 + (7 * number + each) % 11, key)
            if each % 3 == 0:
                await racing.cancel(job_id)
            elif each % 3 == 1:
                await racing.complete(job_id, 1)

    async def change() -> None:
        while not spending.done():
            for budget in (MONTH, None, EVER, DAY):
                await racing.change(budget)
                changed.append(budget)
                assert await PostgresLedger(engine).violations() == []

    spending = asyncio.ensure_future(asyncio.gather(*(spend(number) for number in range(12))))
    await asyncio.gather(spending, change())

    assert len(changed) >= 8
    assert await spent(sql, account.key) == await booked(sql, account.key)
    assert await PostgresLedger(engine).violations() == []


async def test_refused_orders_leave_nothing(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 1000)
    keys = [await budgeted(engine, customer, Budget(4, period)) for period in Period]
    desk = PostgresJobDesk(engine)
    for key in keys:
        for cost_tokens in (5, 2000):
            with pytest.raises((BudgetExceeded, InsufficientBalance)):
                await desk.accept(new_job(customer, cost_tokens=cost_tokens), key=key)

    assert await sql.fetchval("SELECT count(*) FROM key_windows") == 0

    # Beside one that fits.
    outcomes = await asyncio.gather(
        *(desk.accept(new_job(customer, cost_tokens=cost), key=keys[0]) for cost in (5, 4)),
        desk.accept(new_job(customer, cost_tokens=5), key=keys[1]),
        return_exceptions=True,
    )
    assert [isinstance(outcome, BudgetExceeded) for outcome in outcomes] == [True, False, True]
    assert [dict(row) for row in await sql.fetch("SELECT key_id, spent_tokens FROM key_windows")] == [
        {"key_id": keys[0].id, "spent_tokens": 4}
    ]
    assert await PostgresLedger(engine).violations() == []
