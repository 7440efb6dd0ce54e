"""Keeps the queue's table small: the server's own vacuum comes once a minute, after tens of thousands of dead rows."""

import time
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.database import driver_connection, reading
from app.infrastructure.postgres.queue import DEAD_ROWS, VACUUM

# A take walks over what is dead: a few thousand rows cost it nothing that can be seen.
DEAD_ROWS_MAX = 2_000
# Where an open transaction, or a missing right, keeps the dead, another try soon would read the table for nothing.
IN_VAIN_SECONDS = 120.0


@dataclass(slots=True)
class QueueTidying:
    engine: AsyncEngine
    _not_before_seconds: float = field(default=float("-inf"), init=False)

    async def __call__(self) -> None:
        if time.monotonic() < self._not_before_seconds:
            return
        dead = await self._dead_rows()
        if dead <= DEAD_ROWS_MAX:
            return
        async with driver_connection(self.engine) as driver:
            await driver.execute(VACUUM)
        if await self._dead_rows() > dead / 2:
            self._not_before_seconds = time.monotonic() + IN_VAIN_SECONDS

    async def _dead_rows(self) -> int:
        async with reading(self.engine) as connection:
            return await connection.scalar(DEAD_ROWS) or 0
