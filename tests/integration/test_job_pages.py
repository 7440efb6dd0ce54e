"""Lists of jobs: every job once, newest first, by offset and by cursor, and by the index that was made for it."""

import random
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.builders import Connection, Customer, accept_job, jobs_of, open_account
from tests.integration.api_on_postgres import Api


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 10_000)


async def accepted_at_the_same_moments(engine: AsyncEngine, sql: Connection, customer: Customer) -> list[UUID]:
    """Jobs of which several share their time, as those of a batch do; newest first."""
    ids = [await accept_job(engine, customer) for _ in range(11)]
    # What a job is never changes; the guard stands aside for this one statement.
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        for number, job_id in enumerate(ids):
            await sql.execute("UPDATE jobs SET created_at = to_timestamp($2) WHERE id = $1", job_id, number // 4)
    rows = await sql.fetch("SELECT id FROM jobs ORDER BY created_at DESC, id DESC")
    return [row[0] for row in rows]


@pytest.mark.parametrize("limit", [1, 3, 4, 11, 100])
async def test_a_cursor_shows_every_job_once_whatever_comes_meanwhile(
    engine: AsyncEngine, sql: Connection, api: Api, customer: Customer, limit: int
) -> None:
    expected = await accepted_at_the_same_moments(engine, sql, customer)

    seen: list[UUID] = []
    cursor = None
    while True:
        page = (await api.get(customer, "/generations", limit=limit, **({"cursor": cursor} if cursor else {}))).json()
        assert len(page["items"]) <= limit
        seen += [UUID(job["job_id"]) for job in page["items"]]
        cursor = page["next_cursor"]
        await accept_job(engine, customer)
        if cursor is None:
            break

    assert seen == expected


async def test_the_last_page_has_no_cursor(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    assert (await api.get(customer, "/generations")).json()["next_cursor"] is None
    for _ in range(3):
        await accept_job(engine, customer)

    assert (await api.get(customer, "/generations", limit=3)).json()["next_cursor"] is None
    assert (await api.get(customer, "/generations", limit=2)).json()["next_cursor"] is not None


async def test_offset_and_cursor_lead_to_the_same_jobs(
    engine: AsyncEngine, sql: Connection, api: Api, customer: Customer
) -> None:
    expected = [str(job_id) for job_id in await accepted_at_the_same_moments(engine, sql, customer)]

    first = (await api.get(customer, "/generations", limit=3)).json()
    by_offset = (await api.get(customer, "/generations", limit=3, offset=3)).json()
    by_cursor = (await api.get(customer, "/generations", limit=3, cursor=first["next_cursor"])).json()

    assert [job["job_id"] for job in by_offset["items"]] == expected[3:6]
    assert by_cursor["items"] == by_offset["items"]


async def test_refuses_a_cursor_that_is_no_job_of_the_account(
    engine: AsyncEngine, api: Api, customer: Customer
) -> None:
    stranger = await open_account(engine, 10)
    theirs = await accept_job(engine, stranger)

    for cursor in (str(theirs), str(uuid4())):
        answer = await api.get(customer, "/generations", cursor=cursor)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    for cursor in ("1", "", "0 OR 1=1"):
        answer = await api.get(customer, "/generations", cursor=cursor)
        assert answer.status_code == 422, cursor
        (error,) = answer.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/cursor", "invalid_cursor")


async def test_a_page_reads_what_it_shows_however_many_jobs_there_are(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    """By the rows that PostgreSQL says it read, not by its choice of words: no sort, no rows thrown away."""
    first = await accept_job(engine, customer)
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute(
            "INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested,"
            " time_limit_seconds, created_at) SELECT gen_random_uuid(), account_id, kind, model_id, parameters,"
            " cost_tokens, outputs_requested, time_limit_seconds, created_at + number * interval '1 s'"
            " FROM jobs, generate_series(1, 5000) AS number WHERE id = $1",
            first,
        )
    await sql.execute("ANALYZE jobs")
    middle = random.choice(await jobs_of(engine).page(customer.account_id, limit=10, offset=2500))

    plan = await sql.fetch(
        "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT id FROM jobs WHERE account_id = $1"
        " AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT 21",
        customer.account_id,
        middle.created_at,
        middle.id,
    )

    text = "\n".join(row[0] for row in plan)
    assert "jobs_newest_first" in text, text
    assert "Sort" not in text, text
    assert "Rows Removed" not in text, text
