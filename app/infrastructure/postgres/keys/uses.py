"""When keys were last used, to the minute: gathered in memory, and written beside the requests, not by them."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from uuid import UUID

import structlog
from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.lifelong import going_on
from app.infrastructure.postgres.tables import keys

log = structlog.get_logger(__name__)

WRITE_SECONDS = 60.0
LAST_WRITE_SECONDS_MAX = 1.0
# Some megabytes of memory. What comes beyond them in a minute is noted in the next one.
KEYS_MAX = 10_000

_THIS_MINUTE = func.date_trunc("minute", func.now())


class KeyUses:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._used: set[UUID] = set()

    def note(self, key_id: UUID) -> None:
        if len(self._used) < KEYS_MAX:
            self._used.add(key_id)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write what was noted once a minute, and once more at the end."""
        async with going_on(self._write_on(), "key uses", last=self.write, last_seconds_max=LAST_WRITE_SECONDS_MAX):
            yield

    async def _write_on(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.write()
            except DatabaseUnavailable:
                # The event database_failed says why. A moment that is lost harms nobody.
                pass
            except Exception:
                log.exception("key_uses_failed")

    async def write(self) -> None:
        """Raises DatabaseUnavailable: what was noted is lost then."""
        used, self._used = self._used, set()
        if used:
            await _write(self._engine, used)


async def _write(engine: AsyncEngine, key_ids: Collection[UUID]) -> None:
    # A key that somebody changes at this moment is passed over: nobody waits here, and so never in a circle.
    noted = (
        select(keys.c.id)
        .where(keys.c.id.in_(key_ids), or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < _THIS_MINUTE))
        .with_for_update(key_share=True, skip_locked=True)
        .cte("noted")
    )
    async with reading(engine) as connection:
        await connection.execute(
            update(keys).where(keys.c.id.in_(select(noted.c.id))).values(last_used_at=_THIS_MINUTE)
        )
