"""What a database that fails looks like from the inside: DatabaseUnavailable, and nothing else."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.keys import new_key
from app.application.ports.health import Check
from app.domain.accounts import ALL_SCOPES
from app.domain.budgets import NO_LIMITS
from app.domain.errors import DatabaseUnavailable, InsufficientBalance, JobFinished, JobNotFound
from app.domain.jobs import JobStatus, Outcome
from app.domain.keys import KeySettings, NewKey, digest_of, stored_form
from app.infrastructure.postgres import database as database_module
from app.infrastructure.postgres.accounts import PostgresAccountRecords
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.evidence import PostgresLostSubmissions
from app.infrastructure.postgres.health import database_check, migrations_check
from app.infrastructure.postgres.heartbeats import Heartbeats
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.keys.management import PostgresKeyManagement
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.migrations import current_revision
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import (
    TABLES,
    Connection,
    Customer,
    balance_of,
    connect,
    database_copy,
    jobs_of,
    new_job,
    open_account,
    payment,
    provider_request,
    provider_wait,
    until,
)

NOBODY = Customer(uuid4(), uuid4(), new_key())
A_KEY = NewKey(id=uuid4(), settings=KeySettings(name="a key", scopes=ALL_SCOPES), secret=stored_form(new_key()))
JOB_ID = uuid4()

# Every operation that talks to the database. None of them needs what it names to exist: it is cut off before.
OPERATIONS: dict[str, Callable[[AsyncEngine], Awaitable[object]]] = {
    "find_by_key": lambda engine: PostgresKeys(engine).find_by_key(digest_of(NOBODY.api_key)),
    "add_first_key": lambda engine: PostgresKeys(engine).add_first_key(uuid4(), stored_form(new_key())),
    "replace_key": lambda engine: PostgresKeys(engine).replace_key(uuid4(), stored_form(new_key()), None),
    "revoke_key": lambda engine: PostgresKeys(engine).revoke_keys(uuid4()),
    "live_keys": lambda engine: PostgresKeyManagement(engine).live(NOBODY.account_id),
    "create_key": lambda engine: PostgresKeyManagement(engine).create(NOBODY.account_id, A_KEY, None),
    "change_key": lambda engine: PostgresKeyManagement(engine).change(NOBODY.account_id, A_KEY.id, {"name": "a"}, None),
    "rotate_key": lambda engine: PostgresKeyManagement(engine).rotate(
        NOBODY.account_id, A_KEY.id, stored_form(new_key()), overlap_seconds=0, by=None
    ),
    "delete_key": lambda engine: PostgresKeyManagement(engine).delete(NOBODY.account_id, A_KEY.id, None),
    "end_own_key": lambda engine: PostgresKeyManagement(engine).end_own(NOBODY.account_id, A_KEY.id),
    "limits": lambda engine: PostgresAccountRecords(engine, NO_LIMITS, 0).set_limits(uuid4(), {"weight": 2}),
    "credit": lambda engine: PostgresPayments(engine).credit(payment(uuid4(), 7)),
    "violations": lambda engine: PostgresLedger(engine).violations(),
    "accept": lambda engine: jobs_of(engine).accept(new_job(NOBODY)),
    "get": lambda engine: jobs_of(engine).get(NOBODY.account_id, JOB_ID),
    "list": lambda engine: jobs_of(engine).page(NOBODY.account_id, limit=1, offset=0),
    "request_cancel": lambda engine: jobs_of(engine).request_cancel(NOBODY.account_id, JOB_ID),
    "claim": lambda engine: jobs_of(engine).claim(JOB_ID, uuid4()),
    "release": lambda engine: jobs_of(engine).release(JOB_ID, uuid4(), provider_wait("busy")),
    "record_submission": lambda engine: jobs_of(engine).record_submission(JOB_ID, uuid4(), provider_request()),
    "record_submit_unknown": lambda engine: jobs_of(engine).record_submit_unknown(JOB_ID, uuid4(), "lost"),
    "load": lambda engine: jobs_of(engine).load(JOB_ID),
    "record_progress": lambda engine: jobs_of(engine).record_progress(JOB_ID, JobStatus.IN_QUEUE),
    "record_cancel_sent": lambda engine: jobs_of(engine).record_cancel_sent(JOB_ID),
    "settle": lambda engine: jobs_of(engine).settle(JOB_ID, Outcome.canceled()),
    "newest": lambda engine: jobs_of(engine).newest(unfinished_only=True, limit=1),
    "inspect": lambda engine: jobs_of(engine).inspect(JOB_ID),
    "load_lost_submission": lambda engine: PostgresLostSubmissions(engine).load(JOB_ID),
    "known": lambda engine: PostgresLostSubmissions(engine).known(["r"]),
    "has_rival": lambda engine: PostgresLostSubmissions(engine).has_rival(JOB_ID, timedelta(seconds=150)),
    "requeue_lost": lambda engine: jobs_of(engine).requeue_lost(),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())

OURS = "FROM pg_stat_activity WHERE application_name = 'tollgate' AND datname = current_database()"


@pytest.fixture(scope="module")
def shared_database(postgres_dsn: str, template_database: str) -> Iterator[str]:
    """For tests whose operation is cut off before it writes anything."""
    with database_copy(postgres_dsn, template_database) as dsn:
        yield dsn


async def terminate(sql: Connection) -> int:
    return len(await sql.fetch(f"SELECT pg_terminate_backend(pid) {OURS}"))


async def waiting_for(sql: Connection, kind: str) -> bool:
    return bool(await sql.fetchval(f"SELECT count(*) {OURS} AND wait_event_type = '{kind}'"))


@asynccontextmanager
async def everything_locked(dsn: str) -> AsyncIterator[None]:
    async with connect(dsn) as blocker, blocker.transaction():
        await blocker.execute(f"LOCK TABLE {', '.join(TABLES)} IN ACCESS EXCLUSIVE MODE")
        yield


@every_operation
async def test_says_unavailable_when_its_connection_is_killed_at_work(
    shared_database: str, operation: Callable[[AsyncEngine], Awaitable[object]]
) -> None:
    async with (
        open_engine(shared_database) as engine,
        connect(shared_database) as sql,
        everything_locked(shared_database),
    ):
        task = asyncio.ensure_future(operation(engine))
        await until(lambda: waiting_for(sql, "Lock"))

        killed = await terminate(sql)

        with pytest.raises(DatabaseUnavailable):
            await task

    assert killed == 1


@pytest.mark.alone
@every_operation
async def test_says_unavailable_when_nobody_listens(
    operation: Callable[[AsyncEngine], Awaitable[object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    began_seconds = time.monotonic()

    async with open_engine(f"postgresql://postgres@/postgres?host={tmp_path_factory.getbasetemp()}") as engine:
        with pytest.raises(DatabaseUnavailable):
            await operation(engine)

    assert time.monotonic() - began_seconds < 5


async def test_says_unavailable_when_the_port_is_closed() -> None:
    async with open_engine("postgresql://postgres@127.0.0.1:1/postgres") as engine:
        with pytest.raises(DatabaseUnavailable):
            await current_revision(engine)


@pytest.mark.alone
async def test_says_unavailable_within_5_seconds_when_the_server_accepts_and_is_silent() -> None:
    is_over = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        began_seconds = time.monotonic()

        async with open_engine(f"postgresql://postgres@127.0.0.1:{port}/postgres") as engine:
            with pytest.raises(DatabaseUnavailable):
                await current_revision(engine)

        assert time.monotonic() - began_seconds < 5
        is_over.set()


async def test_says_unavailable_when_the_pool_is_exhausted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "POOL_WAIT_SECONDS", 0.1)
    async with open_engine(database, pool_size=2) as engine, AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(engine.connect())

        async with asyncio.timeout(20):
            with pytest.raises(DatabaseUnavailable):
                await PostgresLedger(engine).violations()


async def test_no_connection_outlives_its_engine(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that nobody has given back in time."""
    monkeypatch.setattr(database_module, "RETURN_SECONDS_MAX", 0.01)

    async with open_engine(database) as engine:
        kept = await engine.connect()
        driver = (await kept.get_raw_connection()).driver_connection
        assert driver is not None
        assert not driver.is_closed()

    assert driver.is_closed()
    await kept.invalidate()


