"""Connections, transactions, and what their failures mean."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import asyncpg
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.application.fault_points import reach
from app.domain.errors import CommitUnknown, DatabaseUnavailable
from app.infrastructure.postgres.dsn import plain_dsn
from app.infrastructure.postgres.failures import failures_of
from app.infrastructure.postgres.faults import READ_ONLY, is_refused, is_unavailable

POOL_SIZE = 16
POOL_WAIT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 3.0
COMMAND_TIMEOUT_SECONDS = 15.0
RETURN_SECONDS_MAX = 1.0
APPLICATION_NAME = "tollgate"
# A transaction of the service is a handful of short statements, so whatever takes longer is stuck.
SESSION_SETTINGS = {
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
    # A batch of one looks so cheap that the planner would plan each statement anew, which takes most of its time.
    "plan_cache_mode": "force_generic_plan",
    # A generic plan outlives the size that a table had when it was made, when reading all of it may have been a short
    # cut.
    "enable_seqscan": "off",
}

DriverConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


# What executes a statement with its values, in their order, and returns rows that are read by name.
Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]


class _Opened:
    """The connections that an engine has opened. Its pool forgets some without closing them, and then nobody would."""

    def __init__(self) -> None:
        self._all: WeakSet[DriverConnection] = WeakSet()
        self._in_use: WeakSet[DriverConnection] = WeakSet()

    def add(self, connection: DriverConnection) -> None:
        self._all.add(connection)
        # Whoever made the pool open it has it first.
        self._in_use.add(connection)

    def watch(self, engine: AsyncEngine) -> None:
        def taken(connection: Any, *_: object) -> None:
            self._in_use.add(connection.driver_connection)

        def returned(connection: Any, *_: object) -> None:
            # None where it was invalidated meanwhile.
            if connection is not None:
                self._in_use.discard(connection.driver_connection)

        event.listen(engine.sync_engine, "checkout", taken)
        event.listen(engine.sync_engine, "checkin", returned)

    def end_idle(self) -> None:
        self._end(set(self._all) - set(self._in_use))

    def end_all(self) -> None:
        self._end(set(self._all))

    @staticmethod
    def _end(connections: Iterable[DriverConnection]) -> None:
        """Without a word to the server, which may never answer."""
        for connection in connections:
            if not connection.is_closed():
                connection.terminate()


_opened: WeakKeyDictionary[AsyncEngine, _Opened] = WeakKeyDictionary()


@asynccontextmanager
async def open_engine(dsn: str, *, pool_size: int = POOL_SIZE, is_patient: bool = False) -> AsyncIterator[AsyncEngine]:
    """Connects lazily. `is_patient`: a statement may take its time. Raises ValueError for a DSN that is none."""
    url, opened = plain_dsn(dsn), _Opened()

    async def connect() -> DriverConnection:
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=None if is_patient else COMMAND_TIMEOUT_SECONDS,
            server_settings={"application_name": APPLICATION_NAME},
        )
        try:
            # Not as parameters of the connection: poolers refuse those that they do not know.
            await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in SESSION_SETTINGS.items()))
        except BaseException:
            connection.terminate()
            raise
        opened.add(connection)
        return connection

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        # Take the connection that was used last: its server process still has everything at hand.
        pool_use_lifo=True,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "handle_error", _end_what_is_read_only)
    opened.watch(engine)
    _opened[engine] = opened
    try:
        yield engine
    finally:
        try:
            await _until_returned(engine)
            await engine.dispose()
        finally:
            opened.end_all()


async def _until_returned(engine: AsyncEngine) -> None:
    """Wait a moment for the connections that batches still hold after their last answer, which then are closed well."""
    pool = engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    end = time.monotonic() + RETURN_SECONDS_MAX
    while pool.checkedout() and time.monotonic() < end:  # noqa: ASYNC110 - the pool sets no asyncio.Event
        await asyncio.sleep(0.001)


@asynccontextmanager
async def transaction(engine: AsyncEngine, operation: str) -> AsyncIterator[AsyncConnection]:
    """Commit on leaving, roll back on any error.

    `operation` names its two fault points, before and after the commit.
    Raises DatabaseUnavailable where nothing was written, CommitUnknown where that cannot be said.
    """
    with naming_outages(engine):
        async with engine.connect() as connection:
            await connection.begin()
            yield connection
            reach(f"{operation}.before_commit")
            try:
                await connection.commit()
            except Exception as error:
                if is_unavailable(error):
                    raise CommitUnknown from error
                raise
            _tell_of_commit()
            reach(f"{operation}.after_commit")


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """For single queries: without BEGIN and COMMIT a read is one round trip. Raises DatabaseUnavailable."""
    with naming_outages(engine):
        async with engine.connect() as connection:
            yield await connection.execution_options(isolation_level="AUTOCOMMIT")


@asynccontextmanager
async def driver_connection(engine: AsyncEngine) -> AsyncIterator[DriverConnection]:
    """A pooled connection past SQLAlchemy, where a statement that serves a whole batch costs a quarter of the time.

    Whatever goes wrong, the pool does not get it back. Raises DatabaseUnavailable.
    """
    with naming_outages(engine):
        async with engine.connect() as connection:
            driver = _driver_of(await connection.get_raw_connection())
            try:
                yield driver
            except BaseException as error:
                if driver.is_closed():
                    # This tells SQLAlchemy, which then takes no other old connection from the pool either.
                    with suppress(exc.DBAPIError):
                        await connection.exec_driver_sql("SELECT 1")
                await connection.invalidate()
                if isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError):
                    # The server ends statements earlier, so it is the network that is silent, on all connections.
                    await engine.dispose(close=False)
                    _opened[engine].end_idle()
                raise


@asynccontextmanager
async def driver_transaction(driver: DriverConnection, operation: str, *, has_news: bool = True) -> AsyncIterator[None]:
    """Do as `transaction` does, on a `driver_connection`. Whatever error leaves this ends that connection.

    `has_news`: there may be something for the log of events, which is looked for after the commit.
    """
    own = driver.transaction()
    await own.start()
    yield
    reach(f"{operation}.before_commit")
    try:
        await own.commit()
    except Exception as error:
        if is_unavailable(error):
            raise CommitUnknown from error
        raise
    if has_news:
        _tell_of_commit()
    reach(f"{operation}.after_commit")


@asynccontextmanager
async def driver_statement(operation: str) -> AsyncIterator[None]:
    """Around a single statement on a `driver_connection`, which commits with it: one round trip instead of three.

    Raises CommitUnknown. Unlike a commit of which that is said, the statement may even begin after that.
    """
    reach(f"{operation}.before_commit")
    try:
        yield
    except Exception as error:
        if is_unavailable(error) and not is_refused(error):
            raise CommitUnknown from error
        raise
    _tell_of_commit()
    reach(f"{operation}.after_commit")


_commit_listeners: set[Callable[[], None]] = set()


@contextmanager
def listening_to_commits(listener: Callable[[], None]) -> Iterator[None]:
    """Call it, in the thread of whoever commits, after each transaction that this process has committed."""
    _commit_listeners.add(listener)
    try:
        yield
    finally:
        _commit_listeners.discard(listener)


def _tell_of_commit() -> None:
    for listener in tuple(_commit_listeners):
        listener()


def fetch_through(connection: AsyncConnection) -> Fetch:
    """The driver's `fetch` in SQLAlchemy's transaction. On the driver's connection itself it would escape that,
    whenever it came first: SQLAlchemy begins lazily.
    """

    async def fetch(query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        return [dict(row) for row in (await connection.exec_driver_sql(query, args)).mappings()]

    return fetch


def _driver_of(connection: Any) -> DriverConnection:
    driver: DriverConnection = connection.driver_connection
    return driver


def _refuse_closed(connection: Any, *_: object) -> None:
    """Take no connection from the pool that the driver knows to be dead: after a restart of the server all are."""
    if connection.driver_connection.is_closed():
        raise exc.InvalidatePoolError


def _end_what_is_read_only(context: Any) -> None:
    """A session stays read-only when the server or its role no longer is: that was decided when it began."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True


@contextmanager
def naming_outages(engine: AsyncEngine) -> Iterator[None]:
    try:
        yield
    except CommitUnknown as error:
        failures_of(engine).note(error.__cause__ or error)
        raise
    except Exception as error:
        if is_unavailable(error):
            failures_of(engine).note(error)
            raise DatabaseUnavailable from error
        raise
