"""The migrations: up, down, all at once, and what they leave behind."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from uuid import UUID

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from pgqueuer.adapters.persistence.qb import QueryQueueBuilder
from pgqueuer.adapters.persistence.schema_ddl import render_install
from pgqueuer.domain.settings import DBSettings
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.cli.running import migrate_database
from app.domain.errors import DatabaseUnavailable
from app.domain.jobs import JobStatus
from app.infrastructure.postgres import database as database_module
from app.infrastructure.postgres import migrations
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.health import migrations_check
from app.infrastructure.postgres.migrations import VERSION_TABLE, current_revision, head_revision, migrate
from app.infrastructure.postgres.tables import BALANCE_LIMIT, metadata
from app.infrastructure.settings import load_settings
from tests.builders import blocked, connect, job_in, open_account, until

ALEMBIC_DIR = Path(__file__).resolve().parents[2] / "alembic"
VERSIONS_DIR = ALEMBIC_DIR / "versions"

SCHEMA = """
SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S')
UNION ALL SELECT 'function ' || proname || ' ' || prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'column ' || table_name || ' ' || column_name || ' ' || data_type || ' '
       || coalesce(column_default, '')
  FROM information_schema.columns WHERE table_schema = 'public'
"""
QUEUE_AT_WORK = """
INSERT INTO pgqueuer (priority, entrypoint, status) VALUES (0, 'generation.submit', 'queued'), (0, 'other', 'picked');
INSERT INTO pgqueuer_log (job_id, status, priority, entrypoint) VALUES (1, 'picked', 0, 'generation.submit');
"""
JOBS_BEFORE_TERMS = 2000
# A statement of the release before waits so long for a lock at most, on a machine that is busy.
ACCEPT_SECONDS_MAX = 2
ACCOUNT_BEFORE_KEYS = """
WITH account AS (
         INSERT INTO accounts (id, external_user_id) VALUES (gen_random_uuid(), gen_random_uuid()) RETURNING id),
     key AS (INSERT INTO api_keys (digest, account_id, hint) SELECT $1, id, 'tgk_1234' FROM account),
     event AS (INSERT INTO payment_events (source, event_id, account_id, amount)
               SELECT 'webhook', 'event', id, 1000000 FROM account RETURNING *)
