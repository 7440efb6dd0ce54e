"""Submissions of an account that has to wait are put off together, and nobody else's."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.crowds import ITEMS_MAX, PostgresCrowds
from tests.builders import OWN_PAUSE, Connection, accept_job, jobs_of, new_job, open_account

SECONDS_TO_GO = """
    SELECT job.id, extract(epoch FROM item.execute_after - now())::float8 AS seconds
    FROM pgqueuer AS item JOIN jobs AS job ON item.dedupe_key = 'generation.submit:' || job.id
    WHERE job.account_id = $1 ORDER BY item.id
"""


async def seconds_to_go(sql: Connection, account_id: UUID) -> list[float]:
    return [row["seconds"] for row in await sql.fetch(SECONDS_TO_GO, account_id)]


async def test_puts_off_the_due_submissions_of_the_account_one_after_the_other(
    engine: AsyncEngine, sql: Connection
) -> None:
    crowd, neighbour = await open_account(engine, 100), await open_account(engine, 100)
    for _ in range(5):
        await accept_job(engine, crowd)
        await accept_job(engine, neighbour)

    put_off = await PostgresCrowds(engine).put_off_submissions(crowd.account_id, 30, 2, OWN_PAUSE)

    assert put_off == 5
    assert [round(seconds) for seconds in await seconds_to_go(sql, crowd.account_id)] == [30, 32, 34, 36, 38]
    assert max(await seconds_to_go(sql, neighbour.account_id)) <= 0
    # They are not due any more.
    assert await PostgresCrowds(engine).put_off_submissions(crowd.account_id, 30, 2, OWN_PAUSE) == 0


async def test_leaves_what_somebody_has_taken(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    for _ in range(3):
        await accept_job(engine, customer)
    await sql.execute("UPDATE pgqueuer SET status = 'picked' WHERE id = (SELECT min(id) FROM pgqueuer)")

    async with sql.transaction():
        await sql.execute("SELECT FROM pgqueuer WHERE id = (SELECT max(id) FROM pgqueuer) FOR UPDATE")
        put_off = await PostgresCrowds(engine).put_off_submissions(customer.account_id, 30, 2, OWN_PAUSE)

    assert put_off == 1
    assert [seconds > 0 for seconds in await seconds_to_go(sql, customer.account_id)] == [False, True, False]


async def test_looks_at_a_bounded_number_of_items(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 10_000)
    jobs = jobs_of(engine)
    for _ in range(3):
        await jobs.accept(new_job(customer))
    await sql.execute(
        "INSERT INTO pgqueuer (priority, entrypoint, payload, status, execute_after)"
        " SELECT 1, entrypoint, payload, status, execute_after FROM pgqueuer, generate_series(1, 9999)"
        f" LIMIT {ITEMS_MAX}"
    )

    assert await PostgresCrowds(engine).put_off_submissions(customer.account_id, 30, 2, OWN_PAUSE) == ITEMS_MAX
    assert await PostgresCrowds(engine).put_off_submissions(customer.account_id, 30, 2, OWN_PAUSE) == 3
