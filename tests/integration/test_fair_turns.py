"""Turns as the database gives them, by the rule of app/domain/turns.py, whatever becomes of the jobs."""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from alembic import command
from pgqueuer.adapters.persistence.qb import QueryQueueBuilder
from pgqueuer.types import QueueEntrypoint, QueueManagerId
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.turns import TAGS_PER_SECOND, Turns
from app.infrastructure.postgres.crowds import PostgresCrowds
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.jobs.acceptance import accept_all
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder
from app.infrastructure.postgres.migrations import migrate
from app.infrastructure.postgres.restores import PostgresRestoredJobs
from tests.builders import (
    OWN_PAUSE,
    Connection,
    Customer,
    accept_job,
    connect,
    jobs_of,
    new_job,
    open_account,
    provider_wait,
)
from tests.integration.test_migrations import ACCEPT_BEFORE_TERMS, ACCOUNT_BEFORE_KEYS, run_alembic

SECOND = TAGS_PER_SECOND
# Where the clock begins.
FIRST_TAG = 1


async def accept_together(engine: AsyncEngine, customers: Sequence[Customer], *seconds: int) -> list[UUID]:
    """In one transaction, in this order."""
    orders = [
        StorableOrder.of(new_job(customer, expected_seconds=each), None)
        for customer, each in zip(customers, seconds, strict=True)
    ]
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await accept_all(driver, orders)
    return [one.order.job.id for one in orders]


async def tags(sql: Connection, *job_ids: UUID) -> list[int]:
    return [await sql.fetchval("SELECT fair_tag FROM jobs WHERE id = $1", job_id) for job_id in job_ids]


async def next_tag(sql: Connection, customer: Customer) -> int | None:
    found: int | None = await sql.fetchval("SELECT next_tag FROM fair_turns WHERE account_id = $1", customer.account_id)
    return found


async def virtual_time(sql: Connection) -> int:
    now: int = await sql.fetchval("SELECT virtual_time FROM fair_clock")
    return now


async def waiting_in_turn(sql: Connection) -> list[UUID]:
    """As PgQueuer takes them."""
    query = "SELECT payload FROM pgqueuer WHERE entrypoint = 'generation.submit' ORDER BY priority DESC, id"
    return [UUID(bytes=row[0]) for row in await sql.fetch(query)]


@pytest.mark.parametrize("seed", range(3))
async def test_the_database_gives_the_tags_of_the_rule(engine: AsyncEngine, sql: Connection, seed: int) -> None:
    choice = random.Random(seed)
    customers = [await open_account(engine, 10_000) for _ in range(3)]
    weights = {customer.account_id: choice.choice([1, 7, 1000]) for customer in customers}
    for account_id, weight in weights.items():
        await sql.execute("UPDATE accounts SET weight = nullif($2, 1) WHERE id = $1", account_id, weight)
    come_to = dict.fromkeys(weights, 0)
    for _ in range(6):
        now = await virtual_time(sql) + choice.choice([0, 0, 40 * SECOND])
        await sql.execute("UPDATE fair_clock SET virtual_time = $1", now)
        batch = choice.choices(customers, k=choice.randint(1, 8))
        seconds = [choice.randint(1, 90) for _ in batch]

        job_ids = await accept_together(engine, batch, *seconds)

        for customer in customers:
            account_id = customer.account_id
            own = [(each, job_id) for each, job_id, who in zip(seconds, job_ids, batch, strict=True) if who is customer]
            if not own:
                continue
            turns = Turns.of(
                [each for each, _ in own],
                virtual_time=now,
                next_tag=come_to[account_id],
                weight=weights[account_id],
            )
            assert await tags(sql, *(job_id for _, job_id in own)) == turns.tags
            assert await next_tag(sql, customer) == turns.next_tag
            come_to[account_id] = turns.next_tag
    wrong = "SELECT count(*) FROM pgqueuer JOIN jobs ON id_of = jobs.id WHERE priority <> -fair_tag"
    assert await sql.fetchval(wrong.replace("id_of", "encode(payload, 'hex')::uuid")) == 0


