"""Places at fal: never more jobs there than allowed, over several services; none lost; the next one goes at once."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.jobs import JobStatus, NewJob
from app.infrastructure.background import lanes as lanes_module
from app.infrastructure.postgres.jobs.execution import PostgresJobExecution
from app.infrastructure.postgres.places import PostgresPlaces
from tests.builders import (
    OUTCOMES,
    Connection,
    Customer,
    accept_job,
    jobs_of,
    new_job,
    open_account,
    provider_request,
    until,
)
from tests.integration.fal_with_places import (
    CANCELED,
    FAILED,
    REFUSED,
    RELEASED,
    RUN,
    UNKNOWN,
    CountingFal,
    services,
    taken_places,
)
from tests.torture_report import report

SUBMIT = "generation.submit"
# How many jobs end in all ways; `make torture` takes thousands.
ENDS = int(os.environ.get("FAIR_ENDS", "400"))
OUTCOME = OUTCOMES[JobStatus.COMPLETED]


async def accept(engine: AsyncEngine, customer: Customer, how: str = RUN, *, expected_seconds: int = 10) -> UUID:
    job: NewJob = replace(new_job(customer, expected_seconds=expected_seconds), parameters={"prompt": how})
    return (await jobs_of(engine).accept(job)).job.id


async def statuses(sql: Connection) -> Mapping[str, int]:
    return {row[0]: row[1] for row in await sql.fetch("SELECT status, count(*) FROM jobs GROUP BY 1")}


async def all_are_final(sql: Connection) -> bool:
    return not await sql.fetchval("SELECT count(*) FROM jobs WHERE NOT is_final")


@pytest.mark.parametrize("places", [1, 3])
async def test_several_services_have_no_more_jobs_at_fal_than_there_are_places(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    # Each of them is woken for each place, and never looks by itself.
    monkeypatch.setattr(lanes_module, "DEQUEUE_TIMEOUT_SECONDS", 600)
    customers = [await open_account(engine, 1_000) for _ in range(3)]
    fal = CountingFal(engine, run_seconds=0.05)
    for customer in customers:
        await asyncio.gather(*(accept(engine, customer) for _ in range(20)))

    async with services(database, fal, places, places, places):
        await until(lambda: all_are_final(sql))

        assert fal.most == places
        assert await statuses(sql) == {"COMPLETED": 60}
        await until(lambda: _none_is_taken(sql))


async def _none_is_taken(sql: Connection) -> bool:
    return not await taken_places(sql)


@pytest.mark.timeout(300 + ENDS / 5)
async def test_no_place_is_lost_however_jobs_end(engine: AsyncEngine, database: str, sql: Connection) -> None:
    customers = [await open_account(engine, 10_000) for _ in range(8)]
    fal = CountingFal(engine, run_seconds=0.02)
    ways = [RUN, RUN, RUN, FAILED, CANCELED, REFUSED, RUN, RUN]

    async with services(database, fal, 5, 5):
        # Each account has one of those that fail, so that none of them pauses.
        await asyncio.gather(*(accept(engine, customer, RELEASED) for customer in customers[:2]))
        for begin in range(0, ENDS // 8, 50):
            numbers = range(begin, min(begin + 50, ENDS // 8))
            await asyncio.gather(*(accept(engine, each, ways[number % 8]) for each in customers for number in numbers))
        canceled = [await accept(engine, customers[0]) for _ in range(20)]
        for job_id in canceled:
            customer = customers[0]
            if (await jobs_of(engine).get(customer.account_id, job_id)).status is JobStatus.QUEUED:
                await jobs_of(engine).request_cancel(customer.account_id, job_id)
        await until(lambda: all_are_final(sql), seconds=60 + ENDS / 10)
        await until(lambda: _none_is_taken(sql))

    ended = await statuses(sql)
    report("places_given_up", {"ends": sum(ended.values()), **ended})
    assert fal.most <= 5
    assert await sql.fetch("SELECT * FROM ledger_violations") == []


@pytest.mark.alone
async def test_a_free_place_is_taken_at_once_and_nobody_polls_for_it(
    engine: AsyncEngine, database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that would look by itself would do so after minutes."""
    monkeypatch.setattr(lanes_module, "DEQUEUE_TIMEOUT_SECONDS", 600)
    customer = await open_account(engine, 1_000)
    fal = CountingFal(engine, run_seconds=0.3)

    async with services(database, fal, 1, 1):
        for _ in range(6):
            await accept(engine, customer)
        looked = await _looks_at_places(sql)
        await until(lambda: all_are_final(sql))
        looks = await _looks_at_places(sql) - looked

    waits = [begun - ended for (_, begun), ended in zip(fal.begun[1:], fal.ended, strict=False)]
    assert len(waits) == 5
    assert max(waits) < 0.1, waits
    assert fal.most == 1
    assert looks < 200


async def _looks_at_places(sql: Connection) -> int:
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    query = "SELECT sum(seq_scan + coalesce(idx_scan, 0))::int8 FROM pg_stat_user_tables WHERE relname = 'places'"
    return await sql.fetchval(query) or 0


