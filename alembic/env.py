"""Run the migrations on the connection that `app.infrastructure.postgres.migrations` hands over."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from app.infrastructure.postgres.migrations import VERSION_TABLE, take_over
from app.infrastructure.postgres.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # Each revision holds its own locks, and no others. Where the caller has begun a transaction, it is one for all.
        transaction_per_migration=True,
        version_table=VERSION_TABLE,
        include_name=lambda name, kind, _parents: kind != "table" or not str(name).startswith("pgqueuer"),
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    """For `alembic` from the command line: with the service's own settings."""
    from app.infrastructure.postgres.database import open_engine  # noqa: PLC0415
    from app.infrastructure.settings import load_settings  # noqa: PLC0415

    dsn = load_settings().database_url
    if dsn is None:
        raise SystemExit("Set DATABASE_URL, or use `python -m app migrate`.")
    async with open_engine(dsn.get_secret_value(), is_patient=True) as engine, engine.begin() as connection:
        await connection.run_sync(take_over)
        await connection.run_sync(run)


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(run_alone())
