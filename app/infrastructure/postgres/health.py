from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.health import Check
from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.migrations import current_revision, head_revision
from app.infrastructure.postgres.queue import oldest_due_seconds

BACKLOG_SECONDS_MAX = 30


def database_check(engine: AsyncEngine) -> Callable[[], Awaitable[Check]]:
    async def check() -> Check:
        try:
            async with reading(engine) as connection:
                await connection.execute(text("SELECT 1"))
        except DatabaseUnavailable:
            return Check("database", False, "PostgreSQL does not answer")
        return Check("database", True, "PostgreSQL answers")

    return check


def migrations_check(engine: AsyncEngine) -> Callable[[], Awaitable[Check]]:
    head = head_revision()

    async def check() -> Check:
        try:
            current = await current_revision(engine)
        except DatabaseUnavailable:
            return Check("migrations", False, "PostgreSQL does not answer")
        # A newer release may have migrated first: each revision leaves the release before it working.
        if current is not None and current >= head:
            return Check("migrations", True, f"at revision {current}")
        return Check("migrations", False, f"at revision {current or 'none'}, this release needs {head}")

    return check


def backlog_check(engine: AsyncEngine) -> Callable[[], Awaitable[Check]]:
    """Tells what an API without a runner of its own can see of the workers.

    It stays ready without any: accepting and answering still work, and the jobs wait.
    """

    async def check() -> Check:
        try:
            async with reading(engine) as connection:
                waiting_seconds = await connection.scalar(oldest_due_seconds())
        except DatabaseUnavailable:
            return Check("runner", False, "PostgreSQL does not answer")
        if waiting_seconds is None or waiting_seconds < BACKLOG_SECONDS_MAX:
            return Check("runner", True, "external: worker processes work on jobs")
        return Check(
            "runner", True, f"external: a step has been waiting for {waiting_seconds:.0f} s; does a worker run?"
        )

    return check
