"""The version table: ours alone, taken over once from the one that older releases shared with everybody."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from alembic import command
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.faults import DatabaseRefused
from app.infrastructure.postgres.health import migrations_check
from app.infrastructure.postgres.migrations import current_revision, head_revision, migrate
from tests.builders import Connection, connect
from tests.integration.test_migrations import run_alembic

FORMER = "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"
FOREIGN = "ae1027a6acf"


@pytest.fixture
async def engine(empty_database: str) -> AsyncIterator[AsyncEngine]:
    async with open_engine(empty_database) as engine:
        yield engine


@pytest.fixture
async def sql(empty_database: str) -> AsyncIterator[Connection]:
    async with connect(empty_database) as connection:
        yield connection


async def as_the_release_before(engine: AsyncEngine, sql: Connection, revision: str = "0007") -> None:
    await run_alembic(engine, partial(command.upgrade, revision=revision))
    await sql.execute(f"DROP TABLE tollgate_version; {FORMER}; INSERT INTO alembic_version VALUES ('{revision}')")


async def former(sql: Connection) -> list[str]:
    return [row[0] for row in await sql.fetch("SELECT version_num FROM alembic_version ORDER BY 1")]


@pytest.mark.parametrize(
    "theirs",
    [
        f"{FORMER}; INSERT INTO alembic_version VALUES ('{FOREIGN}')",
        # A number that one of our revisions has, too.
        f"{FORMER}; INSERT INTO alembic_version VALUES ('0003')",
        FORMER,
        f"{FORMER}; INSERT INTO alembic_version VALUES ('{FOREIGN}'), ('b2')",
        "CREATE VIEW alembic_version AS SELECT '0007'::text AS version_num",
        "CREATE TABLE alembic_version (something_else int)",
        f"CREATE SCHEMA other; SET search_path = other; {FORMER}; INSERT INTO alembic_version VALUES ('0007')",
    ],
    ids=["foreign", "same number", "empty", "two", "view", "other columns", "other schema"],
)
async def test_somebody_elses_table_is_neither_believed_nor_touched(
    engine: AsyncEngine, sql: Connection, theirs: str
) -> None:
    await sql.execute(theirs)
    before = await sql.fetch("SELECT * FROM alembic_version")

    await migrate(engine)

    assert await current_revision(engine) == head_revision()
    assert await sql.fetch("SELECT * FROM alembic_version") == before


@pytest.mark.parametrize("revision", ["0007", "0005"])
async def test_our_own_is_taken_over_once_and_tells_the_releases_before(
    engine: AsyncEngine, sql: Connection, revision: str
) -> None:
    """They read it, in a rolling deploy and on the way back: an older revision than theirs would have them migrate."""
    await as_the_release_before(engine, sql, revision)

    with capture_logs() as logs:
        await asyncio.gather(migrate(engine), migrate(engine))
        await migrate(engine)

    migrated = [(log["before"], log["after"]) for log in logs if log["event"] == "schema_migrated"]
    assert migrated == [(revision, head_revision())]
    assert await sql.fetchval("SELECT count(*) FROM tollgate_version") == 1
    assert await former(sql) == [head_revision()]
    await sql.execute("UPDATE alembic_version SET version_num = 'somebody else now'")
    await migrate(engine)
    assert await former(sql) == ["somebody else now"]


async def test_of_a_table_that_is_shared_our_row_alone_is_taken(engine: AsyncEngine, sql: Connection) -> None:
    await as_the_release_before(engine, sql)
    await sql.execute(f"INSERT INTO alembic_version VALUES ('{FOREIGN}')")

    await migrate(engine)

    assert await former(sql) == [head_revision(), FOREIGN]
    assert await current_revision(engine) == head_revision()


@pytest.mark.parametrize(
    "spoil",
    [
        "DELETE FROM tollgate_version",
        "DROP TABLE tollgate_version",
        f"DROP TABLE tollgate_version; {FORMER}; INSERT INTO alembic_version VALUES ('{FOREIGN}')",
    ],
)
async def test_our_tables_without_a_revision_stop_the_start(engine: AsyncEngine, sql: Connection, spoil: str) -> None:
    await migrate(engine)
    await sql.execute(spoil)

    with pytest.raises(DatabaseRefused, match="does not say at which revision") as refused:
        await migrate(engine)

    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (f"UPDATE tollgate_version SET version_num = '{FOREIGN}'", "no release of this service has"),
        ("UPDATE tollgate_version SET version_num = '0000'", "no release of this service has"),
        ("INSERT INTO tollgate_version VALUES ('0001')", "names 2 revisions"),
        (
            "ALTER TABLE tollgate_version RENAME TO t; CREATE VIEW tollgate_version AS TABLE t",
            "no table of this service",
        ),
        ("ALTER TABLE tollgate_version RENAME COLUMN version_num TO n", "no table of this service"),
    ],
)
async def test_what_ours_cannot_say_stops_the_start(
    engine: AsyncEngine, sql: Connection, spoil: str, said: str
) -> None:
    await migrate(engine)
    await sql.execute(spoil)

    with pytest.raises(DatabaseRefused, match=said) as refused:
        await migrate(engine)
    check = await migrations_check(engine)()

    assert FOREIGN not in str(refused.value)
    assert check.ok == ("names 2" in said)


async def test_tables_of_somebody_else_with_our_names_stop_the_start(engine: AsyncEngine, sql: Connection) -> None:
    await sql.execute("CREATE TABLE jobs (id int); CREATE TABLE pgqueuer (id int); CREATE TABLE invoices (id int)")

    with pytest.raises(DatabaseRefused, match=r"\(jobs, pgqueuer\)"):
        await migrate(engine)

    assert await sql.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'accounts'") == 0


async def test_a_schema_of_its_own_lies_beside_the_tables_of_somebody_else(
    empty_database: str, sql: Connection
) -> None:
    await sql.execute("CREATE TABLE jobs (id int); CREATE SCHEMA tollgate")

    async with open_engine(f"{empty_database}&schema=tollgate") as engine:
        await migrate(engine)
        assert (await migrations_check(engine)()).ok

    assert await sql.fetchval(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'ledger_entries'"
    ) == ("tollgate")


async def test_a_newer_release_is_said_and_does_not_stop_the_start(engine: AsyncEngine, sql: Connection) -> None:
    await migrate(engine)
    await sql.execute("UPDATE tollgate_version SET version_num = '9999'")

    with capture_logs() as logs:
        await migrate(engine)

    assert [log["revision"] for log in logs if log["event"] == "schema_of_a_newer_release"] == ["9999"]
    assert (await migrations_check(engine)()).ok
