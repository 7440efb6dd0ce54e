"""Whether the service can work on a database, looked at before it does: one line for each thing, with its mend."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import asyncpg
import structlog

from app.application.ports.health import Finding, Level
from app.infrastructure.postgres.database import DriverConnection
from app.infrastructure.postgres.dsn import Dsn
from app.infrastructure.postgres.faults import POOLER, SESSION_LOST, DatabaseRefused, database_of, explained, role_of
from app.infrastructure.postgres.rights import missing_rights

log = structlog.get_logger(__name__)

VERSION_MIN = 14
CONNECT_SECONDS_MAX = 4.0
# With fewer a process cannot listen, beat, take items and answer.
CONNECTIONS_MIN = 4
CLOCK_SECONDS_MAX = 5.0
# A pooler hands out the session that was used last, or the one that rests longest: then it takes some to see it.
POOLER_LOOKS = 3

_SERVER = "SELECT version() AS product, current_setting('server_version_num')::int / 10000 AS version"
_FACTS = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS is_read_only,
       clock_timestamp() AS now,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true), '0')::int AS server_connections,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_connections,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_connections,
       (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND pid <> pg_backend_pid()) AS used,
       (SELECT count(*) FROM pg_stat_activity
         WHERE datid IS NOT NULL AND pid <> pg_backend_pid() AND usename = current_user) AS used_by_role,
       (SELECT count(*) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND datname = current_database()) AS used_in_database,
       pg_database_size(current_database()) AS size_bytes
"""


async def check_before_start(url: str, *, connections_max: int) -> None:
    """Raises DatabaseRefused, with one line, where the service cannot work on it. What is doubtful is logged."""
    for finding in await inspect_database(url, connections_max=connections_max):
        if finding.level is Level.WRONG:
            raise DatabaseRefused(finding.text)
        if finding.level is Level.WARNING:
            log.warning("database_doubtful", subject=finding.subject, advice=finding.text)


async def inspect_database(url: str, *, connections_max: int) -> Sequence[Finding]:
    dsn = Dsn.read(url)
    findings = list(_ignored_parameters(dsn))
    try:
        async with AsyncExitStack() as stack:
            connection = await _connect(dsn, stack)
            findings += await _look(connection, dsn, connections_max, stack)
    except Exception as error:
        sentence = explained(error, dsn)
        if sentence is None:
            raise
        findings.append(Finding(Level.WRONG, "database", sentence))
    return findings


async def _connect(dsn: Dsn, stack: AsyncExitStack) -> DriverConnection:
    connection = await asyncpg.connect(
        dsn.text,
        timeout=CONNECT_SECONDS_MAX,
        command_timeout=CONNECT_SECONDS_MAX,
        server_settings={"application_name": "tollgate-inspection"},
    )
    stack.callback(connection.terminate)
    return connection


async def _look(
    connection: DriverConnection, dsn: Dsn, connections_max: int, stack: AsyncExitStack
) -> Sequence[Finding]:
    (server,) = map(dict, await connection.fetch(_SERVER))
    if problem := _product_problem(server):
        return [Finding(Level.WRONG, "database", problem)]
    is_pooled = await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid()
    changes_sessions = is_pooled and await _changes_sessions(connection, dsn, stack)
    if changes_sessions:
        return [Finding(Level.WRONG, "pooler", POOLER)]
    began_at = time.time()
    (facts,) = map(dict, await connection.fetch(_FACTS))
    return [
        Finding(Level.OK, "database", f"PostgreSQL {server['version']} answers; {_megabytes(facts['size_bytes'])}"),
        *_read_only(facts, dsn),
        *([_pooler(changes_sessions)] if is_pooled else []),
        *_connections(facts, connections_max),
        _clock(facts["now"], (began_at + time.time()) / 2),
        *await missing_rights(connection, role_of(dsn)),
    ]


def _pooler(changes_sessions: bool | None) -> Finding:
    if changes_sessions is None:
        text = "it gives no second session, so that nobody can tell whether it keeps them: raise its pool size"
        return Finding(Level.WARNING, "pooler", text)
    return Finding(Level.OK, "pooler", "sessions are kept")


