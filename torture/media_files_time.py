"""Lets days pass for files: for what came as data:, for uploads that never ended, and for what kills left."""

import asyncio
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from torture.media_time import until_none
from torture.media_users import past_the_guard

# Housekeeping comes once a minute.
LEFT_SECONDS_MAX = 200
DAYS_SECONDS = 2 * 24 * 3600
# The hour of a file that came as data: is over, and the day after its job is not.
_AFTER_AN_HOUR = """
    UPDATE files SET expires_at = now() - interval '1 second'
     WHERE origin = 'data' AND stored_at IS NOT NULL AND deleted_at IS NULL AND job_id IN (SELECT id FROM jobs)
    RETURNING id::text
"""
_STILL_THERE = "SELECT count(*) FROM files WHERE id = ANY($1::text[]::uuid[]) AND deleted_at IS NULL"
_AFTER_DAYS = (
    """
    UPDATE jobs SET updated_at = updated_at - interval '2 days'
     WHERE id IN (SELECT job_id FROM files WHERE origin = 'data') RETURNING id
    """,
    """
    UPDATE files SET expires_at = now() - interval '1 second'
     WHERE (origin = 'data' OR origin = 'upload' AND stored_at IS NULL) AND deleted_at IS NULL RETURNING id
    """,
)
# What was never seen to be stored may come for a day.
_SINCE_DAYS = """
    UPDATE files SET deleted_at = deleted_at - interval '2 days'
     WHERE deleted_at > now() - interval '1 day' AND erased_at IS NULL
    RETURNING id
"""
_LEFT_TO_EXPIRE = "SELECT count(*) FROM files WHERE expires_at < now() AND deleted_at IS NULL"
_LEFT_TO_ERASE = "SELECT count(*) FROM files WHERE deleted_at IS NOT NULL AND erased_at IS NULL"


@dataclass(frozen=True, slots=True)
class TimePassed:
    left: Sequence[str]
    """To do, in words, after the longest time that it may take."""
    put_off: int
    """Files of data: URIs that are kept for a day after their job."""
    put_off_wrongly: int
    received: Mapping[str, float]
    """What was left in the directory where files are received, before days passed, and when it was last written."""
    received_after: Collection[str]


async def until_files_quiet(dsn: str, directory: Path) -> TimePassed:
    data = [row[0] for row in await past_the_guard(dsn, _AFTER_AN_HOUR)]
    left = {"to expire": await until_none(dsn, _LEFT_TO_EXPIRE)}
    still_there = await _count(dsn, _STILL_THERE, data)
    for statement in _AFTER_DAYS:
        await past_the_guard(dsn, statement)
    received = _written(directory)
    _age(directory)
    left["to expire, days later"] = await until_none(dsn, _LEFT_TO_EXPIRE)
    await past_the_guard(dsn, _SINCE_DAYS)
    left["to erase"] = await until_none(dsn, _LEFT_TO_ERASE)
    await _until_empty(directory)
    return TimePassed(
        left=[f"{count} files are left {what}" for what, count in left.items() if count],
        put_off=len(data),
        put_off_wrongly=len(data) - still_there,
        received=received,
        received_after=_written(directory).keys(),
    )


async def _count(dsn: str, statement: str, *arguments: object) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(statement, *arguments))
    finally:
        await connection.close()


async def _until_empty(directory: Path) -> None:
    until = time.monotonic() + LEFT_SECONDS_MAX
    while time.monotonic() < until:
        if not _written(directory):
            break
        await asyncio.sleep(1)


def _written(directory: Path) -> Mapping[str, float]:
    return {path.name: path.stat().st_mtime for path in directory.iterdir()} if directory.is_dir() else {}


def _age(directory: Path) -> None:
    then = time.time() - DAYS_SECONDS
    for name in _written(directory):
        os.utime(directory / name, (then, then))