async def test_accepts_of_one_account_that_race_get_turns_one_after_the_other(
    crowd: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(crowd, 1_000)

    await asyncio.gather(*(accept_together(crowd, [customer], 10) for _ in range(25)))

    given = [row[0] for row in await sql.fetch("SELECT fair_tag FROM jobs ORDER BY fair_tag")]
    assert given == [FIRST_TAG + number * 10 * SECOND for number in range(25)]


async def test_what_is_refused_takes_no_turn(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 1)

    await accept_together(engine, [customer], 10)

    assert await next_tag(sql, customer) is None


async def test_a_newcomer_goes_before_the_backlog_and_not_before_what_was_let_go(
    engine: AsyncEngine, sql: Connection
) -> None:
    crowd, newcomer = await open_account(engine, 1_000), await open_account(engine, 1_000)
    backlog = await accept_together(engine, [crowd] * 5, *[90] * 5)
    for job_id in backlog[:2]:
        assert await jobs_of(engine).claim(job_id, uuid4()) is not None
    assert [await virtual_time(sql)] == await tags(sql, backlog[1])

    newcomers = await accept_together(engine, [newcomer] * 2, 30, 100)

    assert await waiting_in_turn(sql) == [backlog[0], backlog[1], newcomers[0], newcomers[1], *backlog[2:]]
    # What was let go before does not turn the time back.
    assert await jobs_of(engine).claim(newcomers[0], uuid4()) is not None
    assert [await virtual_time(sql)] == await tags(sql, backlog[1])


async def test_a_job_keeps_its_turn_however_often_it_is_queued(engine: AsyncEngine, sql: Connection) -> None:
    customer, jobs = await open_account(engine, 1_000), jobs_of(engine)
    job_ids = await accept_together(engine, [customer] * 4, *[10] * 4)
    token = uuid4()
    assert await jobs.claim(job_ids[1], token) is not None
    assert await jobs.release(job_ids[1], token, provider_wait("busy"))
    before = await tags(sql, *job_ids)

    await sql.execute("DELETE FROM pgqueuer WHERE payload = ANY($1)", [job_ids[1].bytes, job_ids[2].bytes])
    assert set(await jobs.requeue_lost()) == set(job_ids[1:3])
    assert await waiting_in_turn(sql) == job_ids

    restored = PostgresRestoredJobs(engine, jobs)
    assert await restored.hold() == 4
    await sql.execute("DELETE FROM pgqueuer")
    assert await restored.release([]) == 4
    assert await waiting_in_turn(sql) == job_ids
    assert await tags(sql, *job_ids) == before


@pytest.mark.parametrize("order", ["first to last", "last to first", "any"])
async def test_of_jobs_that_are_started_and_canceled_no_turn_is_left(
    engine: AsyncEngine, sql: Connection, order: str
) -> None:
    customer, jobs = await open_account(engine, 1_000), jobs_of(engine)
    await sql.execute("UPDATE accounts SET weight = 7")
    (kept,) = await accept_together(engine, [customer], 10)
    before = await next_tag(sql, customer)
    job_ids = [
        *await accept_together(engine, [customer] * 20, *range(1, 21)),
        *await accept_together(engine, [customer] * 20, *range(1, 21)),
    ]
    if order == "last to first":
        job_ids.reverse()
    if order == "any":
        random.Random(1).shuffle(job_ids)

    for job_id in job_ids:
        await jobs.request_cancel(customer.account_id, job_id)

    after = await next_tag(sql, customer)
    assert before is not None
    assert after is not None
    assert 0 <= after - before <= 1
    (following,) = await accept_together(engine, [customer], 10)
    assert await tags(sql, kept, following) == [FIRST_TAG, after]


async def test_turns_in_front_of_jobs_that_wait_are_lost_with_their_jobs(engine: AsyncEngine, sql: Connection) -> None:
    """Given back they could be saved up, for many jobs at one moment before everybody else's."""
    customer, jobs = await open_account(engine, 1_000), jobs_of(engine)
    for _ in range(3):
        job_ids = await accept_together(engine, [customer] * 5, *[10] * 5)
        for job_id in job_ids[:-1]:
            await jobs.request_cancel(customer.account_id, job_id)

    live = [row[0] for row in await sql.fetch("SELECT fair_tag FROM jobs WHERE NOT is_final ORDER BY fair_tag")]
    assert all(later - earlier >= 10 * SECOND for earlier, later in pairwise(live))


async def test_a_turn_that_was_used_is_not_given_back(engine: AsyncEngine, sql: Connection) -> None:
    """Otherwise whoever starts and cancels one job after each that runs would always go next."""
    customer, jobs, token = await open_account(engine, 1_000), jobs_of(engine), uuid4()
    (job_id,) = await accept_together(engine, [customer], 10)
    assert await jobs.claim(job_id, token) is not None
    assert await jobs.release(job_id, token, provider_wait("busy"))
    await jobs.request_cancel(customer.account_id, job_id)
    assert await next_tag(sql, customer) == FIRST_TAG + 10 * SECOND

    (canceled,) = await accept_together(engine, [customer], 10)
    await jobs.request_cancel(customer.account_id, canceled)
    assert await next_tag(sql, customer) == FIRST_TAG + 10 * SECOND


async def test_what_the_release_before_accepts_has_its_turn(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 1_000)
    (first,) = await accept_together(engine, [customer], 10)
    await sql.execute(ACCEPT_BEFORE_TERMS, customer.account_id)
    older: UUID = await sql.fetchval("SELECT id FROM jobs WHERE terms IS NULL")
    await sql.execute(
        "INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status)"
        " VALUES (0, 'generation.submit', uuid_send($1), 'generation.submit:' || $1, 'queued')",
        older,
    )
    (last,) = await accept_together(engine, [customer], 10)

    assert await waiting_in_turn(sql) == [first, older, last]
    assert await sql.fetchval("SELECT expected_seconds FROM jobs WHERE id = $1", older) == 15
    assert await sql.fetchval("SELECT count(*) FROM pgqueuer JOIN jobs ON priority = -fair_tag") == 3


async def test_what_waits_when_the_schema_learns_of_turns_gets_one(empty_database: str) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision="0015"))
        crowd = await sql.fetchval(ACCOUNT_BEFORE_KEYS, bytes(32))
        other = await sql.fetchval(ACCOUNT_BEFORE_KEYS.replace("'event'", "'other'"), bytes([1] * 32))
        for account_id in [crowd] * 4 + [other]:
            await sql.execute(ACCEPT_BEFORE_TERMS, account_id)
        await sql.execute(
            "INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status)"
            " SELECT 0, 'generation.submit', uuid_send(id), 'generation.submit:' || id, 'queued'"
            " FROM jobs ORDER BY created_at"
        )

        await migrate(engine)

        turns = await waiting_in_turn(sql)
        whose = [await sql.fetchval("SELECT account_id FROM jobs WHERE id = $1", job_id) for job_id in turns]
        assert whose == [crowd, other, crowd, crowd, crowd]
        assert await sql.fetchval("SELECT next_tag FROM fair_turns WHERE account_id = $1", crowd) > 3 * 30 * SECOND