INSERT INTO ledger_entries (account_id, kind, amount, payment_source, payment_event_id)
SELECT account_id, 'CREDIT', amount, source, event_id FROM event RETURNING account_id
"""
ACCEPT_BEFORE_TERMS = """
WITH job AS (
    INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
    VALUES (gen_random_uuid(), $1, 'TEXT_TO_IMAGE', 'fal-ai/wan-25-preview/text-to-image', '{}', 5, 1, 1200) RETURNING *
)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'DEBIT', cost_tokens, id FROM job
"""
MANY_JOBS_BEFORE_TERMS = ACCEPT_BEFORE_TERMS.replace(
    "VALUES (gen_random_uuid(), $1, 'TEXT_TO_IMAGE', 'fal-ai/wan-25-preview/text-to-image', '{}', 5, 1, 1200)",
    "SELECT gen_random_uuid(), $1, 'TEXT_TO_IMAGE', 'fal-ai/wan-25-preview/text-to-image', '{}', 5, 1, 1200"
    f" FROM generate_series(1, {JOBS_BEFORE_TERMS})",
)
# To SQLAlchemy, when it reads such a constraint.
NOT_VALID_IS_UNKNOWN = "ignore:Can't validate argument 'dialect_options'"
ALEMBIC_OWN = {
    "relation tollgate_version",
    "column tollgate_version version_num character varying ",
    "index CREATE UNIQUE INDEX tollgate_version_pkc ON public.tollgate_version USING btree (version_num)",
    "constraint tollgate_version tollgate_version_version_num_not_null NOT NULL version_num",
    "constraint tollgate_version tollgate_version_pkc PRIMARY KEY (version_num)",
}


def script_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(ALEMBIC_DIR))
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """From the first to the newest."""
    return [script.revision for script in ScriptDirectory.from_config(script_config()).walk_revisions()][::-1]


async def run_alembic(engine: AsyncEngine, act: Callable[[Config], object]) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(lambda connection: act(script_config(connection)))


async def schema(dsn: str) -> set[str]:
    async with connect(dsn) as sql:
        return {row[0] for row in await sql.fetch(SCHEMA)}


async def test_brings_an_empty_database_to_the_newest_revision(empty_database: str) -> None:
    async with open_engine(empty_database) as engine:
        assert await current_revision(engine) is None

        await migrate(engine)

        assert await current_revision(engine) == head_revision() == revisions()[-1]


async def test_migrating_again_changes_nothing(database: str) -> None:
    before = await schema(database)

    async with open_engine(database) as engine:
        await migrate(engine)

    assert await schema(database) == before


async def test_6_migrations_of_an_empty_database_at_once_all_succeed(empty_database: str, database: str) -> None:
    async def migrate_alone() -> str | None:
        async with open_engine(empty_database) as engine:
            await migrate(engine)
            return await current_revision(engine)

    reached = await asyncio.gather(*(migrate_alone() for _ in range(6)))

    assert reached == [head_revision()] * 6
    assert await schema(empty_database) == await schema(database)


async def test_every_revision_goes_up_down_and_up_again(empty_database: str) -> None:
    async with open_engine(empty_database) as engine:
        for revision in revisions():
            before = await schema(empty_database) | ALEMBIC_OWN
            await run_alembic(engine, partial(command.upgrade, revision=revision))
            first = await schema(empty_database)

            await run_alembic(engine, partial(command.downgrade, revision="-1"))
            down = await schema(empty_database)
            await run_alembic(engine, partial(command.upgrade, revision=revision))

            assert before == down != first, revision
            assert await schema(empty_database) == first, revision


@pytest.mark.alone
async def test_accepts_of_the_release_before_go_on_while_jobs_get_their_terms(empty_database: str) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision="0012"))
        account_id = await sql.fetchval(ACCOUNT_BEFORE_KEYS, bytes(32))
        await sql.execute(MANY_JOBS_BEFORE_TERMS, account_id)
        file_before, is_over = await sql.fetchval("SELECT pg_relation_filenode('jobs')"), asyncio.Event()

        async def accept() -> list[float]:
            """How long each took."""
            took_seconds: list[float] = []
            async with connect(empty_database) as connection:
                while not is_over.is_set() or len(took_seconds) < 20:
                    began = time.monotonic()
                    await connection.execute(ACCEPT_BEFORE_TERMS, account_id)
                    took_seconds.append(time.monotonic() - began)
            return took_seconds

        accepting = [asyncio.create_task(accept()) for _ in range(4)]
        await asyncio.sleep(0.3)
        await migrate(engine)
        await asyncio.sleep(0.3)
        is_over.set()
        took_seconds = [each for took in await asyncio.gather(*accepting) for each in took]

        assert max(took_seconds) < ACCEPT_SECONDS_MAX
        assert await sql.fetchval("SELECT count(*) FROM jobs") == JOBS_BEFORE_TERMS + len(took_seconds)
        # No row was written anew.
        assert await sql.fetchval("SELECT pg_relation_filenode('jobs')") == file_before
        assert await sql.fetch("SELECT * FROM ledger_violations") == []
        assert await sql.fetchval("SELECT unfinished_jobs FROM accounts") == JOBS_BEFORE_TERMS + len(took_seconds)
        assert await sql.fetchval("SELECT keys.is_first FROM api_keys JOIN keys ON keys.id = key_id")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_SECONDS", 0.3)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_SECONDS", 0.3)


@pytest.mark.alone
@pytest.mark.usefixtures("impatient")
async def test_while_a_migration_waits_for_a_long_query_requests_go_on(empty_database: str) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as sql, connect(empty_database) as reader:
        await run_alembic(engine, partial(command.upgrade, revision="0012"))
        account_id = await sql.fetchval(ACCOUNT_BEFORE_KEYS, bytes(32))
        reading = reader.transaction()
        await reading.start()
        await reader.execute("SELECT count(*) FROM jobs")
        pid = await reader.fetchval("SELECT pg_backend_pid()")
        await asyncio.sleep(0.3)
        with capture_logs() as logs:
            migration = asyncio.create_task(migrate(engine))
            took_seconds = []
            for _ in range(30):
                began = time.monotonic()
                await sql.execute(ACCEPT_BEFORE_TERMS, account_id)
                took_seconds.append(time.monotonic() - began)
                await asyncio.sleep(0.1)

            assert not migration.done()
            assert 0.1 < max(took_seconds) < ACCEPT_SECONDS_MAX
            await reading.rollback()
            await migration

    waits = [log for log in logs if log["event"] == "migration_waits"]
    assert len(waits) > 1
    (holder,) = waits[0]["holders"]
    assert (holder["pid"], holder["tables"], holder["seconds"] >= 0) == (pid, ["jobs"], True)
    migrated = [(log["before"], log["after"]) for log in logs if log["event"] == "schema_migrated"]
    assert migrated == [("0012", head_revision())]


@pytest.mark.usefixtures("impatient")
async def test_a_migration_waits_for_another_one_for_as_long_as_it_takes(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as other:
        await other.execute("SELECT pg_advisory_lock($1)", migrations.LOCK_KEY)
        pid = await other.fetchval("SELECT pg_backend_pid()")
        with capture_logs() as logs:
            migration = asyncio.create_task(migrate(engine))
            await until(lambda: asyncio.sleep(0, "migration_waits" in [log["event"] for log in logs]))
            await asyncio.sleep(1)
            assert not migration.done()
            await other.execute("SELECT pg_advisory_unlock($1)", migrations.LOCK_KEY)
            await migration

        assert await current_revision(engine) == head_revision()
    waits = [log for log in logs if log["event"] == "migration_waits"]
    assert [holder["pid"] for holder in waits[0]["holders"]] == [pid]


@pytest.mark.usefixtures("impatient")
async def test_a_migration_that_dies_between_two_revisions_goes_on_from_the_last_one(
    empty_database: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade_one = migrations._upgrade_one

    def upgrade_until_0010(connection: Connection) -> str:
        if upgrade_one(connection) == "0010":
            raise ConnectionResetError
        return "0009"

    async with open_engine(empty_database) as engine:
        monkeypatch.setattr(migrations, "_upgrade_one", upgrade_until_0010)
        with pytest.raises(DatabaseUnavailable):
            await migrate(engine)
        assert await current_revision(engine) == "0010"
        monkeypatch.setattr(migrations, "_upgrade_one", upgrade_one)
        await migrate(engine)

    assert await schema(empty_database) == await schema(database)


async def test_a_migration_may_take_longer_than_a_request(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an index of a large table does, and whoever waits for another process that migrates."""
    settings = load_settings(_env_file=None, database_url=empty_database)
    async with connect(empty_database) as other:
        before_seconds = database_module.COMMAND_TIMEOUT_SECONDS
        monkeypatch.setattr(database_module, "COMMAND_TIMEOUT_SECONDS", 0.7)
        await other.execute("SELECT pg_advisory_lock($1)", migrations.LOCK_KEY)
        migration = asyncio.create_task(migrate_database(settings))
        await blocked(other)
        await asyncio.sleep(1)
        await other.execute("SELECT pg_advisory_unlock($1)", migrations.LOCK_KEY)
        await migration
        # What follows is no migration, and a busy machine may take its time for it.
        monkeypatch.setattr(database_module, "COMMAND_TIMEOUT_SECONDS", before_seconds)

    async with open_engine(empty_database) as engine:
        assert await current_revision(engine) == head_revision()