def _ignored_parameters(dsn: Dsn) -> Iterator[Finding]:
    if dsn.ignored:
        hint = "; DATABASE_CONNECTIONS_MAX is the size of the pool" if "connection_limit" in dsn.ignored else ""
        text = f"these parameters of DATABASE_URL have no meaning here and are left out: {', '.join(dsn.ignored)}{hint}"
        yield Finding(Level.WARNING, "database url", text)


def _product_problem(server: Mapping[str, Any]) -> str | None:
    product = str(server["product"])
    if not product.startswith("PostgreSQL") or "Redshift" in product or "-YB-" in product:
        name = product.split(" ", maxsplit=1)[0]
        return f"what answers at DATABASE_URL is {name} and not PostgreSQL {VERSION_MIN} or newer"
    if server["version"] < VERSION_MIN:
        return f"PostgreSQL {server['version']} is too old: this service needs {VERSION_MIN} or newer"
    return None


async def _changes_sessions(connection: DriverConnection, dsn: Dsn, stack: AsyncExitStack) -> bool | None:
    """Whether the session changes between two statements, while others hold sessions in open transactions.

    None: it cannot be told, for no other session was to be had.
    """
    first = await connection.fetchval("SELECT pg_backend_pid()")
    try:
        for _ in range(POOLER_LOOKS):
            other = await _connect(dsn, stack)
            await other.execute("BEGIN")
            held = await other.fetchval("SELECT pg_backend_pid()")
            if held == first or await connection.fetchval("SELECT pg_backend_pid()") != first:
                return True
    except asyncpg.PostgresError as error:
        # In statement mode a transaction is refused, and its connection closed.
        if error.sqlstate in SESSION_LOST or isinstance(error, asyncpg.ConnectionDoesNotExistError):
            return True
        if error.sqlstate == "53300" or "query_wait_timeout" in str(error):
            return None
        raise
    except TimeoutError:
        # A pooler lets a session wait for a connection of the server to become free.
        return None
    return False


def _read_only(facts: Mapping[str, Any], dsn: Dsn) -> Iterator[Finding]:
    if facts["is_read_only"]:
        text = (
            "the database is read-only: DATABASE_URL must lead to the primary server, and default_transaction_read_only"
            f' must be off for "{role_of(dsn)}" and "{database_of(dsn)}"'
        )
        yield Finding(Level.WRONG, "database", text)


def _connections(facts: Mapping[str, Any], connections_max: int) -> Iterator[Finding]:
    limits = [
        ("the server", facts["server_connections"], facts["used"]),
        ("the role", facts["role_connections"], facts["used_by_role"]),
        ("the database", facts["database_connections"], facts["used_in_database"]),
    ]
    # A role or database without a limit says -1.
    who, limit, used = min(
        (one for one in limits if one[1] is not None and one[1] >= 0), key=lambda one: one[1] - one[2]
    )
    numbers = f"{who} has {limit} connections, {used} of them in use; this process opens up to {connections_max}"
    if limit < CONNECTIONS_MIN:
        yield Finding(Level.WRONG, "connections", f"{numbers}, and at least {CONNECTIONS_MIN}: raise the limit")
    elif limit - used < connections_max:
        advice = (
            f"set DATABASE_CONNECTIONS_MAX to {max(limit // 3, CONNECTIONS_MIN)} in each process, or raise the limit"
        )
        yield Finding(Level.WARNING, "connections", f"{numbers}: {advice}")
    else:
        yield Finding(Level.OK, "connections", numbers)


def _clock(now: datetime, here_seconds: float) -> Finding:
    skew_seconds = (datetime.fromtimestamp(here_seconds, UTC) - now).total_seconds()
    if abs(skew_seconds) > CLOCK_SECONDS_MAX:
        direction = "ahead of" if skew_seconds > 0 else "behind"
        text = f"this machine's clock is {abs(skew_seconds):.0f} s {direction} the database's: set both by NTP"
        return Finding(Level.WARNING, "clock", text)
    return Finding(Level.OK, "clock", f"{abs(skew_seconds):.1f} s from the database's")


def _megabytes(size_bytes: int) -> str:
    return f"the database has {size_bytes / 1e6:,.0f} MB"
