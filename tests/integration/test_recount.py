"""Counters that somebody spoiled: no job waits for them, verify names them, and a command counts them anew."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import ApiKey
from app.domain.budgets import Budget, Period
from app.domain.errors import DomainError
from app.domain.jobs import JobStatus
from app.domain.ledger import Recounted
from app.infrastructure.postgres import ledger
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.keys import windows
from app.infrastructure.postgres.keys.windows import sum_running_windows
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    OUTCOMES,
    Connection,
    Customer,
    balance_of,
    blocked,
    connect,
    find_caller,
    jobs_of,
    new_job,
    open_account,
    open_key,
)

OF_ACCOUNT = "the account counts its unfinished jobs"
OF_KEY = "a window counts what its jobs cost"
MONEY = "SELECT balance_tokens, entry_count, (SELECT count(*) FROM ledger_entries) FROM accounts"

ACCEPT = """
WITH job AS (
         INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested,
                           time_limit_seconds, key_id)
         SELECT gen_random_uuid(), account_id, kind, model_id, '{}', cost_tokens, 1, 60, $1 FROM jobs RETURNING *),
     spent AS (UPDATE key_windows SET spent_tokens = spent_tokens + 5)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'DEBIT', cost_tokens, id FROM job
"""
END = """
WITH job AS (UPDATE jobs SET status = 'CANCELED', error_code = 'canceled', refunded_tokens = cost_tokens RETURNING *)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'REFUND', cost_tokens, id FROM job
"""


async def budgeted(engine: AsyncEngine, customer: Customer, tokens: int) -> ApiKey:
    return (await find_caller(engine, await open_key(engine, customer, budget=Budget(tokens, Period.EVER)))).key


async def accept(engine: AsyncEngine, customer: Customer, key: ApiKey) -> UUID:
    return (await PostgresJobDesk(engine).accept(new_job(customer), key=key)).job.id


async def end(engine: AsyncEngine, job_id: UUID, status: JobStatus = JobStatus.FAILED) -> None:
    assert await jobs_of(engine).claim(job_id, uuid4()) is not None
    await jobs_of(engine).settle(job_id, OUTCOMES[status])


async def violated(engine: AsyncEngine) -> set[str]:
    return {each.invariant for each in await PostgresLedger(engine).violations()}


async def recounted(engine: AsyncEngine) -> list[Recounted]:
    return [each async for each in PostgresLedger(engine).recount()]


@pytest.mark.parametrize("status", OUTCOMES)
async def test_jobs_end_whatever_the_counters_say_and_the_counters_are_still_named(
    engine: AsyncEngine, sql: Connection, status: JobStatus
) -> None:
    customer = await open_account(engine, 100)
    key = await budgeted(engine, customer, 50)
    first, second = [await accept(engine, customer, key) for _ in range(2)]
    await sql.execute("UPDATE accounts SET unfinished_jobs = 0")
    await sql.execute("UPDATE key_windows SET spent_tokens = 0")

    await end(engine, first, status)

    assert await sql.fetchval("SELECT status FROM jobs WHERE id = $1", first) == status
    assert await violated(engine) == {OF_ACCOUNT, OF_KEY}
    # Where nothing is left that could be counted, zero is right.
    await end(engine, second)
    assert await violated(engine) == (set() if status is not JobStatus.COMPLETED else {OF_KEY})


@pytest.mark.parametrize(("jobs", "tokens"), [(0, 0), (1, 4), (9, 40)], ids=["nothing", "too little", "too much"])
async def test_counts_anew_what_is_named_and_moves_no_token(
    engine: AsyncEngine, sql: Connection, jobs: int, tokens: int
) -> None:
    customer, other = await open_account(engine, 100), await open_account(engine, 100)
    key = await budgeted(engine, customer, 50)
    job_ids = [await accept(engine, customer, key) for _ in range(2)]
    await accept(engine, other, await budgeted(engine, other, 50))
    await sql.execute("UPDATE accounts SET unfinished_jobs = $2 WHERE id = $1", customer.account_id, jobs)
    await sql.execute("UPDATE key_windows SET spent_tokens = $2 WHERE key_id = $1", key.id, tokens)
    assert await violated(engine) == {OF_ACCOUNT, OF_KEY}
    money = await sql.fetch(MONEY)

    changed = await recounted(engine)

    assert changed == [
        Recounted(counter="unfinished_jobs", subject=customer.account_id, before=jobs, after=2),
        Recounted(counter="spent_tokens", subject=key.id, before=tokens, after=10),
    ]
    assert await violated(engine) == set()
    assert await sql.fetch(MONEY) == money
    assert await recounted(engine) == []
    for job_id in job_ids:
        await end(engine, job_id)
    assert await violated(engine) == set()


async def test_a_key_that_could_spend_more_than_its_budget_is_counted_all_the_same(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    key = await budgeted(engine, customer, 5)
    await accept(engine, customer, key)
    await sql.execute("UPDATE key_windows SET spent_tokens = 0")
    await accept(engine, customer, key)

    assert [(each.before, each.after) for each in await recounted(engine)] == [(5, 10)]

    assert await violated(engine) == set()
    with pytest.raises(DomainError, match="budget"):
        await accept(engine, customer, key)


@pytest.mark.parametrize("status", [None, JobStatus.CANCELED], ids=["accept", "end"])
async def test_waits_for_what_is_not_committed_yet(
    engine: AsyncEngine, database: str, sql: Connection, status: JobStatus | None
) -> None:
    customer = await open_account(engine, 100)
    key = await budgeted(engine, customer, 50)
    await accept(engine, customer, key)
    await sql.execute("UPDATE accounts SET unfinished_jobs = 9")
    await sql.execute("UPDATE key_windows SET spent_tokens = 40")

    async with connect(database) as other, other.transaction():
        # Locks the account, and has not committed what it does under the lock.
        if status is None:
            await other.execute(ACCEPT, key.id)
        else:
            await other.execute(END)
        counting = asyncio.create_task(recounted(engine))
        await blocked(sql)

    assert [(each.before, each.after) for each in await counting] == (
        [(10, 2), (45, 10)] if status is None else [(8, 0), (35, 0)]
    )
    assert await violated(engine) == set()


async def test_no_accept_waits_for_the_sum_and_what_happens_after_it_is_added(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await open_account(engine, 100)
    key = await budgeted(engine, customer, 50)
    seen = await accept(engine, customer, key)
    await accept(engine, customer, key)
    await sql.execute("UPDATE key_windows SET spent_tokens = 40")

    async def sum_of_jobs(*named: Any) -> Any:
        await sql.fetch("SELECT FROM accounts FOR UPDATE NOWAIT")
        return await windows_sum(*named)

    async def and_then(*named: Any) -> Any:
        sums = await sum_running_windows(*named)
        await accept(engine, customer, key)
        await end(engine, seen)
        return sums

    windows_sum = windows._sum_of_jobs
    monkeypatch.setattr(windows, "_sum_of_jobs", sum_of_jobs)
    monkeypatch.setattr(ledger, "sum_running_windows", and_then)

    assert [(each.before, each.after) for each in await recounted(engine)] == [(40, 10)]
    assert await violated(engine) == set()


async def test_accepts_and_ends_meanwhile_are_counted(engine: AsyncEngine, crowd: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100_000)
    key = await budgeted(engine, customer, 90_000)
    is_over, accepted, ended = asyncio.Event(), [await accept(engine, customer, key)], 0

    async def work(number: int) -> None:
        nonlocal ended
        while not is_over.is_set():
            job_id = await accept(crowd, customer, key)
            accepted.append(job_id)
            if number % 2:
                await end(crowd, job_id)
                ended += 1

    working = [asyncio.create_task(work(number)) for number in range(8)]
    left: list[Any] = []
    try:
        for spoiled in range(30):
            await sql.execute("UPDATE accounts SET unfinished_jobs = $1", spoiled % 3 * 1000)
            await sql.execute("UPDATE key_windows SET spent_tokens = $1", spoiled % 2 * 80_000)
            assert {each.counter for each in await recounted(crowd)} == {"unfinished_jobs", "spent_tokens"}
            # The view sees one moment, in which the counters are right whatever is going on.
            left += await PostgresLedger(crowd).violations()
    finally:
        is_over.set()
        await asyncio.gather(*working)

    assert left == []
    assert ended > 10
    assert await violated(engine) == set()
    assert await sql.fetchval("SELECT count(*) FROM jobs") == len(accepted)
    assert await sql.fetchval("SELECT unfinished_jobs FROM accounts") == len(accepted) - ended
    assert await balance_of(engine, customer) == 100_000 - 5 * (len(accepted) - ended)