async def test_terms_of_jobs_are_not_thrown_away_on_the_way_back(database: str) -> None:
    """Without them no bill could be shown, and no job that is under way be refunded."""
    async with open_engine(database) as engine, connect(database) as sql:
        customer = await open_account(engine, 100)
        await job_in(engine, customer, JobStatus.IN_PROGRESS)
        before, rows = await schema(database), await sql.fetch("SELECT * FROM jobs")

        with pytest.raises(DBAPIError, match="terms"):
            await run_alembic(engine, partial(command.downgrade, revision="0012"))

        assert (await schema(database), await sql.fetch("SELECT * FROM jobs")) == (before, rows)
        assert await current_revision(engine) == head_revision()


async def test_jobs_without_terms_go_back_and_up_again(empty_database: str) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await migrate(engine)
        customer = await open_account(engine, 1_000_000)
        await sql.execute(MANY_JOBS_BEFORE_TERMS, customer.account_id)
        # Turns are not kept: what comes back without one goes as soon as it is queued again.
        query = "SELECT to_jsonb(job) - '{fair_tag,expected_seconds}'::text[] FROM jobs AS job ORDER BY id"
        before = await sql.fetch(query)

        await run_alembic(engine, partial(command.downgrade, revision="0012"))
        await migrate(engine)

        assert await sql.fetch(query) == before
        assert await sql.fetch("SELECT * FROM ledger_violations") == []