async def test_says_unavailable_when_an_account_stays_locked(
    database: str, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module.SESSION_SETTINGS, "lock_timeout", "100ms")
    async with open_engine(database) as engine:
        customer = await open_account(engine, 7)
        async with sql.transaction():
            await sql.execute("SELECT FROM accounts FOR UPDATE")

            with pytest.raises(DatabaseUnavailable):
                await PostgresPayments(engine).credit(payment(customer.external_user_id, 7))

        assert await balance_of(engine, customer) == 7


async def test_says_unavailable_when_a_statement_takes_too_long(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database_module.SESSION_SETTINGS, "statement_timeout", "100ms")
    async with open_engine(database) as engine, everything_locked(database):
        with pytest.raises(DatabaseUnavailable):
            await PostgresPayments(engine).credit(payment(uuid4(), 7))


async def test_says_unavailable_when_the_database_only_reads(engine: AsyncEngine, sql: Connection) -> None:
    await sql.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database());"
        " END $$"
    )

    with pytest.raises(DatabaseUnavailable):
        await PostgresPayments(engine).credit(payment(uuid4(), 7))


async def test_credits_once_when_the_answer_to_the_commit_is_lost_and_the_event_comes_again(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine)
    payments, event = PostgresPayments(engine), payment(customer.external_user_id, 7)
    await sql.execute(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON ledger_entries"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION linger()"
    )
    task = asyncio.ensure_future(payments.credit(event))
    await until(lambda: waiting_for(sql, "Timeout"))

    # The repeated try, too, would linger until the time limit of its statement.
    while not task.done():
        await terminate(sql)
        await asyncio.sleep(0.05)
    with pytest.raises(DatabaseUnavailable):
        await task
    await sql.execute("DROP TRIGGER slow_commit ON ledger_entries")
    credited = await payments.credit(event)

    assert credited
    assert await balance_of(engine, customer) == 7
    assert await PostgresLedger(engine).violations() == []


