"""Waits until nothing is left to do for media, and lets hours pass where the service would wait for so long."""

import asyncio
import time

import asyncpg

from torture.media_truth import GONE
from torture.media_users import past_the_guard

# Housekeeping comes once a minute, also to what was lost with a process.
QUIET_SECONDS_MAX = 300
LOOK_SECONDS = 1.0
_LEFT_TO_COPY = """
    SELECT (SELECT count(*) FROM outputs WHERE stored_at IS NULL AND given_up_at IS NULL AND deleted_at IS NULL)
         + (SELECT count(*) FROM outputs WHERE expires_at < now() AND deleted_at IS NULL)
"""
_LEFT_TO_ERASE = "SELECT count(*) FROM outputs WHERE deleted_at IS NOT NULL AND erased_at IS NULL"
_AT_ONCE = """
    UPDATE pgqueuer SET execute_after = now()
     WHERE entrypoint IN ('output.copy', 'media.erase', 'file.erase')
       AND status = 'queued' AND execute_after > now() + interval '3 s'
    RETURNING 1
"""
# What fal says that it does not have is waited for, for six hours after the end of its job.
_SINCE_HOURS = f"""
    UPDATE jobs SET updated_at = updated_at - interval '7 hours'
     WHERE status = 'COMPLETED' AND position('{GONE}' IN parameters->>'prompt') > 0
       AND EXISTS (SELECT FROM outputs WHERE job_id = jobs.id AND stored_at IS NULL AND deleted_at IS NULL)
    RETURNING 1
"""
# What was deleted before it was stored is looked for again, for a day.
_SINCE_DAYS = """
    UPDATE outputs SET deleted_at = deleted_at - interval '2 days'
     WHERE deleted_at > now() - interval '1 day' AND erased_at IS NULL
    RETURNING 1
"""


async def until_quiet(dsn: str) -> tuple[list[str], float]:
    """What is left after the longest time that this may take, in words; and how many seconds it took."""
    began = time.monotonic()
    await past_the_guard(dsn, _SINCE_HOURS)
    left = {"to copy, or to expire": await until_none(dsn, _LEFT_TO_COPY)}
    await past_the_guard(dsn, _SINCE_DAYS)
    left["to erase"] = await until_none(dsn, _LEFT_TO_ERASE)
    return [f"{count} outputs are left {what}" for what, count in left.items() if count], time.monotonic() - began


async def until_none(dsn: str, left: str) -> int:
    """How many `left` still counts after the longest time that this may take."""
    until = time.monotonic() + QUIET_SECONDS_MAX
    connection = await asyncpg.connect(dsn)
    try:
        while count := int(await connection.fetchval(left)):
            if time.monotonic() > until:
                return count
            await connection.execute(_AT_ONCE)
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()
    return 0