@pytest.mark.alone
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("before", "table"),
    [
        ("0013", "accounts"),
        ("0013", "ledger_entries"),
        ("0014", "accounts"),
        ("0014", "jobs"),
        ("0014", "api_keys"),
        ("0017", "api_keys"),
    ],
)
async def test_requests_pass_while_a_reader_keeps_the_migration_waiting(
    empty_database: str, before: str, table: str
) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision=before))
        account_id = await sql.fetchval(ACCOUNT_BEFORE_KEYS, bytes(32))
        files = "SELECT pg_relation_filenode('ledger_entries'), pg_relation_filenode('accounts')"
        files_before, took_seconds = await sql.fetchrow(files), []
        async with connect(empty_database) as reader, reader.transaction():
            await reader.fetch(f"SELECT FROM {table}")
            migration = asyncio.create_task(migrate(engine))
            for _ in range(30):
                began = time.monotonic()
                await sql.execute(ACCEPT_BEFORE_TERMS, account_id)
                took_seconds.append(time.monotonic() - began)
                await asyncio.sleep(0.1)
            assert not migration.done()
        await migration

        assert max(took_seconds) < ACCEPT_SECONDS_MAX
        # The migration pauses for as long as it waits, and is not the next one in the queue again at once.
        assert median(took_seconds) < 0.2
        # No row was written anew.
        assert await sql.fetchrow(files) == files_before
        assert await sql.fetch("SELECT * FROM ledger_violations") == []


async def test_the_migration_to_keys_and_requests_that_lock_their_account_first_never_wait_in_a_circle(
    empty_database: str,
) -> None:
    """As an accept does that has an Idempotency-Key: it locks the account, looks, and writes the job."""
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision="0014"))
        account_ids = [
            await sql.fetchval(ACCOUNT_BEFORE_KEYS.replace("'event'", f"'event {number}'"), bytes([number] * 32))
            for number in range(4)
        ]
        is_over = asyncio.Event()

        async def accept(account_id: UUID) -> None:
            async with connect(empty_database) as connection:
                while not is_over.is_set():
                    async with connection.transaction():
                        await connection.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account_id)
                        await asyncio.sleep(0.005)
                        await connection.execute(ACCEPT_BEFORE_TERMS, account_id)

        accepting = [asyncio.create_task(accept(account_id)) for account_id in account_ids]
        await asyncio.sleep(0.3)
        try:
            await migrate(engine)
        finally:
            is_over.set()
            # None of them was chosen to end a deadlock.
            await asyncio.gather(*accepting)

        assert await sql.fetch("SELECT * FROM ledger_violations") == []


TAKEN_BACK = {
    "a reversal that waits": "INSERT INTO reversal_events VALUES ('webhook', 'refund', 'unknown', 5)",
    "an adjustment": "INSERT INTO adjustments SELECT 'ticket', id, -150, 'why', 'who' FROM accounts",
}


@pytest.mark.parametrize("statement", TAKEN_BACK.values(), ids=TAKEN_BACK.keys())
async def test_what_was_taken_back_is_not_thrown_away_on_the_way_back(database: str, statement: str) -> None:
    async with open_engine(database) as engine, connect(database) as sql:
        await open_account(engine, 100)
        await sql.execute(statement)
        before, rows = await schema(database), await sql.fetch("SELECT * FROM ledger_entries")

        with pytest.raises(DBAPIError, match="taken back"):
            await run_alembic(engine, partial(command.downgrade, revision="0013"))

        assert (await schema(database), await sql.fetch("SELECT * FROM ledger_entries")) == (before, rows)
        assert await current_revision(engine) == head_revision()


