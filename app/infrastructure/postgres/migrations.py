"""The one way to migrate: under an advisory lock, so that any number of processes may start at once."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.database import naming_outages, reading
from app.infrastructure.postgres.faults import DatabaseRefused
from app.infrastructure.postgres.queue import QUEUE_TABLES
from app.infrastructure.postgres.tables import metadata

log = structlog.get_logger(__name__)

PROJECT_DIR = Path(__file__).resolve().parents[3]
# Any number does, as long as nothing else in the database locks it.
LOCK_KEY = 7_306_087_150
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

    Raises DatabaseRefused, DatabaseUnavailable.
    """

    def upgrade(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    with naming_outages(engine):
        await _migrate(engine, upgrade)


async def _migrate(engine: AsyncEngine, upgrade: Callable[[Connection], None]) -> None:
    head = head_revision()
    async with engine.connect() as connection:
        # The lock lives as long as the session: the waiting, and the migration, may take longer than a request.
        await connection.execute(text("SET statement_timeout = 0"))
        await connection.execute(text("SET lock_timeout = 0"))
        await connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        await connection.commit()
        try:
            taken_over = await connection.run_sync(take_over)
            before = await connection.run_sync(_checked_revision)
            if taken_over is None:
                # Nothing is written yet: each revision is a transaction of its own.
                await connection.commit()
            # If a newer release has migrated already, this one does not know how to, and need not. Revisions are
            # compared as texts: they are numbers of four digits.
            if before is None or before < head:
                await connection.run_sync(upgrade)
            if taken_over is not None:
                await connection.run_sync(_tell_former_releases, taken_over)
            await connection.commit()
        finally:
            # This ends the session, and with it the lock and the settings.
            await connection.invalidate()
    if before is None or before < head:
        log.info("schema_migrated", before=before, after=head)
    elif before > head:
        log.info("schema_of_a_newer_release", revision=before, own=head)


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
