"""Time that deliveries wait through: whatever is written of it comes to have been earlier, as if so long had passed."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

DRAIN_SECONDS_MAX = 900
LOOK_SECONDS = 0.3
# What is due within this time of the next one is taken with it.
TOGETHER_SECONDS = 1_800
# Nothing waits, and nothing is to be replayed or enabled.
_LEFT = """
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'pending') AS pending,
           (SELECT count(*) FROM webhook_endpoints
             WHERE deleted_at IS NULL AND (replay_after IS NOT NULL OR disabled_at IS NOT NULL)) AS unfinished,
           (SELECT count(*) FROM deliveries WHERE claim IS NOT NULL AND due_at > now()) AS claimed,
           (SELECT extract(epoch FROM min(greatest(delivery.due_at, endpoint.next_due_at)) - now())
              FROM deliveries AS delivery JOIN webhook_endpoints AS endpoint ON endpoint.id = delivery.endpoint_id
             WHERE delivery.state = 'pending' AND delivery.claim IS NULL AND isfinite(endpoint.next_due_at)
               AND endpoint.disabled_at IS NULL AND endpoint.deleted_at IS NULL)::float AS seconds_to_next
"""
# In the order in which the service locks them.
_LOCK = "SELECT FROM webhook_endpoints ORDER BY id FOR NO KEY UPDATE"
_PASS = (
    "UPDATE deliveries SET due_at = due_at - $1::interval WHERE state = 'pending'",
    """UPDATE webhook_endpoints
          SET next_due_at = CASE WHEN isfinite(next_due_at) THEN next_due_at - $1::interval ELSE next_due_at END,
              backs_off_until = backs_off_until - $1::interval, asked_until = asked_until - $1::interval,
              last_failed_at = last_failed_at - $1::interval, failing_since = failing_since - $1::interval,
              disabled_at = disabled_at - $1::interval""",
)


async def last_place(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT last_seq FROM event_log"))
    finally:
        await connection.close()


async def _left(connection: Connection) -> asyncpg.Record:
    (left,) = await connection.fetch(_LEFT)
    return left


async def pass_time(connection: Connection, seconds: float) -> None:
    async with connection.transaction():
        await connection.execute(_LOCK)
        for statement in _PASS:
            await connection.execute(statement, timedelta(seconds=seconds))


async def until_idle(connection: Connection, seconds_max: float) -> None:
    """Until nothing is under way or due just now, or it is enough."""
    until = time.monotonic() + seconds_max
    while time.monotonic() < until:
        left = await _left(connection)
        if not left["claimed"] and (left["seconds_to_next"] is None or left["seconds_to_next"] > 0):
            return
        await asyncio.sleep(LOOK_SECONDS)


async def until_delivered(dsn: str, has_plans: Callable[[], bool]) -> tuple[bool, float]:
    """Until nothing waits, and no owner has plans; whether it came to that, and how many seconds were passed over."""
    passed_seconds = 0.0
    until = time.monotonic() + DRAIN_SECONDS_MAX
    connection = await asyncpg.connect(dsn)
    try:
        while time.monotonic() < until:
            left = await _left(connection)
            if not left["pending"] and not left["unfinished"] and not has_plans():
                return True, passed_seconds
            seconds = left["seconds_to_next"]
            if not left["claimed"] and seconds is not None and seconds > 0:
                await pass_time(connection, seconds + TOGETHER_SECONDS)
                passed_seconds += seconds + TOGETHER_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
        return False, passed_seconds
    finally:
        await connection.close()
