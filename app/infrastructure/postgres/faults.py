"""What an error of the database means: for the service, whether it is an outage; for the operator, what to do."""

import getpass
import os
import re
import socket
import ssl
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import exc

from app.domain.errors import DatabaseUnavailable, Unavailable
from app.infrastructure.postgres.dsn import Dsn

# SQLSTATE classes and codes in which the database cannot serve now, whatever was asked:
# connection, authorization, resources, operator intervention, system error;
# serialization, deadlock, no connections allowed, lock timeout, read-only, no such database, schema or table, no right.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE_CLASSES = ("08", "28", "53", "57", "58", "XX")
_UNAVAILABLE_CODES = ("40001", "40P01", "55000", "55P03", "25006", "3D000", "3F000", "42P01", "42501")
# Lock timeout, deadlock, statement timeout.
_CONTENTION_CODES = ("55P03", "40P01", "57014")

READ_ONLY, NO_RIGHT, DISK_FULL, NO_TABLE = "25006", "42501", "53100", "42P01"
DATABASE_ERRORS = (DatabaseUnavailable, exc.DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)
# A trigger of the schema, which says with the same code that nobody at all may do this: a bug and no outage.
OWN_GUARD = "function refuse_change()"
# With these the database answers and yet keeps nothing: in words for everybody.
WRITES_REFUSED = {
    READ_ONLY: "PostgreSQL is read-only",
    NO_RIGHT: "PostgreSQL refuses the service's role a right",
    DISK_FULL: "PostgreSQL's disk is full",
    NO_TABLE: "PostgreSQL has no table of that name: is it migrated?",
}
# Of a pooler that changes the session between transactions: a prepared statement that is not there, or another's.
SESSION_LOST = ("26000", "42P05")

POOLER = (
    "DATABASE_URL leads to a pooler in transaction or statement mode (PgBouncer's pool_mode), which loses LISTEN, locks"
    " and prepared statements between transactions: use its session mode (Supabase: port 5432, not 6543) or the direct"
    " address of the server (Neon: the host without -pooler)"
)

_NO_RIGHT_TO = re.compile(r'permission denied for (schema|table|view|sequence|database|function|relation) "?([\w.]+)')
_OWNER_OF = re.compile(r'must be owner of (\w+) "?([\w.]+)')


def anew(error: Unavailable) -> Unavailable:
    """The same, as an exception of its own for one more caller: it keeps the traces of all who raise it."""
    own = copy(error)
    own.__cause__ = error.__cause__
    return own


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    """The SQLSTATE, or the name of the error where the server said nothing."""
    message: str
    """The server's first sentence. Never its detail or the statement's values, which may be anybody's."""


class DatabaseRefused(Exception):
    """The service cannot work on this database. The message is one line for the operator."""


def fault_of(error: BaseException) -> Fault:
    cause = driver_error(error) or error
    if isinstance(cause, asyncpg.PostgresError):
        return Fault(cause.sqlstate or type(cause).__name__, str(cause.args[0]) if cause.args else "")
    return Fault(type(cause).__name__, getattr(cause, "strerror", None) or "")


def is_unavailable(error: BaseException) -> bool:
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    # asyncpg raises InternalClientError when a connection dies at the wrong moment (seen under kill -9).
    if isinstance(error, OSError | TimeoutError | exc.TimeoutError | asyncpg.InternalClientError):
        return True
    cause = driver_error(error)
    if isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError):
        return True
    code = getattr(cause, "sqlstate", None) or ""
    if code == NO_RIGHT and OWN_GUARD in (getattr(cause, "context", None) or ""):
        return False
    return code.startswith(_UNAVAILABLE_CLASSES) or code in _UNAVAILABLE_CODES


def is_refused(error: BaseException) -> bool:
    """Whether the server itself has said that the statement failed, and goes on.

    What ends its process, or all of it, may come while the commit is written. So may what a pooler says of a server
    that it has lost.
    """
    code = getattr(error, "sqlstate", None) or ""
    is_plain = getattr(error, "severity_en", None) == "ERROR"
    return isinstance(error, asyncpg.PostgresError) and is_plain and not code.startswith(("08", "57P"))


