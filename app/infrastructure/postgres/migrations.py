"""The one way to migrate: under an advisory lock, so that any number of processes may start at once."""

from collections.abc import Callable
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.database import naming_outages, reading

log = structlog.get_logger(__name__)

PROJECT_DIR = Path(__file__).resolve().parents[3]
# Any number does, as long as nothing else in the database locks it.
LOCK_KEY = 7_306_087_150


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(PROJECT_DIR / "alembic"))
    return config


def head_revision() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema to the newest revision. Waits for another process that is doing the same."""

    def upgrade(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    with naming_outages():
        await _migrate(engine, upgrade)


async def _migrate(engine: AsyncEngine, upgrade: Callable[[Connection], None]) -> None:
    async with engine.connect() as connection:
        # The lock lives as long as the session: the waiting, and the migration, may take longer than a request.
        await connection.execute(text("SET statement_timeout = 0"))
        await connection.execute(text("SET lock_timeout = 0"))
        await connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
        await connection.commit()
        try:
            before = await connection.run_sync(_revision)
            # If a newer release has migrated already, this one does not know how to, and need not. Revisions are
            # compared as texts: they are numbers of four digits.
            if before is None or before < head_revision():
                await connection.run_sync(upgrade)
            await connection.commit()
        finally:
            # This ends the session, and with it the lock and the settings.
            await connection.invalidate()
    if before is None or before < head_revision():
        log.info("schema_migrated", before=before, after=head_revision())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def current_revision(engine: AsyncEngine) -> str | None:
    async with reading(engine) as connection:
        return await connection.run_sync(_revision)
