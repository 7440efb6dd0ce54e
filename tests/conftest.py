"""One PostgreSQL for the run, a migrated template, and a database of its own for each test that asks for one."""

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres import database as database_module
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.migrations import migrate
from devtools.embedded_postgres import embedded_postgres_blocking
from tests.builders import Connection, connect, database_copy
from tests.s3_server import running_s3

TESTS = Path(__file__).resolve().parent
SCRATCH_BYTES_MIN = 2 * 1024**3
TEMPLATE = "template_tollgate"
# Only the tests' server: what a test writes need not survive a power cut.
TEST_SERVER_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
}
CONSOLE = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
# The longest files begin first: what begins last must not be what everybody waits for.
DIRECTORIES_BY_LENGTH = ("fault", "browser", "end_to_end", "property", "integration", "contract", "unit")
WORKERS_PER_CORE = 1.5
WORKERS_MAX = 8
# A busy machine may take longer for what the service asks of PostgreSQL than production waits.
PATIENCE_SECONDS = 20.0

# A shell without job control ignores SIGINT for what it puts into the background. The processes that tests start would
# inherit that, and none of them would end as Ctrl-C ends it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# structlog would draw each traceback with rich, code and local variables in it, which takes seconds where they hold an
# application or a catalogue. Tests that are about the log configure their own.
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], CONSOLE])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes `-n auto` starts: none where tests are picked, because to start them takes seconds.

    More than there are cores, because the long tests mostly wait for a process or a clock.
    """
    are_picked = bool(config.option.keyword) or not all(Path(argument).is_dir() for argument in config.args)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if are_picked else min(round(WORKERS_PER_CORE * cores), WORKERS_MAX)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, bring the directories into order; within one the order stays random."""

    def place(item: pytest.Item) -> int:
        directory = item.path.relative_to(TESTS).parts[0]
        return DIRECTORIES_BY_LENGTH.index(directory) if directory in DIRECTORIES_BY_LENGTH else -1

    if hasattr(config, "workerinput"):
        items.sort(key=place)


def with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def run_sql(dsn: str, *statements: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def scratch_dir() -> Path:
    """In memory where there is room: a database for each test costs 15 ms there and 120 ms on a disk.

    Not below pytest's own directory: another run of pytest closes that to root's server user.
    """
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free >= SCRATCH_BYTES_MIN
    return memory if has_room else Path("/tmp")


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(dir=scratch_dir()) as directory,
        embedded_postgres_blocking(Path(directory), TEST_SERVER_SETTINGS) as dsn,
    ):
        yield dsn


@pytest.fixture(scope="session")
def template_database(postgres_dsn: str) -> str:
    async def migrate_template() -> None:
        async with open_engine(with_database(postgres_dsn, TEMPLATE)) as engine:
            await migrate(engine)

    run_sql(postgres_dsn, f"CREATE DATABASE {TEMPLATE}")
    asyncio.run(migrate_template())
    return TEMPLATE


@pytest.fixture
def empty_database(postgres_dsn: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    run_sql(postgres_dsn, f"CREATE DATABASE {name}")
    yield with_database(postgres_dsn, name)
    run_sql(postgres_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(postgres_dsn: str, template_database: str) -> Iterator[str]:
    """The DSN of a migrated database that nobody else uses."""
    with database_copy(postgres_dsn, template_database) as dsn:
        yield dsn


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    async with open_engine(database) as engine:
        yield engine


@pytest.fixture
async def sql(database: str) -> AsyncIterator[Connection]:
    """A connection past the service."""
    async with connect(database) as connection:
        yield connection


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a server of S3 that takes any credentials."""
    with running_s3() as url:
        yield url


@pytest.fixture(scope="session")
def project_dir() -> Path:
    return TESTS.parent


@pytest.fixture(autouse=True)
def _patience_with_postgresql(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is measured, only what hangs ends a wait of the service for a connection, a lock or an answer."""
    if request.node.get_closest_marker("alone") is None:
        monkeypatch.setattr(database_module, "CONNECT_TIMEOUT_SECONDS", PATIENCE_SECONDS)
        monkeypatch.setattr(database_module, "POOL_WAIT_SECONDS", PATIENCE_SECONDS)
        monkeypatch.setattr(database_module, "COMMAND_TIMEOUT_SECONDS", 2 * PATIENCE_SECONDS)
        for name in ("lock_timeout", "statement_timeout"):
            monkeypatch.setitem(database_module.SESSION_SETTINGS, name, f"{PATIENCE_SECONDS:.0f}s")


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every command of ours that a test runs in this process sets up its own."""
    monkeypatch.setenv("COLUMNS", "80")
    root, configuration = logging.getLogger(), structlog.get_config()
    loggers = [root, *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    handlers, levels = root.handlers, [(logger, logger.level) for logger in loggers]
    yield
    root.handlers = handlers
    for logger, level in levels:
        logger.setLevel(level)
    structlog.configure(**configuration)