def is_contention(error: Unavailable) -> bool:
    """Whether one locked row, or one slow statement, may be what failed all that shared its transaction."""
    cause = error.__cause__
    return cause is not None and getattr(driver_error(cause), "sqlstate", None) in _CONTENTION_CODES


def driver_error(error: BaseException) -> BaseException | None:
    """Find asyncpg's own exception, which SQLAlchemy's adapter wraps and SQLAlchemy wraps again."""
    if not isinstance(error, exc.DBAPIError):
        return error
    return error.orig.__cause__ if error.orig is not None and error.orig.__cause__ is not None else error.orig


def explained(error: BaseException, dsn: Dsn) -> str | None:
    """One line for the operator: the cause and the mend, never the password. None: it is no error of the database."""
    if isinstance(error, Unavailable) and error.__cause__ is not None:
        error = error.__cause__
    cause = driver_error(error) or error
    if isinstance(cause, asyncpg.PostgresError):
        return _said_by_the_server(cause, dsn)
    if isinstance(cause, OSError | TimeoutError):
        return _on_the_way(cause, dsn)
    if isinstance(cause, asyncpg.InterfaceError | asyncpg.InternalClientError | exc.TimeoutError):
        return _said_by_the_driver(cause, dsn)
    if isinstance(error, exc.DBAPIError):
        return f"the database refuses what it was asked ({type(cause).__name__})"
    return None


def role_of(dsn: Dsn) -> str:
    return dsn.user or os.environ.get("PGUSER") or getpass.getuser()


def database_of(dsn: Dsn) -> str:
    return dsn.database or os.environ.get("PGDATABASE") or role_of(dsn)


def _said_by_the_server(error: asyncpg.PostgresError, dsn: Dsn) -> str:
    fault = fault_of(error)
    role, database, place = role_of(dsn), database_of(dsn), dsn.place
    said = f"({fault.kind}: {fault.message})" if fault.message else f"({fault.kind})"
    sentences = {
        "28P01": f'the database refuses the password of the role "{role}": correct the password in DATABASE_URL, or'
        f' ALTER ROLE "{role}" PASSWORD',
        "3D000": f'there is no database "{database}" on {place}: CREATE DATABASE "{database}" OWNER "{role}", or'
        " correct the name in DATABASE_URL",
        "3F000": f'there is no schema for the tables {said}: CREATE SCHEMA AUTHORIZATION "{role}", or correct schema or'
        " search_path in DATABASE_URL",
        "53300": f"the database has no connection left {said}: end others, raise its limit, or set"
        " DATABASE_CONNECTIONS_MAX lower; a process opens up to that many",
        "57P03": f"the database is starting up or shutting down {said}: try again in a moment",
        READ_ONLY: "the database is read-only: DATABASE_URL must lead to the primary server, and"
        f' default_transaction_read_only must be off for "{role}" and "{database}"',
        DISK_FULL: f"the disk of the database is full {said}: make room there",
        NO_TABLE: "the tables of this release are not there: run python -m app migrate",
        "42703": "the columns of this release are not there: run python -m app migrate",
        NO_RIGHT: _missing_right(fault.message, role, database),
        **dict.fromkeys(SESSION_LOST, POOLER),
    }
    if fault.kind == "28000":
        return _not_let_in(fault.message, role, database)
    if fault.kind == "08P01" and "authentication failed" in fault.message:
        # As PgBouncer says it.
        return sentences["28P01"]
    if fault.kind == "08P01":
        return _refused_by_a_pooler(fault.message)
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return _closed(place)
    if "pool_mode" in fault.message or "statement pooling" in fault.message:
        return POOLER
    return sentences.get(fault.kind, f"the database refuses what it was asked {said}")


def _not_let_in(message: str, role: str, database: str) -> str:
    if "pg_hba" in message:
        encrypted = "no encryption" in message or "SSL off" in message
        tls = ", or add sslmode=require to DATABASE_URL if it asks for TLS" if encrypted else ""
        return (
            f'the database lets the role "{role}" not into "{database}" from this address: add a line to its'
            f" pg_hba.conf{tls}"
        )
    if "does not exist" in message:
        return f'the database has no role "{role}": CREATE ROLE "{role}" LOGIN PASSWORD, or correct DATABASE_URL'
    if "not permitted to log in" in message:
        return f'the role "{role}" may not log in: ALTER ROLE "{role}" LOGIN'
    return f'the database does not let the role "{role}" in (28000: {message}): correct DATABASE_URL'


