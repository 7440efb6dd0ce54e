"""Keeps those tables small that fill and empty all the time: the server's own vacuum comes once a minute, after tens of
thousands of dead rows.
"""

import time
from dataclasses import dataclass, field

from sqlalchemy import cast, func, select
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.database import driver_connection, reading
from app.infrastructure.postgres.queue import queue_items
from app.infrastructure.postgres.tables import due_endpoints, event_inbox, webhook_endpoints

# A take walks over what is dead: a few thousand rows cost it nothing that can be seen.
DEAD_ROWS_MAX = 2_000
# Where an open transaction, or a missing right, keeps the dead, another try soon would read the table for nothing.
IN_VAIN_SECONDS = 120.0
# Whoever vacuums already, and whoever changes the table, goes first.
VACUUM = "VACUUM (SKIP_LOCKED) {table}"


@dataclass(slots=True)
class Tidying:
    engine: AsyncEngine
    _not_before_seconds: dict[str, float] = field(default_factory=dict, init=False)

    async def __call__(self) -> None:
        for table in (queue_items.name, event_inbox.name, webhook_endpoints.name, due_endpoints.name):
            if time.monotonic() >= self._not_before_seconds.get(table, float("-inf")):
                await self._tidy(table)

    async def _tidy(self, table: str) -> None:
        dead = await self._dead_rows(table)
        if dead <= DEAD_ROWS_MAX:
            return
        async with driver_connection(self.engine) as driver:
            await driver.execute(VACUUM.format(table=table))
        if await self._dead_rows(table) > dead / 2:
            self._not_before_seconds[table] = time.monotonic() + IN_VAIN_SECONDS

    async def _dead_rows(self, table: str) -> int:
        async with reading(self.engine) as connection:
            dead = await connection.scalar(select(func.pg_stat_get_dead_tuples(cast(table, REGCLASS))))
            return dead or 0