async def test_works_again_at_once_after_every_idle_connection_was_killed(database: str, sql: Connection) -> None:
    async with open_engine(database, pool_size=5) as engine:
        customer = await open_account(engine, 7)
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(engine.connect()) for _ in range(5)))
        assert await terminate(sql) == 5

        failures = 0
        try:
            await balance_of(engine, customer)
        except DatabaseUnavailable:
            failures += 1
        balances = [await balance_of(engine, customer) for _ in range(5)]

    assert balances == [7] * 5
    assert failures <= 1


async def test_every_operation_succeeds_or_says_unavailable_while_connections_die(
    database: str, sql: Connection
) -> None:
    """Eight customers at work for a while, and every few milliseconds all connections are gone."""
    # What a customer may also hear: an operation that said it failed had happened after all.
    expected = (InsufficientBalance, JobFinished, JobNotFound)
    is_over = asyncio.Event()
    answered, unavailable = 0, 0

    async def attempt(operation: Awaitable[object]) -> object:
        nonlocal answered, unavailable
        try:
            answer = await operation
        except DatabaseUnavailable:
            unavailable += 1
            return None
        except expected:
            return None
        answered += 1
        return answer

    async def live(engine: AsyncEngine, customer: Customer) -> None:
        keys, payments, jobs = PostgresKeys(engine), PostgresPayments(engine), jobs_of(engine)
        while not is_over.is_set():
            job, attempt_token = new_job(customer), uuid4()
            await attempt(payments.credit(payment(customer.external_user_id, 5)))
            await attempt(jobs.accept(job))
            await attempt(jobs.claim(job.id, attempt_token))
            # Nobody settles as completed what was never submitted, and the schema refuses it.
            is_submitted = await attempt(jobs.record_submission(job.id, attempt_token, provider_request()))
            endings = [Outcome.canceled(), Outcome.completed({})] if is_submitted else [Outcome.canceled()]
            await attempt(jobs.record_progress(job.id, JobStatus.IN_PROGRESS))
            await attempt(jobs.request_cancel(customer.account_id, job.id))
            await attempt(jobs.settle(job.id, random.choice(endings)))
            await attempt(jobs.page(customer.account_id, limit=5, offset=0))
            await attempt(keys.replace_key(customer.external_user_id, stored_form(new_key()), None))
            await attempt(keys.find_by_key(digest_of(customer.api_key)))

    async def kill() -> None:
        for _ in range(40):
            await asyncio.sleep(random.uniform(0.005, 0.05))
            await terminate(sql)
        is_over.set()

    async with open_engine(database, pool_size=8) as engine:
        customers = [await open_account(engine, 20) for _ in range(8)]
        await asyncio.gather(kill(), *(live(engine, customer) for customer in customers))
        violations = await until_answered(engine)

    assert violations == []
    assert answered > 0
    assert unavailable > 0


async def until_answered(engine: AsyncEngine) -> object:
    """The first answer after the last kill; a connection of the pool may still be a dead one."""
    for _ in range(20):
        try:
            return await PostgresLedger(engine).violations()
        except DatabaseUnavailable:
            continue
    raise AssertionError("the database stayed away")


async def test_the_checks_tell_an_outage_and_a_missing_migration(database: str, empty_database: str) -> None:
    seen: dict[str, list[Check]] = {}

    for name, dsn in {
        "ready": database,
        "empty": empty_database,
        "away": "postgresql://postgres@127.0.0.1:1/postgres",
    }.items():
        async with open_engine(dsn) as engine:
            heartbeats = Heartbeats(engine, list)
            seen[name] = [await database_check(engine, heartbeats)(), await migrations_check(engine)()]

    assert {name: [check.ok for check in checks] for name, checks in seen.items()} == {
        "ready": [True, True],
        "empty": [True, False],
        "away": [False, False],
    }