def _refused_by_a_pooler(message: str) -> str:
    if "startup parameter" in message:
        return (
            f"the pooler at DATABASE_URL refuses a parameter ({message}): take it out of DATABASE_URL, set it with"
            " ALTER ROLE, or add it to the pooler's ignore_startup_parameters"
        )
    if "pooling mode" in message:
        return POOLER
    return f"what answers at DATABASE_URL refuses the connection (08P01: {message}): is it PostgreSQL or a pooler?"


def _missing_right(message: str, role: str, database: str) -> str:
    if found := _NO_RIGHT_TO.search(message):
        kind, name = found[1], found[2]
        grant = {
            "schema": f'GRANT USAGE, CREATE ON SCHEMA {name} TO "{role}"',
            "database": f'GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {name} TO "{role}"',
            "sequence": f'GRANT USAGE ON SEQUENCE {name} TO "{role}"',
            "function": f'GRANT EXECUTE ON FUNCTION {name} TO "{role}"',
        }.get(kind, f'GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO "{role}"')
        return f'the role "{role}" has no right on the {kind} {name} of the database "{database}": {grant}'
    if found := _OWNER_OF.search(message):
        kind, name = found[1], found[2]
        return (
            f'the role "{role}" does not own the {kind} {name}, which a migration changes: migrate as its owner, or'
            f' ALTER {kind.upper()} {name} OWNER TO "{role}"'
        )
    return f'the role "{role}" lacks a right in the database "{database}" (42501: {message}): GRANT it'


def _on_the_way(error: BaseException, dsn: Dsn) -> str:
    place = dsn.place
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the database at {place} is not accepted ({error.verify_message}): name the"
            " certificate of its authority with sslrootcert, or a host that the certificate names"
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS with the database at {place} fails ({error.reason}): look at sslmode and the certificates"
    if isinstance(error, socket.gaierror):
        return f"the host of the database is unknown: {place}; correct DATABASE_URL, or the name service"
    if isinstance(error, TimeoutError):
        return (
            f"the database at {place} does not answer in time: look at the address, the port, firewalls, and whether"
            " it is PostgreSQL"
        )
    return _not_reached(error, dsn)


def _not_reached(error: BaseException, dsn: Dsn) -> str:
    place = dsn.place
    if missing := _missing_file(dsn):
        return f"a file that DATABASE_URL names cannot be read: {missing}"
    if "rejected SSL" in str(error):
        if dsn.parameters.get("sslmode") in (None, "allow", "prefer"):
            return f"what answers at {place} is not PostgreSQL: correct the host and the port in DATABASE_URL"
        return f"the database at {place} offers no TLS: turn it on there, or take sslmode out of DATABASE_URL"
    if isinstance(error, FileNotFoundError):
        return f"there is no socket of PostgreSQL in {place}: start it, or correct the host in DATABASE_URL"
    if isinstance(error, ConnectionResetError | BrokenPipeError) or "connection_lost" in str(error):
        return _closed(place)
    return f"nobody listens at {place}: start PostgreSQL, or correct the host and the port in DATABASE_URL"


def _closed(place: str) -> str:
    return f"what answers at {place} closes the connection: is it PostgreSQL, and does it take connections from here?"


def _missing_file(dsn: Dsn) -> str | None:
    names = (dsn.parameters.get(name) for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"))
    return next((name for name in names if name is not None and not os.access(Path(name), os.R_OK)), None)


def _said_by_the_driver(error: BaseException, dsn: Dsn) -> str:
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "no host in DATABASE_URL is what target_session_attrs asks for: name the primary server"
    if isinstance(error, exc.TimeoutError):
        return "no connection to the database became free in time: raise DATABASE_CONNECTIONS_MAX"
    if missing := _missing_file(dsn):
        return f"a file that DATABASE_URL names cannot be read: {missing}"
    if "password" in str(error):
        return f'the database asks for a password of the role "{role_of(dsn)}": put it into DATABASE_URL'
    return (
        f"DATABASE_URL cannot be used ({type(error).__name__}): look at its parameters, and whether what answers at"
        f" {dsn.place} is PostgreSQL"
    )
