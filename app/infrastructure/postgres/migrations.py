"""The one way to migrate: under an advisory lock, so that any number of processes may start at once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from asyncpg import PostgresError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.infrastructure.postgres.database import naming_outages, reading
from app.infrastructure.postgres.faults import DatabaseRefused, fault_of
from app.infrastructure.postgres.queue import QUEUE_TABLES
from app.infrastructure.postgres.tables import metadata

_ResultT = TypeVar("_ResultT")

log = structlog.get_logger(__name__)

PROJECT_DIR = Path(__file__).resolve().parents[3]
# Any number does, as long as nothing else in the database locks it.
LOCK_KEY = 7_306_087_150
# Less than a statement of the service waits for a lock: what has to wait behind a migration still gets its turn.
LOCK_WAIT_SECONDS = 2.0
LOCK_PAUSE_SECONDS = 5.0
# Lock timeout, deadlock.
_LOCK_CODES = ("55P03", "40P01")
# Alembic's own name for it belongs to whoever else migrates the same database.
VERSION_TABLE = "tollgate_version"
FORMER_VERSION_TABLE = "alembic_version"
OWN_TABLES = frozenset(metadata.tables) | QUEUE_TABLES.keys()

_IS_TABLE = "relkind IN ('r', 'p')"
# Whoever else has a table `accounts` has not this constraint on it, nor this trigger on `ledger_entries`.
_OWN_SCHEMA = text("""
SELECT relnamespace::regnamespace::text FROM pg_class JOIN pg_trigger ON tgrelid = pg_class.oid
 WHERE pg_class.oid = to_regclass('ledger_entries') AND tgname = 'ledger_entries_apply'
   AND EXISTS (SELECT FROM pg_constraint JOIN pg_class AS account ON account.oid = conrelid
                WHERE account.relname = 'accounts' AND account.relnamespace = pg_class.relnamespace
                  AND conname = 'accounts_balance_limit')
""")
_TAKEN_NAMES = text("""
SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(:names)
 ORDER BY relname
""")
_HOLDERS = text("""
SELECT pid, max(application_name) AS program, array_remove(array_agg(DISTINCT relname::text), NULL) AS tables,
       max(round(extract(epoch FROM clock_timestamp() - xact_start)))::int AS seconds
  FROM pg_locks LEFT JOIN pg_class ON pg_class.oid = relation AND relnamespace = current_schema()::regnamespace
  LEFT JOIN pg_stat_activity AS activity USING (pid)
 WHERE granted AND pid <> pg_backend_pid()
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND (relname = ANY(:names) OR (locktype = 'advisory' AND (classid::bigint << 32 | objid::bigint) = :key))
   AND (xact_start IS NULL OR xact_start < clock_timestamp() - make_interval(secs => :seconds))
 GROUP BY pid ORDER BY seconds DESC LIMIT 5
""")
_IS_VERSION_TABLE = f"""
SELECT count(*) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
 WHERE pg_class.oid = to_regclass(:name) AND {_IS_TABLE} AND attname = 'version_num' AND NOT attisdropped
"""  # noqa: S608 - constants alone


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(PROJECT_DIR / "alembic"))
    return config


@cache
def head_revision() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema to the newest revision. Waits for another process that is doing the same.

    Each revision is a transaction of its own. Raises DatabaseRefused, DatabaseUnavailable.
    """
    with naming_outages(engine):
        await _migrate(engine)


async def _migrate(engine: AsyncEngine) -> None:
    head = head_revision()
    async with engine.connect() as connection:
        # The lock lives as long as the session: the waiting, and the migration, may take longer than a request.
        await connection.execute(text("SET statement_timeout = 0"))
        await connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        await connection.execute(text(f"SET lock_timeout = {LOCK_WAIT_SECONDS * 1000:.0f}"))
        await connection.commit()
        try:
            await _patiently(connection, _lock)
            before = revision = await _patiently(connection, _begin)
            # If a newer release has migrated already, this one does not know how to, and need not. Revisions are
            # compared as texts: they are numbers of four digits.
            while revision is None or revision < head:
                await _fill_before(connection, revision)
                revision = await _patiently(connection, _upgrade_one)
        finally:
            # This ends the session, and with it the lock and the settings.
            await connection.invalidate()
    if before is None or before < head:
        log.info("schema_migrated", before=before, after=head)
    elif before > head:
        log.info("schema_of_a_newer_release", revision=before, own=head)


async def _fill_before(connection: AsyncConnection, revision: str | None) -> None:
    """What the revision after this one would else have to write while everybody waits: see `fill_slice` in it."""
    fill_slice = _fill_slice_after(revision)
    after: UUID | None = UUID(int=0)
    while fill_slice is not None and after is not None:
        after = await _patiently(connection, partial(fill_slice, after=after))


async def _patiently(connection: AsyncConnection, work: Callable[[Connection], _ResultT]) -> _ResultT:
    """Do and commit it. A lock that others hold is waited for only shortly at a time, for as many times as it takes:
    whoever comes after a migration that waits has to wait behind it, and gets on in between.
    """
    while True:
        try:
            result = await connection.run_sync(work)
            await connection.commit()
            return result
        # A revision that runs a script hands on what the driver raises.
        except (DBAPIError, PostgresError) as error:
            if fault_of(error).kind not in _LOCK_CODES:
                raise
        await connection.rollback()
        log.warning("migration_waits", holders=await _holders(connection))
        await asyncio.sleep(LOCK_PAUSE_SECONDS)


