"""The log of events: nothing that is committed is missing, and a reader's place in it never has a gap behind it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.events import Event, EventsForgotten
from app.domain.jobs import JobStatus
from app.domain.reversals import ReversalEvent
from app.infrastructure.postgres.database import driver_connection, open_engine
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.events import _PLACES, old_events
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.reversals import PostgresReversals
from tests.builders import (
    Connection,
    Customer,
    accept_job,
    blocked,
    connect,
    event_log_of,
    job_in,
    jobs_of,
    open_account,
    payment,
    until,
)

NOTE = "INSERT INTO event_inbox (account_id, type) VALUES ($1, $2)"


@pytest.fixture
async def other(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        yield connection


async def read_all(engine: AsyncEngine, account_id: UUID, after: int | None = None) -> Sequence[Event]:
    log = event_log_of(engine)
    return (await log.page(account_id, after=after, types=(), job_id=None, limit=100)).events


async def types_of(engine: AsyncEngine, customer: Customer) -> Sequence[str]:
    await EventSequencer(engine).move()
    return [event.type for event in await read_all(engine, customer.account_id)]


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
async def test_a_job_is_told_of_when_it_is_accepted_and_when_it_ends(engine: AsyncEngine, status: JobStatus) -> None:
    customer = await open_account(engine, 100)

    job_id = await job_in(engine, customer, status)

    await EventSequencer(engine).move()
    credited, submitted, ended = await read_all(engine, customer.account_id)
    assert credited.type == "balance.credited"
    assert credited.entry is not None
    assert credited.entry.amount == 100
    assert (submitted.type, ended.type) == ("generation.submitted", f"generation.{status.value.lower()}")
    assert submitted.job is not None
    assert ended.job is not None
    assert submitted.job.id == ended.job.id == job_id
    assert (submitted.job.status, submitted.job.billing) == (JobStatus.QUEUED, None)
    assert (submitted.job.result, submitted.job.error_code, submitted.job.fal_request_id) == (None, None, None)
    assert ended.job == await jobs_of(engine).get(customer.account_id, job_id)


async def test_a_job_starts_once_however_often_fal_queues_it_again(engine: AsyncEngine) -> None:
    customer, jobs = await open_account(engine, 100), jobs_of(engine)
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)

    assert await jobs.record_progress(job_id, JobStatus.IN_QUEUE)
    assert await jobs.record_progress(job_id, JobStatus.IN_PROGRESS)

    await EventSequencer(engine).move()
    started = [event for event in await read_all(engine, customer.account_id) if event.type == "generation.started"]
    assert len(started) == 1
    assert started[0].job is not None
    assert started[0].job.status is JobStatus.IN_PROGRESS
    assert started[0].job.fal_request_id is not None


async def test_what_is_taken_back_and_given_is_told_of_with_its_entry(engine: AsyncEngine) -> None:
    customer = await open_account(engine)
    await PostgresPayments(engine).credit(payment(customer.external_user_id, 50, event_id="pay-1"))
    refund = ReversalEvent(source="webhook", event_id="refund-1", payment_event_id="pay-1", amount=20)
    assert await PostgresReversals(engine).record(refund)

    await EventSequencer(engine).move()
    credited, taken_back = await read_all(engine, customer.account_id)
    assert (credited.type, taken_back.type) == ("balance.credited", "balance.reversed")
    assert credited.entry is not None
    assert taken_back.entry is not None
    assert (credited.entry.balance_after, taken_back.entry.balance_after) == (50, 30)
    assert taken_back.entry.payment_event_id == "pay-1"


async def test_a_balance_that_falls_low_and_recovers_is_told_of_once_for_each_crossing(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 20)
    await sql.execute("UPDATE accounts SET balance_low_tokens = 12")

    for _ in range(3):
        await accept_job(engine, customer, cost_tokens=5)
    for _ in range(2):
        await PostgresPayments(engine).credit(payment(customer.external_user_id, 50))
    await sql.execute("UPDATE accounts SET balance_low_tokens = 500")
    await sql.execute("UPDATE accounts SET balance_low_tokens = 600")
    await sql.execute("UPDATE accounts SET balance_low_tokens = NULL")

    types = [kind for kind in await types_of(engine, customer) if kind in ("balance.low", "balance.recovered")]
    assert types == ["balance.low", "balance.recovered", "balance.low"]


async def test_what_is_rolled_back_never_happened(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine)
    own = sql.transaction()
    await own.start()
    await sql.execute(NOTE, customer.account_id, "generation.submitted")
    await own.rollback()

    assert await types_of(engine, customer) == []


async def test_a_reader_misses_nothing_that_commits_late(
    engine: AsyncEngine, sql: Connection, other: Connection
) -> None:
    """The row with the smaller id commits after a reader has read the one with the larger id."""
    customer, sequencer = await open_account(engine), EventSequencer(engine)
    early = sql.transaction()
    await early.start()
    await sql.execute(NOTE, customer.account_id, "first.written")
    await other.execute(NOTE, customer.account_id, "second.written")

    assert await sequencer.move() == 1
    (seen,) = await read_all(engine, customer.account_id)
    await early.commit()
    assert await sequencer.move() == 1

    (late,) = await read_all(engine, customer.account_id, seen.seq)
    assert (seen.type, late.type) == ("second.written", "first.written")


async def test_a_transaction_that_stays_open_holds_up_nobody(
    engine: AsyncEngine, sql: Connection, other: Connection
) -> None:
    customer, sequencer = await open_account(engine), EventSequencer(engine)
    own = sql.transaction()
    await own.start()
    await sql.execute(NOTE, customer.account_id, "held")
    await sql.execute("SELECT * FROM accounts FOR UPDATE")

    for number in range(5):
        await other.execute(NOTE, customer.account_id, f"number.{number}")
        assert await sequencer.move() == 1
    await own.commit()
    await sequencer.move()

    types = [event.type for event in await read_all(engine, customer.account_id)]
    assert types == [*(f"number.{number}" for number in range(5)), "held"]


async def test_a_sequencer_that_dies_between_its_steps_loses_nothing(
    engine: AsyncEngine, sql: Connection, database: str
) -> None:
    customer = await open_account(engine)
    await sql.execute(NOTE, customer.account_id, "told")
    own = sql.transaction()
    await own.start()
    # It has taken what is in the inbox, and waits for the row that has the last number.
    await sql.execute("SELECT * FROM event_log FOR UPDATE")
    async with connect(database) as dying, connect(database) as watching:
        moving = asyncio.create_task(dying.fetchval("SELECT sequence_events(10)"))
        await blocked(watching)
        # Meanwhile nobody else does the same.
        assert await EventSequencer(engine).move() is None
        await watching.execute("SELECT pg_terminate_backend($1)", dying.get_server_pid())
        with pytest.raises(asyncpg.PostgresError):
            await moving
    await own.rollback()

    assert await types_of(engine, customer) == ["told"]


async def test_many_sequencers_and_writers_at_once_leave_one_gapless_order(crowd: AsyncEngine, database: str) -> None:
    """A reader that follows the whole time reads each event once, and those of one writer in their order."""
    customer = await open_account(crowd)
    writers, each = 8, 40
    is_over = asyncio.Event()

    async def write(name: int) -> None:
        async with connect(database) as connection:
            for number in range(each):
                async with connection.transaction():
                    await connection.execute(NOTE, customer.account_id, f"{name}.{number}")
                    await asyncio.sleep(0.001 * (name % 3))

    async def follow() -> list[Event]:
        found: list[Event] = []
        while len(found) < writers * each:
            found += await read_all(crowd, customer.account_id, found[-1].seq if found else None)
            await asyncio.sleep(0)
        return found

    async def sequence() -> None:
        while not is_over.is_set():
            await EventSequencer(crowd).move()

    sequencers = [asyncio.create_task(sequence()) for _ in range(4)]
    async with asyncio.timeout(60):
        found, *_ = await asyncio.gather(follow(), *(write(name) for name in range(writers)))
    is_over.set()
    await asyncio.gather(*sequencers)

    assert found == await everything(crowd, customer)
    for name in range(writers):
        own = [event.type for event in found if event.type.startswith(f"{name}.")]
        assert own == [f"{name}.{number}" for number in range(each)]


async def everything(engine: AsyncEngine, customer: Customer) -> list[Event]:
    found: list[Event] = []
    while page := await read_all(engine, customer.account_id, found[-1].seq if found else None):
        found += page
    return found


async def test_after_a_restore_new_events_have_larger_numbers_than_lost_ones(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer, sequencer = await open_account(engine), EventSequencer(engine)
    tables = ("event_inbox", "events", "event_log")
    await sql.execute(NOTE, customer.account_id, "kept")
    await sequencer.move()
    for table in tables:
        await sql.execute(f"CREATE TABLE backup_{table} AS TABLE {table}")
    await sql.execute(NOTE, customer.account_id, "lost")
    await sequencer.move()
    *_, seen = await read_all(engine, customer.account_id)

    for table in tables:
        await sql.execute(f"TRUNCATE {table}")
        await sql.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE backup_{table}")
    await sql.execute(NOTE, customer.account_id, "new")
    await sequencer.move()

    (new,) = await read_all(engine, customer.account_id, seen.seq)
    assert new.type == "new"


async def test_numbers_rise_where_the_clock_does_not(engine: AsyncEngine, sql: Connection) -> None:
    customer, sequencer = await open_account(engine), EventSequencer(engine)
    ahead = 2**52
    await sql.execute("UPDATE event_log SET last_seq = $1", ahead)
    for _ in range(2):
        await sql.execute(NOTE, customer.account_id, "told")
        await sequencer.move()

    assert [event.seq - ahead for event in await read_all(engine, customer.account_id)] == [1, 2]


async def test_a_place_behind_which_something_was_forgotten_is_told_of(engine: AsyncEngine, sql: Connection) -> None:
    customer, neighbour = await open_account(engine), await open_account(engine)
    log, sequencer = event_log_of(engine), EventSequencer(engine)
    await sql.execute(NOTE, customer.account_id, "read")
    await sequencer.move()
    (read,) = await read_all(engine, customer.account_id)
    await sql.execute(NOTE, customer.account_id, "missed")
    await sequencer.move()
    age = 40 * 24 * 60 * 60 * 1_000_000
    await sql.execute("UPDATE events SET seq = seq - $1", age)
    await sql.execute(NOTE, customer.account_id, "kept")
    await sequencer.move()

    assert await log.forget() == 2
    assert await log.forget() == 0

    with pytest.raises(EventsForgotten):
        await read_all(engine, customer.account_id, read.seq - age)
    assert [event.type for event in await read_all(engine, customer.account_id)] == ["kept"]
    assert [event.type for event in await read_all(engine, customer.account_id, read.seq)] == ["kept"]
    assert await read_all(engine, neighbour.account_id, 1) == []


async def test_a_process_puts_into_order_what_it_commits_at_once_and_what_others_left_soon(database: str) -> None:
    async with open_engine(database) as engine, connect(database) as sql:
        customer = await open_account(engine)
        await sql.execute(NOTE, customer.account_id, "left")
        async with EventSequencer(engine).working():
            await until(lambda: sql.fetchval("SELECT count(*) = 1 FROM events"))
            await PostgresPayments(engine).credit(payment(customer.external_user_id, 5))
            await until(lambda: sql.fetchval("SELECT count(*) = 2 FROM events"))
        # The last word of a process, which is not waited for.
        await PostgresPayments(engine).credit(payment(customer.external_user_id, 5))
        async with EventSequencer(engine).working():
            pass
        assert await sql.fetchval("SELECT count(*) FROM events") == 3


async def test_a_page_of_rare_events_goes_on_however_many_others_there_are(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.infrastructure.postgres.events.SCANNED_MAX", 10)
    customer, log = await open_account(engine), event_log_of(engine)
    for number in range(1, 96):
        await sql.execute(NOTE, customer.account_id, "rare" if number % 25 == 0 else "common")
    await EventSequencer(engine).move()

    found, after, pages = [], None, 0
    while True:
        page = await log.page(customer.account_id, after=after, types={"rare"}, job_id=None, limit=2)
        found += [event.type for event in page.events]
        after, pages = page.next_after, pages + 1
        if not page.has_more:
            break

    assert found == ["rare"] * 3
    assert pages == 10
    everything_read = await read_all(engine, customer.account_id, after)
    assert everything_read == []


async def test_old_events_are_found_by_their_index(sql: Connection, engine: AsyncEngine) -> None:
    customer = await open_account(engine)
    await sql.execute(
        "INSERT INTO events (seq, account_id, type, created_at)"
        " SELECT (extract(epoch FROM now()) * 1000000)::bigint + number, $1, 'told', now()"
        " FROM generate_series(1, 50000) AS number",
        customer.account_id,
    )
    await sql.execute("ANALYZE events")
    assert await event_log_of(engine).forget() == 0

    # The statement itself, as the service prepares it.
    compiled = old_events(30).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})  # type: ignore[no-untyped-call]
    plan = [row[0] for row in await sql.fetch(f"EXPLAIN {compiled}")]
    assert any("Index Cond" in line for line in plan), plan


async def test_places_are_looked_at_by_their_indexes_alone(sql: Connection, engine: AsyncEngine) -> None:
    customer = await open_account(engine)
    await sql.execute(
        "INSERT INTO events (seq, account_id, type, created_at)"
        " SELECT number, $1, 'told', now() FROM generate_series(1, 50000) AS number",
        customer.account_id,
    )
    await sql.execute("ANALYZE events")

    async with driver_connection(engine) as driver:
        rows = await driver.fetch(f"EXPLAIN {_PLACES.text}", [customer.account_id], [49_000])

    plan = [row[0] for row in rows]
    assert len([line for line in plan if "Index Cond" in line and "seq >" in line]) == 1, plan
    assert not any("Seq Scan" in line or "hashed" in line for line in plan), plan
