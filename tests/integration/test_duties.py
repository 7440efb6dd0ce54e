"""A runner's duties: each lane and the housekeeping beat, what is stuck is named; and the queue's table stays small."""

import asyncio
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.duties import HOUSEKEEPING
from app.application.execution.steps import LOOKS, SUBMISSIONS, SUBMIT_JOB
from app.domain.jobs import JobStatus
from app.infrastructure.background import items as items_module
from app.infrastructure.background import lanes as lanes_module
from app.infrastructure.background import runner as runner_module
from app.infrastructure.postgres import tidying as tidying_module
from app.infrastructure.postgres.tidying import Tidying
from tests.builders import Connection, accept_job, job_in, jobs_of, open_account, until
from tests.integration.test_runner import Calls, running, two_at_once, wait_until_working


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "DEQUEUE_TIMEOUT_SECONDS", 0.1)


@pytest.mark.alone
async def test_a_runner_does_all_its_duties_and_none_when_it_is_stopped(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "LANE_SECONDS", 1.0)
    async with running(database, Calls()) as runner:
        await wait_until_working(runner)
        await asyncio.sleep(1.5)

        assert set(runner.duties.alive) == {LOOKS.name, SUBMISSIONS.name, HOUSEKEEPING}
        assert (await runner.check()).ok
    assert list(runner.duties.alive) == []


async def test_a_lane_whose_places_are_all_taken_for_good_is_named(
    engine: AsyncEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items_module, "JAMMED_SECONDS", 0.2)
    monkeypatch.setattr(runner_module, "LANE_SECONDS", 0.5)
    customer, calls, is_over = await open_account(engine, 100), Calls(), asyncio.Event()
    for _ in range(3):
        await accept_job(engine, customer)

    async def hang(_: UUID) -> None:
        await is_over.wait()

    async with running(database, calls, submit=hang, submit_step=two_at_once(SUBMIT_JOB)) as runner:

        async def is_dead() -> bool:
            return list(runner.duties.dead) == [SUBMISSIONS.name]

        await until(is_dead)
        check = await runner.check()
        is_over.set()
        await wait_until_working(runner)

    assert not check.ok
    assert check.detail == "these hang: submissions; restart the process"


@pytest.mark.alone
async def test_a_lane_that_is_full_and_moves_does_its_duty(
    engine: AsyncEngine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items_module, "JAMMED_SECONDS", 0.4)
    monkeypatch.setattr(runner_module, "LANE_SECONDS", 0.5)
    customer, calls = await open_account(engine, 100), Calls()
    jobs = [await accept_job(engine, customer) for _ in range(10)]

    async def work(_: UUID) -> None:
        await asyncio.sleep(0.2)

    async with running(database, calls, submit=work, submit_step=two_at_once(SUBMIT_JOB)) as runner:
        await wait_until_working(runner)
        while len(calls.seen[SUBMIT_JOB]) < len(jobs):
            assert list(runner.duties.dead) == []
            await asyncio.sleep(0.02)


async def test_the_dead_rows_of_the_queue_are_taken_away(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sql.execute(
        "INSERT INTO pgqueuer (priority, entrypoint, status) SELECT 0, 'other', 'queued' FROM generate_series(1, 5000)"
    )
    await sql.execute("DELETE FROM pgqueuer WHERE entrypoint = 'other'")
    await sql.execute("SELECT pg_stat_force_next_flush()")

    async def dead_rows() -> int:
        return int(await sql.fetchval("SELECT pg_stat_get_dead_tuples('pgqueuer'::regclass)"))

    async def are_counted() -> bool:
        return await dead_rows() >= 5_000

    await until(are_counted)
    await Tidying(engine)()

    async def are_gone() -> bool:
        return await dead_rows() < 100

    await until(are_gone)
    # Nothing to do, and nothing done.
    monkeypatch.setattr(tidying_module, "VACUUM", "this is no statement")
    await Tidying(engine)()


async def test_an_ended_job_keeps_the_id_of_its_request_and_no_urls(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    followed = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    query = "SELECT fal_request_id, fal_status_url, fal_response_url, fal_cancel_url FROM jobs WHERE id = $1"
    unfinished = await sql.fetchrow(query, followed)

    ended = await job_in(engine, customer, JobStatus.COMPLETED)
    final = await sql.fetchrow(query, ended)
    state = await jobs_of(engine).load(ended)

    assert unfinished is not None
    assert final is not None
    # A process of the release before may be the one that looks.
    assert all(unfinished.values())
    assert final["fal_request_id"]
    assert list(final.values())[1:] == [None] * 3
    assert state is not None
    assert state.request is not None
    assert state.request.id == final["fal_request_id"]