async def test_the_next_one_goes_where_a_job_of_an_older_release_ends(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    """It claims without a place, and settles by its own statements: what it claimed is beyond the bound."""
    customer = await open_account(engine, 1_000)
    places = PostgresPlaces(engine, 1)
    await places.prepare()
    own = PostgresJobExecution(engine, needs_place=True)
    older, job_id, token = await accept_job(engine, customer), await accept_job(engine, customer), uuid4()
    assert await jobs_of(engine).claim(older, uuid4()) is not None
    assert await own.claim(job_id, token) is None
    await give(places, sql, job_id)
    assert await own.claim(job_id, token) is not None
    assert await own.claim(job_id, token) is not None

    await jobs_of(engine).record_submission(job_id, token, provider_request())
    assert await taken_places(sql) == 1
    heard: asyncio.Queue[str] = asyncio.Queue()
    await sql.add_listener(SUBMIT, lambda *said: heard.put_nowait(said[2]))
    # As the release before writes it.
    await sql.execute(
        "WITH ended AS (UPDATE jobs SET status = 'FAILED', error_code = 'x', error_message = 'x', refunded_tokens ="
        " cost_tokens WHERE id = $1 RETURNING *) INSERT INTO ledger_entries (account_id, kind, amount, job_id)"
        " SELECT account_id, 'REFUND', cost_tokens, id FROM ended",
        job_id,
    )

    assert await asyncio.wait_for(heard.get(), 20) == SUBMIT
    assert await taken_places(sql) == 0


async def give(places: PostgresPlaces, sql: Connection, *job_ids: UUID) -> list[int]:
    async with sql.transaction():
        numbers = list(await places.lock_free(sql.fetch, len(job_ids)))
        await places.give(sql.fetch, numbers, job_ids)
    return numbers


async def test_an_unknown_submission_holds_its_place_for_twice_the_typical_time(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer, places = await open_account(engine, 1_000), PostgresPlaces(engine, 1)
    await places.prepare()
    own = PostgresJobExecution(engine, needs_place=True)
    unknown, waiting = await accept(engine, customer, expected_seconds=7), await accept_job(engine, customer)
    token = uuid4()
    await give(places, sql, unknown)
    assert await own.claim(unknown, token) is not None
    assert await own.record_submit_unknown(unknown, token, "no answer")

    held = "SELECT extract(epoch FROM expires_at - claimed_at)::int FROM places WHERE job_id = $1"
    assert await sql.fetchval(held, unknown) == 14
    assert await give(places, sql, waiting) == []
    await sql.execute("UPDATE places SET expires_at = clock_timestamp() - interval '1 second'")
    assert await give(places, sql, waiting) == [1]
    assert await own.claim(waiting, uuid4()) is not None

    # Its own end comes late, and takes nobody's place.
    assert await jobs_of(engine).record_submission(unknown, token, provider_request())
    assert await jobs_of(engine).settle(unknown, OUTCOME)
    assert await sql.fetchval("SELECT job_id FROM places") == waiting


async def test_an_unknown_submission_that_is_found_keeps_its_place_to_its_end(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer, places = await open_account(engine, 1_000), PostgresPlaces(engine, 1)
    await places.prepare()
    own, job_id, token = PostgresJobExecution(engine, needs_place=True), await accept_job(engine, customer), uuid4()
    await give(places, sql, job_id)
    assert await own.claim(job_id, token) is not None
    assert await own.record_submit_unknown(job_id, token, "no answer")
    assert await own.record_submission(job_id, token, provider_request())

    assert await sql.fetchval("SELECT expires_at FROM places WHERE job_id = $1", job_id) is None
    assert await own.settle(job_id, OUTCOME)
    assert await taken_places(sql) == 0


async def test_a_place_that_was_given_and_not_claimed_comes_free(engine: AsyncEngine, sql: Connection) -> None:
    customer, places = await open_account(engine, 1_000), PostgresPlaces(engine, 2)
    await places.prepare()
    first, second = await accept_job(engine, customer), await accept_job(engine, customer)
    await give(places, sql, first, second)
    await places.give_back(first)
    assert await taken_places(sql) == 1

    own = PostgresJobExecution(engine, needs_place=True)
    assert await own.claim(first, uuid4()) is None
    assert await own.claim(second, uuid4()) is not None
    # The step of a job that is claimed gives nothing back.
    await places.give_back(second)
    assert await taken_places(sql) == 1

    third = await accept_job(engine, customer)
    await give(places, sql, third)
    await sql.execute("UPDATE places SET expires_at = clock_timestamp() WHERE job_id = $1", third)
    fourth = await accept_job(engine, customer)
    assert len(await give(places, sql, fourth)) == 1
    assert await own.claim(third, uuid4()) is None


async def test_what_is_looked_at_by_another_service_is_not_free(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    places = PostgresPlaces(engine, 2)
    await places.prepare()
    async with sql.transaction():
        assert await places.lock_free(sql.fetch, 1) == [1]
        async with engine.connect() as other:
            driver = (await other.get_raw_connection()).driver_connection
            assert driver is not None
            async with driver.transaction():
                assert await places.lock_free(driver.fetch, 5) == [2]


async def test_a_lower_bound_lets_nobody_go_until_fewer_are_there(engine: AsyncEngine, sql: Connection) -> None:
    customer, before = await open_account(engine, 1_000), PostgresPlaces(engine, 5)
    await before.prepare()
    own = PostgresJobExecution(engine, needs_place=True)
    jobs = [await accept_job(engine, customer) for _ in range(8)]
    await give(before, sql, *jobs[:5])
    for job_id in jobs[:5]:
        assert await own.claim(job_id, uuid4()) is not None

    after = PostgresPlaces(engine, 2)
    await after.prepare()
    free = []
    for ended in range(5):
        free.append(len(await lock(after, sql)))
        assert await own.settle(jobs[ended], OUTCOME)
    # Those in the first two places end first, and three are still beyond the bound then.
    assert free == [0, 0, 0, 0, 1]
    assert len(await lock(after, sql)) == 2
    # And a higher one has room at once.
    assert len(await lock(before, sql)) == 5


async def lock(places: PostgresPlaces, sql: Connection) -> list[int]:
    async with sql.transaction():
        return list(await places.lock_free(sql.fetch, 10))


async def test_the_item_of_a_job_that_has_its_place_does_not_wait_for_another_one(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    """Its process died after the claim, and all places are taken."""
    customer, places = await open_account(engine, 1_000), PostgresPlaces(engine, 1)
    await places.prepare()
    job_id = await accept_job(engine, customer)
    await give(places, sql, job_id)
    assert await PostgresJobExecution(engine, needs_place=True).claim(job_id, uuid4()) is not None
    await sql.execute("UPDATE jobs SET claimed_at = now() - interval '1 hour'")
    await sql.execute(
        "UPDATE pgqueuer SET status = 'picked', queue_manager_id = $1, heartbeat = now() - interval '1 hour'", uuid4()
    )
    await accept_job(engine, customer)
    fal = CountingFal(engine, run_seconds=0.05)

    async with services(database, fal, 1):
        # An hour is more than twice the time that it should take.
        await until(lambda: _has_ended(sql, 1))

    assert await sql.fetchval("SELECT submit_unknown_at IS NOT NULL FROM jobs WHERE id = $1", job_id)


async def _has_ended(sql: Connection, count: int) -> bool:
    return bool(await sql.fetchval("SELECT count(*) = $1 FROM jobs WHERE is_final", count))


@pytest.mark.alone
async def test_a_submission_whose_outcome_is_unknown_gives_way_in_time(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    customer, neighbour = await open_account(engine, 1_000), await open_account(engine, 1_000)
    fal = CountingFal(engine, run_seconds=0.05)
    await accept(engine, customer, UNKNOWN, expected_seconds=1)

    async with services(database, fal, 1):
        await until(lambda: _is_unknown(sql))
        await accept(engine, neighbour)
        await until(lambda: _has_ended(sql, 1))

    (_, first), (_, second) = fal.begun
    assert 2 <= second - first < 4


async def _is_unknown(sql: Connection) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM jobs WHERE submit_unknown_at IS NOT NULL"))


async def test_an_item_goes_with_a_place(engine: AsyncEngine, database: str, sql: Connection) -> None:
    """None is taken that would only have to go back."""
    customer, may_end = await open_account(engine, 1_000), asyncio.Event()
    fal = CountingFal(engine, run_seconds=0, may_end=may_end)
    await asyncio.gather(*(accept(engine, customer) for _ in range(8)))

    async with services(database, fal, 2, 2):
        await until(lambda: _have_begun(fal, 2))
        await asyncio.sleep(0.3)
        rows = await sql.fetch("SELECT status, attempts FROM pgqueuer WHERE entrypoint = $1", SUBMIT)
        may_end.set()
        await until(lambda: all_are_final(sql))

    assert {(row["status"], row["attempts"]) for row in rows} == {("queued", 0)}
    assert len(rows) == 6


async def _have_begun(fal: CountingFal, count: int) -> bool:
    return len(fal.begun) == count


async def test_without_a_bound_no_place_is_touched(engine: AsyncEngine, database: str, sql: Connection) -> None:
    customer, may_end = await open_account(engine, 1_000), asyncio.Event()
    fal = CountingFal(engine, run_seconds=0, may_end=may_end)
    await asyncio.gather(*(accept(engine, customer) for _ in range(30)))

    async with services(database, fal, 0, 0):
        await until(lambda: _have_begun(fal, 30))
        may_end.set()
        await until(lambda: all_are_final(sql))

    assert fal.most == 30
    # In this order: the count is a look as well.
    assert await _looks_at_places(sql) == 0
    assert await sql.fetchval("SELECT count(*) FROM places") == 0
