"""The terms of jobs in the database: what holds their sums, and what the release before leaves and finds."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.jobs import JobStatus, Outcome, outcome_of_result
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    LINE,
    RESULT,
    Connection,
    Customer,
    balance_of,
    connect,
    contents,
    jobs_of,
    new_job,
    open_account,
    provider_request,
    terms_of,
)

COST_TOKENS = 20
# As the release before accepts a job, and as it ends one with a part of the cost given back.
ACCEPT_WITHOUT_TERMS = """
WITH job AS (
    INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
    VALUES ($1, $2, 'TEXT_TO_IMAGE', 'fal-ai/wan-25-preview/text-to-image', '{}', 20, 4, 1200) RETURNING *
)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'DEBIT', cost_tokens, id FROM job
"""
SETTLE_WITHOUT_LINES = """
WITH settled AS (
    UPDATE jobs SET status = 'COMPLETED', result = '{"images": []}', refunded_tokens = 5 WHERE id = $1 RETURNING *
)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'REFUND', 5, id FROM settled
"""
INSERT_WITH_TERMS = """
WITH job AS (
    INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds,
                      terms, refunded_lines)
    VALUES ($1, $2, 'TEXT_TO_IMAGE', 'model', '{}', 20, 4, 1200, $3, $4) RETURNING *
)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'DEBIT', cost_tokens, id FROM job
"""


@pytest.fixture
async def sql(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 100)


async def submitted(engine: AsyncEngine, job_id: UUID) -> UUID:
    token = uuid4()
    assert await jobs_of(engine).claim(job_id, token)
    assert await jobs_of(engine).record_submission(job_id, token, provider_request())
    return job_id


async def running_job(engine: AsyncEngine, customer: Customer) -> UUID:
    """A job of four images at 5 tokens that fal has."""
    accepted = await jobs_of(engine).accept(new_job(customer, cost_tokens=COST_TOKENS, outputs=4))
    return await submitted(engine, accepted.job.id)


def images(count: int) -> dict[str, Any]:
    return {"images": [{"url": f"https://fal.media/{number}.png"} for number in range(count)]}


async def test_a_job_keeps_its_terms_and_says_which_lines_it_gave_back(engine: AsyncEngine, customer: Customer) -> None:
    jobs, job_id = jobs_of(engine), await running_job(engine, customer)
    state = await jobs.load(job_id)
    assert state is not None

    assert await jobs.settle(job_id, outcome_of_result(images(1), state.terms))

    job = await jobs.get(customer.account_id, job_id)
    assert (job.terms, job.refunded_lines, job.refunded_tokens) == (terms_of(COST_TOKENS, 4), {LINE: 15}, 15)
    assert await balance_of(engine, customer) == 95
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize(
    "tokens", [[19], [21], [], [-1, 21], [10, 11]], ids=["below", "above", "no line", "negative", "sum"]
)
async def test_the_database_refuses_lines_that_do_not_come_to_the_cost(
    sql: Connection, customer: Customer, tokens: list[int]
) -> None:
    lines = [{"line": str(number), "tokens": each} for number, each in enumerate(tokens)]
    before = await contents(sql)

    with pytest.raises(asyncpg.CheckViolationError, match="the lines of a job come to its cost"):
        await sql.execute(INSERT_WITH_TERMS, uuid4(), customer.account_id, json.dumps({"lines": lines}), None)

    assert await contents(sql) == before


@pytest.mark.parametrize("terms", [None, '{"lines": [{"line": "a", "tokens": 20}]}', "{}", "null"])
async def test_the_database_refuses_a_new_job_with_lines_that_go_back_or_without_its_own(
    sql: Connection, customer: Customer, terms: str | None
) -> None:
    refunded = '{"a": 5}' if terms is None or "lines" in terms else None

    with pytest.raises(asyncpg.CheckViolationError, match="the lines of a job come to its cost"):
        await sql.execute(INSERT_WITH_TERMS, uuid4(), customer.account_id, terms, refunded)


@pytest.mark.parametrize(
    ("tokens", "lines"),
    [
        (5, {LINE: 4}),
        (5, {LINE: 6}),
        (5, {}),
        (5, {"another": 5}),
        (5, {LINE: 6, "another": -1}),
        (0, {LINE: 5}),
    ],
    ids=["below", "above", "none", "another line", "negative", "no refund"],
)
async def test_the_database_refuses_lines_that_do_not_come_to_the_refund(
    engine: AsyncEngine, sql: Connection, customer: Customer, tokens: int, lines: dict[str, int]
) -> None:
    job_id = await running_job(engine, customer)

    with pytest.raises(asyncpg.CheckViolationError, match="come to its refund"):
        await sql.execute(
            "UPDATE jobs SET status = 'COMPLETED', result = '{}', refunded_tokens = $2, refunded_lines = $3"
            " WHERE id = $1",
            job_id,
            tokens,
            json.dumps(lines),
        )


@pytest.mark.parametrize(
    "change",
    ["terms = NULL", "terms = terms || '{\"seconds\": 5}'", "refunded_lines = '{\"text_to_image\": 5}'"],
)
@pytest.mark.parametrize("is_final", [True, False], ids=["final", "unfinished"])
async def test_terms_and_lines_never_change(
    engine: AsyncEngine, sql: Connection, customer: Customer, change: str, *, is_final: bool
) -> None:
    job_id = await running_job(engine, customer)
    if is_final:
        assert await jobs_of(engine).settle(job_id, Outcome.completed(RESULT))

    with pytest.raises(asyncpg.PostgresError, match=r"not allowed|come to its refund"):
        await sql.execute(f"UPDATE jobs SET {change} WHERE id = $1", job_id)


async def test_lines_go_back_only_as_a_job_completes(engine: AsyncEngine, sql: Connection, customer: Customer) -> None:
    completed, failed = await running_job(engine, customer), await running_job(engine, customer)
    await sql.execute(SETTLE_WITHOUT_LINES, completed)

    with pytest.raises(asyncpg.CheckViolationError, match="come to its refund"):
        await sql.execute("UPDATE jobs SET refunded_lines = $2 WHERE id = $1", completed, json.dumps({LINE: 5}))
    with pytest.raises(asyncpg.CheckViolationError, match="come to its refund"):
        await sql.execute(
            "UPDATE jobs SET status = 'FAILED', error_code = 'no_output', refunded_tokens = 20, refunded_lines = $2"
            " WHERE id = $1",
            failed,
            json.dumps({LINE: 20}),
        )


async def test_of_ends_that_race_one_gives_its_own_lines_back(engine: AsyncEngine, customer: Customer) -> None:
    jobs = jobs_of(engine)
    job_ids = [await running_job(engine, customer) for _ in range(4)]
    outcomes = [outcome_of_result(images(count), terms_of(COST_TOKENS, 4)) for count in (1, 2, 3, 4, 0)]

    for job_id in job_ids:
        others = [jobs_of(engine) for _ in outcomes]
        won = await asyncio.gather(*(each.settle(job_id, end) for each, end in zip(others, outcomes, strict=True)))
        assert sum(won) == 1
        job, winner = await jobs.get(customer.account_id, job_id), outcomes[won.index(True)]
        assert job.refunded_lines == winner.refunded_lines
        assert job.refunded_tokens == (winner.refunded_tokens if winner.result else COST_TOKENS)

    assert await PostgresLedger(engine).violations() == []


async def test_settles_by_one_line_what_the_release_before_accepted(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    jobs, job_id = jobs_of(engine), uuid4()
    await sql.execute(ACCEPT_WITHOUT_TERMS, job_id, customer.account_id)
    await submitted(engine, job_id)
    state = await jobs.load(job_id)
    assert state is not None

    assert await jobs.settle(job_id, outcome_of_result(images(3), state.terms))

    job = await jobs.get(customer.account_id, job_id)
    assert (job.status, job.refunded_tokens, job.refunded_lines) == (JobStatus.COMPLETED, 5, {"generation": 5})
    assert await balance_of(engine, customer) == 85
    assert await PostgresLedger(engine).violations() == []


async def test_the_release_before_settles_a_job_that_has_terms(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id = await running_job(engine, customer)

    await sql.execute(SETTLE_WITHOUT_LINES, job_id)

    job = await jobs_of(engine).get(customer.account_id, job_id)
    assert (job.status, job.refunded_tokens, job.refunded_lines) == (JobStatus.COMPLETED, 5, None)
    assert await balance_of(engine, customer) == 85
    assert await PostgresLedger(engine).violations() == []


async def test_carries_out_whatever_has_terms_by_any_model_and_kind(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id = uuid4()
    terms = json.dumps(terms_of(COST_TOKENS, 4).as_json())
    await sql.execute(INSERT_WITH_TERMS, job_id, customer.account_id, terms, None)

    await submitted(engine, job_id)

    state = await jobs_of(engine).load(job_id)
    assert state is not None
    assert (state.model_id, state.terms) == ("model", terms_of(COST_TOKENS, 4))


@pytest.mark.parametrize(
    ("change", "invariant"),
    [
        ("terms = jsonb_set(terms, '{lines,0,tokens}', '6')", "the lines of a job come to its cost"),
        ("terms = '{}'", "the lines of a job come to its cost"),
        ("refunded_lines = '{\"text_to_image\": 1}'", "the lines that a job gives back come to its refund"),
    ],
)
async def test_the_books_show_wrong_lines_that_went_past_the_triggers(
    engine: AsyncEngine, sql: Connection, customer: Customer, change: str, invariant: str
) -> None:
    job_id = await running_job(engine, customer)
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute(f"UPDATE jobs SET {change} WHERE id = $1", job_id)

    found = await sql.fetch("SELECT * FROM ledger_violations")
    assert [tuple(row) for row in found] == [(invariant, str(job_id))]
