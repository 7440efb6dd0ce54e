"""Jobs that a release before completed, which knew no rows of outputs, and results that came too late."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import COPY_OUTPUTS
from app.bootstrap.steps import lost_steps
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.media.older import PostgresOlderMedia
from tests.builders import RESULT, Connection, accept_job, job_in, open_account

MEDIA_DAYS = 30


async def completed_before(sql: Connection, engine: AsyncEngine, days_ago: int) -> UUID:
    job_id = await job_in(engine, await open_account(engine, 5), JobStatus.COMPLETED)
    await sql.execute("DELETE FROM outputs WHERE job_id = $1", job_id)
    await sql.execute("DELETE FROM pgqueuer")
    await sql.execute("UPDATE jobs SET updated_at = $2 WHERE id = $1", job_id, datetime.now(UTC) - timedelta(days_ago))
    return job_id


async def days_left(sql: Connection, job_id: UUID) -> float:
    seconds: float = await sql.fetchval(
        "SELECT extract(epoch FROM expires_at - now())::float FROM outputs WHERE job_id = $1", job_id
    )
    return round(seconds / 86_400, 2)


async def test_older_jobs_keep_their_outputs_and_have_them_copied(engine: AsyncEngine, sql: Connection) -> None:
    recent = await completed_before(sql, engine, 10)
    old = await completed_before(sql, engine, 300)
    older = PostgresOlderMedia(engine, MEDIA_DAYS)

    assert [await older.keep() for _ in range(3)] == [2, 0, 0]

    assert await days_left(sql, recent) == 20
    assert await days_left(sql, old) == 3
    assert set((await lost_steps(engine).requeue_lost())[COPY_OUTPUTS]) == {recent, old}


async def test_what_has_rows_gets_no_others(engine: AsyncEngine, sql: Connection) -> None:
    job_id = await job_in(engine, await open_account(engine, 5), JobStatus.COMPLETED)
    await job_in(engine, await open_account(engine, 5), JobStatus.FAILED)
    await accept_job(engine, await open_account(engine, 5))

    assert await PostgresOlderMedia(engine, MEDIA_DAYS).keep() == 0

    rows = await sql.fetch("SELECT job_id, number FROM outputs")
    assert [tuple(row) for row in rows] == [(job_id, 0)]


async def test_two_walks_at_once_keep_each_output_once(engine: AsyncEngine, sql: Connection) -> None:
    for _ in range(3):
        await completed_before(sql, engine, 1)

    walks = [PostgresOlderMedia(engine, MEDIA_DAYS) for _ in range(2)]

    assert sum(await asyncio.gather(*(walk.keep() for walk in walks))) == 3


async def test_a_late_result_loses_its_urls_once_it_is_as_old_as_media_become(
    engine: AsyncEngine, sql: Connection
) -> None:
    job_id = await job_in(engine, await open_account(engine, 5), JobStatus.FAILED)
    await sql.execute("UPDATE jobs SET late_result = $2 WHERE id = $1", job_id, json.dumps(RESULT))
    older = PostgresOlderMedia(engine, MEDIA_DAYS)

    assert await older.forget_late_results() == 0
    await sql.execute("UPDATE jobs SET updated_at = now() - interval '31 days' WHERE id = $1", job_id)
    assert [await older.forget_late_results() for _ in range(2)] == [1, 0]

    assert json.loads(await sql.fetchval("SELECT late_result FROM jobs WHERE id = $1", job_id)) == {
        "images": [{"url": None}]
    }
