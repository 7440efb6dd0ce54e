"""What a job gives back when only a part of it was delivered, in the books."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.jobs import BilledLine, Billing, BillingOutcome, JobStatus, Outcome, outcome_of_result
from app.domain.ledger import EntryKind
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    LINE,
    RESULT,
    Connection,
    Customer,
    balance_of,
    contents,
    jobs_of,
    new_job,
    open_account,
    provider_request,
)

COST_TOKENS = 20


async def running_job(engine: AsyncEngine, customer: Customer) -> UUID:
    """A job of four images at 5 tokens that fal has."""
    job, attempt_token = new_job(customer, cost_tokens=COST_TOKENS, outputs=4), uuid4()
    await jobs_of(engine).accept(job)
    await jobs_of(engine).claim(job.id, attempt_token)
    assert await jobs_of(engine).record_submission(job.id, attempt_token, provider_request())
    return job.id


def images(count: int, **fields: Any) -> dict[str, Any]:
    return {"images": [{"url": f"https://fal.media/{number}.png"} for number in range(count)], **fields}


@pytest.mark.parametrize(
    ("result", "status", "refunded"),
    [
        (images(4), JobStatus.COMPLETED, 0),
        (images(3), JobStatus.COMPLETED, 5),
        (images(4, has_nsfw_concepts=[True, False, True, True]), JobStatus.COMPLETED, 15),
        (images(0), JobStatus.FAILED, 20),
        (images(2, has_nsfw_concepts=[True, True]), JobStatus.FAILED, 20),
    ],
)
async def test_books_exactly_the_refund_that_belongs_to_the_delivery(
    engine: AsyncEngine, result: dict[str, Any], status: JobStatus, refunded: int
) -> None:
    customer = await open_account(engine, 100)
    job_id = await running_job(engine, customer)
    state = await jobs_of(engine).load(job_id)
    assert state is not None

    await jobs_of(engine).settle(
        job_id,
        outcome_of_result(result, state.terms),
    )

    job = await jobs_of(engine).get(customer.account_id, job_id)
    newest, *_ = await PostgresLedger(engine).entries(customer.external_user_id, limit=10)
    assert (job.status, job.refunded_tokens) == (status, refunded)
    assert (newest.kind, newest.amount, newest.balance_after, newest.job_id) == (
        (EntryKind.REFUND, refunded, 80 + refunded, job_id) if refunded else (EntryKind.DEBIT, COST_TOKENS, 80, job_id)
    )
    assert await balance_of(engine, customer) == 80 + refunded
    assert await PostgresLedger(engine).violations() == []


async def test_a_job_that_was_partly_refunded_says_so_in_its_bill(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 100)
    job_id = await running_job(engine, customer)

    await jobs_of(engine).settle(job_id, Outcome.completed(images(3), {LINE: 5}))

    job = await jobs_of(engine).get(customer.account_id, job_id)
    assert job.billing == Billing(
        charged_tokens=15,
        refunded_tokens=5,
        outcome=BillingOutcome.PARTIALLY_CHARGED,
        lines=[BilledLine(line=LINE, charged_tokens=15, refunded_tokens=5)],
    )


@pytest.mark.parametrize("refunded", [COST_TOKENS, COST_TOKENS + 1, -1])
async def test_the_database_refuses_a_result_that_is_refunded_in_full_or_beyond(
    engine: AsyncEngine, sql: Connection, refunded: int
) -> None:
    job_id = await running_job(engine, await open_account(engine, 100))
    before = await contents(sql)

    with pytest.raises(asyncpg.CheckViolationError, match=r"lines that a job gives back|jobs_refund_fits_status"):
        await jobs_of(engine).settle(job_id, Outcome.completed(RESULT, {LINE: refunded}))

    assert await contents(sql) == before


async def test_a_partly_refunded_job_is_not_refunded_again(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    job_id = await running_job(engine, customer)
    await jobs_of(engine).settle(job_id, Outcome.completed(images(3), {LINE: 5}))
    before = await contents(sql)

    settled = [
        await jobs_of(engine).settle(job_id, outcome)
        for outcome in (
            Outcome.completed(images(2), {LINE: 10}),
            Outcome.failed("late", "Too late."),
            Outcome.canceled(),
        )
    ]
    with pytest.raises(asyncpg.UniqueViolationError, match="ledger_entries_one_of_a_kind_per_job"):
        await sql.execute(
            "INSERT INTO ledger_entries (account_id, kind, amount, job_id) VALUES ($1, 'REFUND', 5, $2)",
            customer.account_id,
            job_id,
        )

    assert settled == [False] * 3
    assert await contents(sql) == before


async def test_the_database_refuses_a_partial_refund_that_was_not_booked(engine: AsyncEngine, sql: Connection) -> None:
    job_id = await running_job(engine, await open_account(engine, 100))

    with pytest.raises(asyncpg.CheckViolationError, match="has no refund"):
        await sql.execute(
            "UPDATE jobs SET status = 'COMPLETED', result = '{}', refunded_tokens = 5 WHERE id = $1", job_id
        )