async def test_a_crowd_is_put_off_in_its_own_order(engine: AsyncEngine, sql: Connection) -> None:
    """Also where an item is a newer one than those behind it."""
    customer = await open_account(engine, 1_000)
    job_ids = await accept_together(engine, [customer] * 3, *[10] * 3)
    await sql.execute("DELETE FROM pgqueuer WHERE payload = $1", job_ids[0].bytes)
    await jobs_of(engine).requeue_lost()

    assert await PostgresCrowds(engine).put_off_submissions(customer.account_id, 30, 2, OWN_PAUSE) == 3

    query = "SELECT payload FROM pgqueuer ORDER BY execute_after"
    assert [UUID(bytes=row[0]) for row in await sql.fetch(query)] == job_ids


WAITING = 50_000
FILL = f"""
INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status, execute_after)
SELECT -number, 'generation.submit', uuid_send(id), 'generation.submit:' || id, 'queued', now() + $1::interval
  FROM (SELECT gen_random_uuid() AS id, number FROM generate_series(1, {WAITING}) AS number) AS job
"""


@pytest.mark.alone
@pytest.mark.parametrize("delay", ["-1 hour", "1 hour"], ids=["wait", "put off"])
async def test_an_item_is_taken_quickly_whatever_waits(
    engine: AsyncEngine, sql: Connection, database: str, delay: str
) -> None:

    hours = timedelta(hours=-1 if delay.startswith("-") else 1)
    await sql.execute(FILL, hours)
    customer = await open_account(engine, 1_000)
    await accept_job(engine, customer)
    query = QueryQueueBuilder().build_dequeue_query(
        batch_size=1,
        entrypoints=[QueueEntrypoint("generation.submit")],
        concurrency_limits=[0],
        queue_manager_id=QueueManagerId(uuid4()),
        global_concurrency_limit=96,
        heartbeat_timeout=timedelta(seconds=10),
    )
    await sql.fetch(query.sql, *query.args)
    began = time.monotonic()
    for _ in range(5):
        await sql.fetch(query.sql, *query.args)

    assert (time.monotonic() - began) / 5 < 0.1