async def test_books_without_anything_taken_back_go_back_and_up_again(database: str) -> None:
    async with open_engine(database) as engine, connect(database) as sql:
        await open_account(engine, 100)
        columns = "id, account_id, seq, kind, amount, balance_after, job_id, payment_source, payment_event_id"
        entries = await sql.fetch(f"SELECT {columns} FROM ledger_entries")

        await run_alembic(engine, partial(command.downgrade, revision="0013"))
        assert await sql.fetch("SELECT * FROM ledger_violations") == []
        await run_alembic(engine, partial(command.upgrade, revision="0014"))

        assert await sql.fetch(f"SELECT {columns} FROM ledger_entries") == entries
        assert await sql.fetch("SELECT * FROM ledger_violations") == []


async def test_a_queue_at_work_goes_to_the_quiet_one_and_back(empty_database: str) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision="0005"))
        await sql.execute(QUEUE_AT_WORK)
        items = await sql.fetch("SELECT * FROM pgqueuer ORDER BY id")

        await run_alembic(engine, partial(command.upgrade, revision="0006"))
        assert await sql.fetch("SELECT * FROM pgqueuer ORDER BY id") == items
        await sql.execute(QUEUE_AT_WORK)
        assert await sql.fetchval("SELECT count(*) FROM pgqueuer_log") == 0

        await run_alembic(engine, partial(command.downgrade, revision="0005"))
        await sql.execute(QUEUE_AT_WORK)
        assert await sql.fetchval("SELECT count(*) FROM pgqueuer_log") == 1
        assert await sql.fetchval("SELECT count(*) FROM pgqueuer") == 3 * len(items)


# A job in each state that a deploy may meet, written as the release before writes them.
JOBS_AT_WORK = """
INSERT INTO accounts (id, external_user_id) VALUES (gen_random_uuid(), gen_random_uuid());
INSERT INTO payment_events (source, event_id, account_id, amount) SELECT 'webhook', 'e-1', id, 1000 FROM accounts;
INSERT INTO ledger_entries (account_id, kind, amount, payment_source, payment_event_id)
SELECT id, 'CREDIT', 1000, 'webhook', 'e-1' FROM accounts;
INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
SELECT gen_random_uuid(), accounts.id, 'TEXT_TO_IMAGE', name, '{}', 5, 1, 1200 FROM accounts,
       unnest('{waiting,given back,claimed,unknown,at fal,completed,refused}'::text[]) AS name;
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'DEBIT', 5, id FROM jobs;
UPDATE jobs SET status = 'SUBMITTING', attempts = 3, attempt_token = gen_random_uuid(), claimed_at = now()
 WHERE model_id <> 'waiting';
UPDATE jobs SET status = 'QUEUED' WHERE model_id = 'given back';
UPDATE jobs SET submit_unknown_at = now() WHERE model_id = 'unknown';
UPDATE jobs SET status = 'IN_PROGRESS', fal_request_id = model_id WHERE model_id IN ('at fal', 'completed');
UPDATE jobs SET status = 'COMPLETED', result = '{}' WHERE model_id = 'completed';
"""
ATTEMPTS_OF_JOBS = """
SELECT jobs.model_id, number, outcome, attempts.fal_request_id FROM attempts JOIN jobs ON jobs.id = job_id
 WHERE token = jobs.attempt_token AND attempts.claimed_at = jobs.claimed_at ORDER BY 1
"""


async def test_unfinished_jobs_get_rows_for_the_attempts_that_are_known(empty_database: str) -> None:
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision="0007"))
        await sql.execute(JOBS_AT_WORK)
        jobs = await sql.fetch("SELECT * FROM jobs ORDER BY id")

        await run_alembic(engine, partial(command.upgrade, revision="0008"))

        assert [tuple(row) for row in await sql.fetch(ATTEMPTS_OF_JOBS)] == [
            ("at fal", 3, "accepted", "at fal"),
            ("claimed", 3, None, None),
            ("given back", 3, None, None),
            ("refused", 3, None, None),
            ("unknown", 3, "unknown", None),
        ]
        assert await sql.fetch("SELECT * FROM jobs ORDER BY id") == jobs
        assert await sql.fetch("SELECT * FROM ledger_violations") == []


async def test_the_rows_of_attempts_wait_for_whoever_changes_a_job_that_it_has_locked(empty_database: str) -> None:
    """In steps, as a cancel does. Neither dies of a deadlock."""
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision="0007"))
        await sql.execute(JOBS_AT_WORK)
        async with sql.transaction():
            await sql.execute("SELECT FROM jobs WHERE model_id = 'at fal' FOR UPDATE")
            migration = asyncio.create_task(run_alembic(engine, partial(command.upgrade, revision="0008")))
            async with connect(empty_database) as other:
                await blocked(other)
            await sql.execute("UPDATE jobs SET cancel_requested_at = now() WHERE model_id = 'at fal'")
        await migration

        assert await sql.fetchval("SELECT count(*) FROM attempts") == 5


