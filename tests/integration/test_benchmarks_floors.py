"""What the benchmarks write past the service must be what the service itself could have written."""

from pathlib import Path

import httpx
from fastapi import FastAPI

from app.domain.keys import digest_of
from benchmarks.floor import nothing_app, unbatched_app
from benchmarks.pgbench import pgbench
from benchmarks.rows import ACCEPT_BODY, ACCEPT_PATH
from benchmarks.seed import ACCOUNTS, JOBS_OF_EACH_ACCOUNT, add_jobs, add_users
from tests.builders import Connection, connect


def http_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://floor")


async def violations(connection: Connection) -> list[tuple[str, str]]:
    return [tuple(row) for row in await connection.fetch("SELECT invariant, subject FROM ledger_violations")]


async def test_the_books_are_right_after_filling(database: str) -> None:
    async with connect(database) as connection:
        users = await add_users(connection)
        await add_jobs(connection, 50, accounts=1)

        of_each = await connection.fetch("SELECT count(*) FROM jobs GROUP BY account_id ORDER BY 1")
        assert [row["count"] for row in of_each] == [JOBS_OF_EACH_ACCOUNT] * (ACCOUNTS - 1) + [
            JOBS_OF_EACH_ACCOUNT + 50
        ]
        assert len({user.job_id for user in users}) == ACCOUNTS
        (counted,) = await connection.fetch("SELECT (SELECT count(*) FROM jobs), count(stored_at) FROM outputs")
        assert counted[0] == counted[1] == ACCOUNTS * JOBS_OF_EACH_ACCOUNT + 50
        assert await violations(connection) == []


async def test_pgbench_writes_a_job_with_its_debit_and_its_queue_item(database: str, tmp_path: Path) -> None:
    async with connect(database) as connection:
        await add_users(connection)
        before = await connection.fetchval("SELECT count(*) FROM jobs")

        figures = await pgbench(database, 4, 1.0, tmp_path)

        added = await connection.fetchval("SELECT count(*) FROM jobs") - before
        assert added == figures["count"] > 0
        assert added == await connection.fetchval(
            "SELECT count(*) FROM jobs JOIN pgqueuer ON dedupe_key = 'generation.submit:' || jobs.id"
            " AND payload = uuid_send(jobs.id) WHERE jobs.status = 'QUEUED'"
        )
        assert await violations(connection) == []


async def test_the_accept_without_batching_is_paid_and_queued_by_the_owner_of_the_key(database: str) -> None:
    app = unbatched_app(database)
    async with connect(database) as connection, app.router.lifespan_context(app):
        user = (await add_users(connection))[7]
        async with http_of(app) as http:
            answer = await http.post(ACCEPT_PATH, json=ACCEPT_BODY, headers=user.headers)
            stranger = await http.post(ACCEPT_PATH, json=ACCEPT_BODY, headers={"X-API-Key": "tgk_stranger"})

        assert (answer.status_code, stranger.status_code) == (202, 401)
        owner = await connection.fetchval(
            "SELECT k.digest FROM jobs j JOIN api_keys k USING (account_id) JOIN pgqueuer ON payload = uuid_send(j.id)"
            " WHERE j.id = $1::text::uuid",
            answer.json()["job_id"],
        )
        assert owner == digest_of(user.api_key)
        assert await violations(connection) == []


async def test_what_does_nothing_checks_the_body_and_answers_what_it_was_given() -> None:
    async with http_of(nothing_app({"accept": '{"job_id": "the same"}'})) as http:
        right = await http.post(ACCEPT_PATH, json=ACCEPT_BODY)
        wrong = [
            await http.post(ACCEPT_PATH, json=body)
            for body in ({}, {"prompt": " "}, {"prompt": "x", "num_images": 5}, {"prompt": "x", "unknown": 1})
        ]

    assert (right.status_code, right.text) == (202, '{"job_id": "the same"}')
    assert [answer.status_code for answer in wrong] == [422] * 4