async def _holders(connection: AsyncConnection) -> Sequence[Mapping[str, object]]:
    """Who has locked our tables, or migrates, for longer than was waited. Not what they ask, which may be anybody's."""
    values = {"names": sorted(OWN_TABLES), "seconds": LOCK_WAIT_SECONDS, "key": LOCK_KEY}
    rows = (await connection.execute(_HOLDERS, values)).mappings().all()
    await connection.rollback()
    return [dict(row) for row in rows]


def _lock(connection: Connection) -> None:
    """Against other processes that migrate."""
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})


def _begin(connection: Connection) -> str | None:
    """The revision that the database is at. Raises DatabaseRefused."""
    schema = take_over(connection)
    if schema is not None:
        _tell_former_releases(connection, schema)
    return _checked_revision(connection)


def _fill_slice_after(revision: str | None) -> Callable[..., UUID | None] | None:
    *_, following = ScriptDirectory.from_config(_config()).iterate_revisions("head", revision or "base")
    return getattr(following.module, "fill_slice", None)


def _upgrade_one(connection: Connection) -> str:
    """The revision that is reached."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "+1")
    return max(_revisions(connection) or ())


def take_over(connection: Connection) -> str | None:
    """Make our version table from the one that releases up to revision 0007 used, where that one speaks of our tables.

    Returns the schema of that table, where it was taken over just now. It stays, because those releases read it.
    """
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": VERSION_TABLE}) is not None:
        return None
    schema = connection.scalar(_OWN_SCHEMA)
    former = f"{schema}.{FORMER_VERSION_TABLE}"
    if schema is None or not connection.scalar(text(_IS_VERSION_TABLE), {"name": former}):
        return None
    rows = connection.scalars(text(f"SELECT version_num FROM {former}")).all()  # noqa: S608 - PostgreSQL's own quoting
    ours = sorted(set(rows) & _known_revisions())
    if len(ours) != 1:
        # Somebody else's revisions, or nobody's.
        return None
    own = f"{schema}.{VERSION_TABLE}"
    key = f"{VERSION_TABLE}_pkc"
    connection.execute(text(f"CREATE TABLE {own} (version_num varchar(32) CONSTRAINT {key} PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {own} VALUES (:revision)"), {"revision": ours[0]})  # noqa: S608
    return f"{schema}"


def _tell_former_releases(connection: Connection, schema: str) -> None:
    """They would migrate a second time if their table named an older revision than theirs."""
    connection.execute(
        text(f"UPDATE {schema}.{FORMER_VERSION_TABLE} SET version_num = :head WHERE version_num = ANY(:known)"),  # noqa: S608
        {"head": head_revision(), "known": sorted(_known_revisions())},
    )


@cache
def _known_revisions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _checked_revision(connection: Connection) -> str | None:
    """Raises DatabaseRefused where this release must not touch what it finds."""
    rows = _revisions(connection)
    if rows is None:
        raise DatabaseRefused(f"{VERSION_TABLE} in the database is no table of this service: rename it")
    if len(rows) > 1:
        raise DatabaseRefused(f"{VERSION_TABLE} names {len(rows)} revisions: leave the newest one in it")
    if not rows:
        _refuse_taken_names(connection)
        return None
    if not is_known(rows[0]):
        raise DatabaseRefused(
            f"{VERSION_TABLE} names a revision that no release of this service has: does the database belong to"
            " something else, or was the table changed by hand?"
        )
    return str(rows[0])


def is_known(revision: str) -> bool:
    """Whether it is one of this release's, or may be one of a newer release's."""
    return revision in _known_revisions() or (
        len(revision) == 4 and revision.isdecimal() and revision > head_revision()
    )


def is_usable(revision: str | None) -> bool:
    """A newer release may have migrated first: each revision leaves the release before it working."""
    return revision is not None and revision >= head_revision() and is_known(revision)


def _refuse_taken_names(connection: Connection) -> None:
    """Where nothing is migrated, none of our tables is there."""
    taken = connection.scalars(_TAKEN_NAMES, {"names": sorted(OWN_TABLES)}).all()
    if not taken:
        return
    if connection.scalar(_OWN_SCHEMA) is not None:
        raise DatabaseRefused(
            f"the tables of this service are there, and {VERSION_TABLE} does not say at which revision: restore it from"
            " the backup that the tables are from"
        )
    raise DatabaseRefused(
        f"the database has tables of something else that have our names ({', '.join(taken)}): give this service a"
        " database of its own, or a schema: ?schema=tollgate in DATABASE_URL"
    )


def _revisions(connection: Connection) -> Sequence[str] | None:
    """What the version table says, nothing where there is none. None: what has its name is something else."""
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": VERSION_TABLE}) is None:
        return ()
    if not connection.scalar(text(_IS_VERSION_TABLE), {"name": VERSION_TABLE}):
        return None
    return connection.scalars(text(f"SELECT version_num FROM {VERSION_TABLE}")).all()  # noqa: S608


async def current_revision(engine: AsyncEngine) -> str | None:
    async with reading(engine) as connection:
        revisions = await connection.run_sync(_revisions)
    return max(revisions or (), default=None)


async def check_migrated(engine: AsyncEngine) -> None:
    """Raises DatabaseRefused. What this release writes may mean something else to a schema before its own."""
    revision = await current_revision(engine)
    if revision is None:
        raise DatabaseRefused("the tables of this release are not there: run python -m app migrate")
    if not is_usable(revision):
        raise DatabaseRefused("the database is not at this release's schema: run python -m app migrate")
