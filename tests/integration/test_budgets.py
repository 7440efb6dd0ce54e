"""Limits of accounts and budgets of keys: never exceeded by one, and nothing refused that fits."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from asyncpg import CheckViolationError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import ApiKey, Scope
from app.domain.budgets import AccountLimits, Budget, Period
from app.domain.errors import DomainError, InsufficientBalance, InvalidApiKey
from app.domain.jobs import JobStatus, Outcome
from app.domain.key_errors import ScopeMissing
from app.domain.limits import BudgetExceeded, TooManyJobs, TooManyWrites
from app.domain.orders import Accepted, IdempotencyKey
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    OUTCOMES,
    Connection,
    Customer,
    balance_of,
    begin_minute_of_writes,
    find_caller,
    jobs_of,
    new_job,
    open_account,
    open_key,
)

DAY = Budget(20, Period.DAY)


async def budgeted(engine: AsyncEngine, customer: Customer, budget: Budget = DAY) -> ApiKey:
    return (await find_caller(engine, await open_key(engine, customer, budget=budget))).key


async def outcome(desk: PostgresJobDesk, customer: Customer, cost_tokens: int = 5, **named: Any) -> str:
    try:
        await desk.accept(new_job(customer, cost_tokens=cost_tokens), **named)
    except DomainError as error:
        return error.code
    return "accepted"


async def spent(sql: Connection, key: ApiKey) -> int | None:
    found: int | None = await sql.fetchval("SELECT spent_tokens FROM key_windows WHERE key_id = $1", key.id)
    return found


async def test_a_budget_is_spent_to_the_token(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 1000)
    key, desk = await budgeted(engine, customer), PostgresJobDesk(engine)

    outcomes = [await outcome(desk, customer, cost, key=key) for cost in (9, 10, 2, 1, 1)]

    assert outcomes == ["accepted", "accepted", "budget_exceeded", "accepted", "budget_exceeded"]
    assert await spent(sql, key) == 20
    assert await balance_of(engine, customer) == 980
    assert await PostgresLedger(engine).violations() == []


async def test_a_refusal_says_what_is_left_and_when_it_renews(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 1000)
    key = await budgeted(engine, customer)
    await outcome(PostgresJobDesk(engine), customer, 15, key=key)

    with pytest.raises(BudgetExceeded) as refused:
        await PostgresJobDesk(engine).accept(new_job(customer, cost_tokens=6), key=key)

    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert refused.value.figures == {
        "required_tokens": 6,
        "budget_tokens": 20,
        "spent_tokens": 15,
        "renews_at": f"{tomorrow}T00:00:00Z",
    }


async def test_many_at_once_never_spend_more_and_nothing_is_refused_that_fits(
    engine: AsyncEngine, crowd: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 1000)
    key = await budgeted(engine, customer, Budget(100, Period.MONTH))
    desks = [PostgresJobDesk(crowd) for _ in range(4)]

    outcomes = await asyncio.gather(*(outcome(desks[each % 4], customer, 1 + each % 7, key=key) for each in range(200)))

    assert await spent(sql, key) == 100
    assert set(outcomes) == {"accepted", "budget_exceeded"}
    assert await PostgresLedger(engine).violations() == []


async def test_an_account_has_so_many_unfinished_jobs_at_most(engine: AsyncEngine, crowd: AsyncEngine) -> None:
    customer = await open_account(engine, 1000)
    limits = AccountLimits(unfinished_jobs_max=7)
    desks = [PostgresJobDesk(crowd, limits) for _ in range(4)]

    outcomes = await asyncio.gather(*(outcome(desks[each % 4], customer) for each in range(40)))

    assert Counter(outcomes) == {"accepted": 7, "too_many_jobs": 33}
    assert await balance_of(engine, customer) == 1000 - 7 * 5


@pytest.mark.parametrize("status", OUTCOMES)
async def test_an_end_makes_room_for_another_job(engine: AsyncEngine, status: JobStatus) -> None:
    customer = await open_account(engine, 1000)
    desk = PostgresJobDesk(engine, AccountLimits(unfinished_jobs_max=1))
    first = await desk.accept(new_job(customer))
    assert await outcome(desk, customer) == "too_many_jobs"
    assert await jobs_of(engine).claim(first.job.id, uuid4()) is not None

    await jobs_of(engine).settle(first.job.id, OUTCOMES[status])

    assert [await outcome(desk, customer) for _ in range(2)] == ["accepted", "too_many_jobs"]
    assert await PostgresLedger(engine).violations() == []


async def test_a_minute_has_so_many_changes_and_a_refused_one_does_not_count(
    engine: AsyncEngine, crowd: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 30)
    limits = AccountLimits(writes_per_minute=5)
    await begin_minute_of_writes(sql)
    assert await outcome(PostgresJobDesk(engine, limits), customer, 31) == "insufficient_balance"

    outcomes = await asyncio.gather(*(outcome(PostgresJobDesk(crowd, limits), customer) for _ in range(12)))
    assert Counter(outcomes) == {"accepted": 5, "too_many_writes": 7}

    await sql.execute("UPDATE accounts SET writes_minute = writes_minute - interval '2 minutes'")
    assert await outcome(PostgresJobDesk(engine, limits), customer) == "accepted"
    assert await sql.fetchval("SELECT writes FROM accounts WHERE id = $1", customer.account_id) == 1


async def test_a_minute_of_a_clock_that_was_set_back_holds_nobody_up(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    desk = PostgresJobDesk(engine, AccountLimits(writes_per_minute=2))
    ahead = "UPDATE accounts SET writes = 2, writes_minute = date_trunc('minute', now()) + $1 * interval '1 minute'"
    await sql.execute(ahead, 1)
    assert await outcome(desk, customer) == "too_many_writes"
    await sql.execute(ahead, 30)

    assert await outcome(desk, customer) == "accepted"

    assert await sql.fetchval("SELECT writes FROM accounts WHERE writes_minute <= now()") == 1


async def test_the_accounts_own_limits_take_the_place_of_the_settings(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 1000)
    strict = PostgresJobDesk(engine, AccountLimits(unfinished_jobs_max=1, writes_per_minute=1))
    await sql.execute("UPDATE accounts SET unfinished_jobs_max = 0, writes_per_minute = 0")
    assert [await outcome(strict, customer) for _ in range(3)] == ["accepted"] * 3

    await sql.execute("UPDATE accounts SET unfinished_jobs_max = 4")
    assert [await outcome(PostgresJobDesk(engine), customer) for _ in range(2)] == ["accepted", "too_many_jobs"]


async def test_what_comes_back_can_be_spent_again_while_its_window_lasts(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 1000)
    key, desk = await budgeted(engine, customer), PostgresJobDesk(engine)
    jobs = [(await desk.accept(new_job(customer, cost_tokens=10), key=key)).job for _ in range(2)]
    await jobs_of(engine).settle(jobs[0].id, Outcome.canceled())
    assert await spent(sql, key) == 10

    await sql.execute(
        "UPDATE key_windows SET starts_at = starts_at - interval '1 day', ends_at = ends_at - interval '1 day'"
    )
    await jobs_of(engine).settle(jobs[1].id, Outcome.canceled())

    assert await spent(sql, key) == 10
    assert await outcome(desk, customer, 20, key=key) == "accepted"


async def test_a_known_idempotency_key_is_answered_before_any_limit(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 20)
    key = await budgeted(engine, customer)
    desk = PostgresJobDesk(engine, AccountLimits(unfinished_jobs_max=1, writes_per_minute=1))
    named = IdempotencyKey("name", b"a" * 32)
    first = await desk.accept(new_job(customer, cost_tokens=20), named, key)

    again = await desk.accept(new_job(customer, cost_tokens=20), named, key)

    assert again == Accepted(first.job, is_replay=True, balance_tokens=0)
    assert await outcome(desk, customer, 1, key=key) == "insufficient_balance"


async def test_a_key_that_ended_after_it_was_looked_up_starts_nothing(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    key = (await find_caller(engine, await open_key(engine, customer))).key
    await sql.execute("UPDATE keys SET deleted_at = now() WHERE id = $1", key.id)

    with pytest.raises(InvalidApiKey):
        await PostgresJobDesk(engine).accept(new_job(customer), key=key)

    assert await balance_of(engine, customer) == 100


async def test_a_key_that_lost_its_scope_starts_nothing(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    key = (await find_caller(engine, await open_key(engine, customer))).key
    await sql.execute("UPDATE keys SET scopes = $2 WHERE id = $1", key.id, [Scope.READ])

    with pytest.raises(ScopeMissing):
        await PostgresJobDesk(engine).accept(new_job(customer), key=key)


async def test_a_budget_that_came_after_the_look_up_holds(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    key = (await find_caller(engine, await open_key(engine, customer))).key
    await sql.execute("UPDATE keys SET budget_tokens = 7, budget_per = 'ever' WHERE id = $1", key.id)

    outcomes = [await outcome(PostgresJobDesk(engine), customer, 5, key=key) for _ in range(2)]

    assert outcomes == ["accepted", "budget_exceeded"]
    assert await spent(sql, key) == 5


async def test_the_others_of_a_batch_go_on_beside_one_that_does_not_fit(engine: AsyncEngine) -> None:
    customer, other = await open_account(engine, 100), await open_account(engine, 100)
    key = await budgeted(engine, customer, Budget(6, Period.EVER))
    desk = PostgresJobDesk(engine)

    outcomes = await asyncio.gather(
        outcome(desk, other),
        *(outcome(desk, customer, cost, key=key) for cost in (5, 2, 1)),
        outcome(desk, customer, 90),
        outcome(desk, other, 96),
        outcome(desk, other, 95),
    )

    assert outcomes == [
        "accepted", "accepted", "budget_exceeded", "accepted", "accepted", "insufficient_balance", "accepted"
    ]  # fmt: skip
    assert await PostgresLedger(engine).violations() == []


async def test_the_database_itself_refuses_to_spend_more(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    key = await budgeted(engine, customer)
    await outcome(PostgresJobDesk(engine), customer, 5, key=key)

    with pytest.raises(CheckViolationError):
        await sql.execute("UPDATE key_windows SET spent_tokens = 21")
    with pytest.raises(CheckViolationError):
        await sql.execute("UPDATE accounts SET unfinished_jobs = -1")


async def test_counters_that_are_wrong_are_found(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    key = await budgeted(engine, customer)
    await outcome(PostgresJobDesk(engine), customer, 5, key=key)
    await sql.execute("UPDATE key_windows SET spent_tokens = 4")
    await sql.execute("UPDATE accounts SET unfinished_jobs = 2")

    found = {violation.invariant for violation in await PostgresLedger(engine).violations()}

    assert found == {"a window counts what its jobs cost", "the account counts its unfinished jobs"}


async def test_the_books_are_verified_without_reading_the_jobs_for_each_window(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer, windows = await open_account(engine, 1000), 50
    keys = [await budgeted(engine, customer) for _ in range(windows)]
    desk = PostgresJobDesk(engine)
    await asyncio.gather(*(outcome(desk, customer, key=key) for key in keys for _ in range(3)))

    async with sql.transaction():
        assert await sql.fetch("SELECT * FROM ledger_violations") == []
        read = await sql.fetchrow("SELECT * FROM pg_stat_xact_user_tables WHERE relname = 'jobs'")

    assert read is not None
    assert await sql.fetchval("SELECT count(*) FROM key_windows") == windows
    assert (read["seq_tup_read"] + read["idx_tup_fetch"]) / (3 * windows) < windows / 2


async def test_refusals_say_what_the_limit_is() -> None:
    assert "1000 generations" in TooManyJobs(1000).detail
    assert TooManyWrites(600, 17).retry_after_seconds == 17
    assert isinstance(InsufficientBalance(required_tokens=2, balance_tokens=1), DomainError)
