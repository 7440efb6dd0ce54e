"""Many jobs end and start at once: accounts are locked in the order of their ids, whatever comes back to them."""

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import ApiKey
from app.domain.budgets import Budget, Period
from app.domain.jobs import JobStatus, Outcome
from app.domain.orders import Accepted
from app.infrastructure.postgres.database import driver_connection
from app.infrastructure.postgres.jobs.acceptance import accept_all
from app.infrastructure.postgres.jobs.settling import Settlement, settle_all
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    LINE,
    OUTCOMES,
    RESULT,
    Connection,
    Customer,
    blocked,
    connect,
    find_caller,
    jobs_of,
    new_job,
    open_account,
    open_key,
)
from tests.integration.test_steps import is_free

KEPT = OUTCOMES[JobStatus.COMPLETED]
PARTLY = Outcome.completed(RESULT, {LINE: 2})
CANCELED = OUTCOMES[JobStatus.CANCELED]
ROUNDS = 6


async def started(engine: AsyncEngine, customer: Customer, key: ApiKey | None = None) -> UUID:
    """A job that may end in any way."""
    job_id = (await jobs_of(engine).accept(new_job(customer), key=key)).job.id
    assert await jobs_of(engine).claim(job_id, uuid4()) is not None
    return job_id


async def settle(engine: AsyncEngine, ends: Sequence[tuple[UUID, Outcome]]) -> None:
    """In one transaction, and with no second try: an error is seen here."""
    async with driver_connection(engine) as driver:
        ended = await settle_all(driver, [Settlement.of(job_id, outcome) for job_id, outcome in ends])
    assert ended == [True] * len(ends)


async def accept(engine: AsyncEngine, orders: Sequence[tuple[Customer, ApiKey]]) -> None:
    storable = [StorableOrder.of(new_job(customer), None, key) for customer, key in orders]
    async with driver_connection(engine) as driver:
        decisions = await accept_all(driver, storable)
    assert all(isinstance(decision, Accepted) for decision in decisions)


@pytest.mark.parametrize(
    "outcomes",
    [[KEPT] * 4, [CANCELED] * 4, [PARTLY] * 4, [CANCELED, KEPT, CANCELED, KEPT], [KEPT, CANCELED, KEPT, CANCELED]],
    ids=["nothing comes back", "all comes back", "some comes back", "to the highest", "to the lowest"],
)
async def test_whoever_waits_for_the_lowest_account_holds_none_of_the_higher_ones(
    engine: AsyncEngine, database: str, sql: Connection, outcomes: Sequence[Outcome]
) -> None:
    customers = sorted([await open_account(engine, 100) for _ in outcomes], key=lambda each: each.account_id)
    # The jobs are in the other order.
    job_ids = [await started(engine, customer) for customer in reversed(customers)]
    lowest, *higher = (customer.account_id for customer in customers)

    async with sql.transaction():
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", lowest)
        settling = asyncio.create_task(settle(engine, list(zip(job_ids, outcomes, strict=True))))
        async with connect(database) as other:
            await blocked(other)
            free = [await is_free(other, "accounts", each) for each in higher]
    await settling

    assert free == [True] * 3


async def test_ends_and_accepts_of_many_accounts_never_wait_in_a_circle(
    engine: AsyncEngine, crowd: AsyncEngine, sql: Connection
) -> None:
    """Each batch is one transaction, whose jobs and keys are in another order than their accounts."""
    callers = []
    for _ in range(5):
        customer = await open_account(engine, 10_000)
        for budget in (Budget(5_000, Period.DAY), Budget(5_000, Period.EVER)):
            key = (await find_caller(engine, await open_key(engine, customer, budget=budget))).key
            callers.append((customer, key))

    def shuffled() -> list[tuple[Customer, ApiKey]]:
        return random.sample(callers, len(callers))

    for _ in range(ROUNDS):
        batches = [
            [(await started(engine, *caller), random.choice([KEPT, CANCELED, PARTLY])) for caller in shuffled()]
            for _ in range(4)
        ]
        await asyncio.gather(
            *(settle(crowd, batch) for batch in batches), *(accept(crowd, shuffled()) for _ in range(4))
        )

    spent = await sql.fetchval("SELECT sum(spent_tokens) FROM key_windows")
    assert spent == await sql.fetchval("SELECT sum(cost_tokens - refunded_tokens) FROM jobs")
    assert await PostgresLedger(engine).violations() == []