@pytest.mark.parametrize(("revision", "other"), [("0006", "0005"), ("0005", "0006")], ids=["up", "down"])
async def test_the_quiet_queue_waits_for_the_statements_of_workers(
    empty_database: str, revision: str, other: str
) -> None:
    """One that dies of a deadlock while it gives an item back loses the item."""
    act = command.upgrade if revision == "0006" else command.downgrade
    repeated = QueryQueueBuilder().build_retry_job_query()
    async with open_engine(empty_database) as engine, connect(empty_database) as sql:
        await run_alembic(engine, partial(command.upgrade, revision="0006"))
        await run_alembic(engine, partial(command.downgrade, revision=other) if other == "0005" else _nothing)
        await sql.execute(QUEUE_AT_WORK)
        picked = await sql.fetchval("SELECT id FROM pgqueuer WHERE status = 'picked'")
        over, times = asyncio.Event(), [0] * 5

        async def work(number: int) -> None:
            async with connect(empty_database) as worker:
                statement = await worker.prepare(repeated)
                while not over.is_set():
                    await statement.fetch(picked, timedelta(0), None)
                    times[number] += 1

        async def all_have_worked(before: Sequence[int]) -> bool:
            return all(now > then + 5 for now, then in zip(times, before, strict=True))

        workers = [asyncio.create_task(work(number)) for number in range(5)]
        await until(lambda: all_have_worked([0] * 5))
        await run_alembic(engine, partial(act, revision=revision))
        at_its_end = [*times]
        await until(lambda: all_have_worked(at_its_end))
        over.set()
        await asyncio.gather(*workers)


def _nothing(_: Config) -> None:
    pass


@pytest.mark.filterwarnings(NOT_VALID_IS_UNKNOWN)
async def test_the_tables_of_the_queries_are_those_of_the_migrations(engine: AsyncEngine) -> None:
    await run_alembic(engine, command.check)


# PostgreSQL stores a generated column's expression in words of its own.
@pytest.mark.filterwarnings("ignore:Computed default on:UserWarning")
@pytest.mark.filterwarnings(NOT_VALID_IS_UNKNOWN)
async def test_the_tables_of_the_queries_have_the_same_defaults(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or not str(name).startswith("pgqueuer"),
        }
        return list(
            compare_metadata(
                MigrationContext.configure(connection, opts={**options, "version_table": VERSION_TABLE}), metadata
            )
        )

    async with engine.connect() as connection:
        found = await connection.run_sync(differences)

    assert found == []


@pytest.mark.parametrize("name", [BALANCE_LIMIT])
async def test_the_constraints_that_mean_something_to_a_caller_exist(engine: AsyncEngine, name: str) -> None:
    async with engine.connect() as connection:
        found = await connection.scalar(
            text("SELECT count(*) FROM pg_constraint WHERE conname = :name"), {"name": name}
        )

    assert found == 1


def test_revision_files_are_numbered() -> None:
    names = sorted(path.name for path in VERSIONS_DIR.glob("*.py"))

    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", name) for name in names)
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)] == revisions()


def test_pgqueuer_would_install_what_the_migration_freezes() -> None:
    (frozen,) = VERSIONS_DIR.glob("pgqueuer_*.sql")

    would_install = render_install(DBSettings())

    assert statements(frozen.read_text()) == statements(would_install)


def statements(script: str) -> list[str]:
    """Without the comment that names the release."""
    return [line for line in script.splitlines() if line and not line.startswith("--")]


async def test_stays_ready_when_a_newer_release_has_migrated(engine: AsyncEngine, database: str) -> None:
    async def says(revision: str) -> bool:
        async with connect(database) as sql:
            await sql.execute("UPDATE tollgate_version SET version_num = $1", revision)
        return (await migrations_check(engine)()).ok

    assert [await says(revision) for revision in (revisions()[-2], head_revision(), "9999")] == [False, True, True]
    # It starts, too.
    await migrate(engine)
    assert await current_revision(engine) == "9999"
