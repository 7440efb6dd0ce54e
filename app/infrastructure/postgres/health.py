from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports import Check
from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.migrations import current_revision, head_revision


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
        if current == head:
            return Check("migrations", True, f"at revision {current}")
        return Check("migrations", False, f"at revision {current or 'none'}, this release needs {head}")

    return check
