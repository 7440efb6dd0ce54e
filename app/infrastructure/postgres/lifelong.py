"""Work that goes on for as long as a process does, and has a last word."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from app.domain.errors import DatabaseUnavailable


@asynccontextmanager
async def going_on(
    work: Coroutine[Any, Any, None], name: str, *, last: Callable[[], Awaitable[object]], last_seconds_max: float
) -> AsyncIterator[None]:
    """Until left. Then `work` is cancelled, and `last` is done once: a database that is away keeps no process."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        with suppress(DatabaseUnavailable, TimeoutError):
            async with asyncio.timeout(last_seconds_max):
                await last()
