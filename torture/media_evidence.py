"""Asks everybody who knows something of media: the database, the folder, the simulator, every API, and the audit."""

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import asyncpg

from app.domain.files import STORE_PREFIX
from tests.service_process import PROJECT_DIR
from torture.fleet import Fleet
from torture.media_truth import GONE, Audit, Download, File, Findings, Kept, StoredFiles
from torture.media_users import Users, follow

T = TypeVar("T")

AT_ONCE = 8
# Faults of a download end after three times.
TRIES_MAX = 6
AGE_SECONDS = 2 * 24 * 3600
_KEPT = """
    SELECT o.job_id || '-' || o.number AS id, o.job_id::text, j.parameters->>'prompt' AS prompt, o.number,
           coalesce(j.fal_request_id, '') AS fal_request_id, o.stored_at IS NOT NULL AS is_stored, o.size_bytes,
           encode(o.sha256, 'hex') AS sha256, o.deleted_because, extract(epoch FROM o.erased_at)::float AS erased_at,
           j.result IS DISTINCT FROM without_urls(j.result) AS has_urls,
           bool_and(o.deleted_at IS NOT NULL) OVER (PARTITION BY o.job_id) AS is_last
      FROM outputs o JOIN jobs j ON j.id = o.job_id
"""
_TOLD = """
    SELECT job_id || '-' || (facts->>'number') AS id, count(*) FROM events WHERE type = 'output.stored' GROUP BY 1
"""


async def findings_of(
    fleet: Fleet, root: Path, users: Users, views: Mapping[str, Mapping[str, Any]]
) -> tuple[Findings, StoredFiles, Audit]:
    """With what is kept of inputs, and what the first audit said, which removed what it found."""
    connection = await asyncpg.connect(fleet.postgres.dsn)
    try:
        kept = {row["id"]: Kept(**row) for row in await connection.fetch(_KEPT)}
        told = {row["id"]: row["count"] for row in await connection.fetch(_TOLD)}
    finally:
        await connection.close()
    for view in views.values():
        users.remember(view)
    served = await _served(users.session, fleet.simulator_url, kept.values())
    looks = await _looks(users, fleet.urls, kept)
    before, inputs_before = _apart(await asyncio.to_thread(_files, root))
    await asyncio.to_thread(_age, root)
    removed = await _audit(fleet, "--remove")
    after, inputs_after = _apart(await asyncio.to_thread(_files, root))
    findings = Findings(
        kept=kept,
        served=served,
        told=told,
        before=before,
        after=after,
        inputs=len(inputs_after),
        audit=await _audit(fleet),
        looks=looks,
        downloads=users.downloads,
        views=views,
        apis=len(fleet.urls),
    )
    return findings, StoredFiles(inputs_before, inputs_after), removed


async def _served(session: aiohttp.ClientSession, simulator_url: str, kept: Iterable[Kept]) -> Mapping[str, bytes]:
    async def one(each: Kept) -> tuple[str, bytes | None]:
        name = f"{each.fal_request_id}-{each.number + 1}.png"
        url = f"{simulator_url}/files/b/{each.fal_request_id[-8:]}/{name}"
        for _ in range(1 if GONE in each.prompt else TRIES_MAX):
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return each.id, await response.read()
            except aiohttp.ClientError:
                continue
        return each.id, None

    return {output: content for output, content in await a_few_at_once(map(one, kept)) if content is not None}


async def _looks(users: Users, urls: Sequence[str], kept: Mapping[str, Kept]) -> Sequence[Download]:
    known = [output for output in kept if output in users.links]
    asked = (follow(users.session, output, url, users.links[output]) for output in known for url in urls)
    return await a_few_at_once(asked)


async def a_few_at_once(calls: Iterable[Awaitable[T]]) -> list[T]:
    places = asyncio.Semaphore(AT_ONCE)

    async def in_a_place(call: Awaitable[T]) -> T:
        async with places:
            return await call

    return await asyncio.gather(*map(in_a_place, calls))


def _files(root: Path) -> list[File]:
    files = []
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            key, placed_at = path.relative_to(root).as_posix(), path.stat().st_ctime
            files.append(File(key, len(content), hashlib.sha256(content).hexdigest(), placed_at))
    return files


def _apart(files: Sequence[File]) -> tuple[Sequence[File], Sequence[File]]:
    """Outputs, and what is kept as inputs."""
    inputs = [file for file in files if file.key.startswith(f"{STORE_PREFIX}/")]
    return [file for file in files if file not in inputs], inputs


def _age(root: Path) -> None:
    then = time.time() - AGE_SECONDS
    for path in root.rglob("*"):
        os.utime(path, (then, then))


async def _audit(fleet: Fleet, *options: str) -> Audit:
    """As an operator runs it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "app", "media", "verify", *options),
        cwd=fleet.api.process.log.parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT_DIR), "LANG": "C.UTF-8", **fleet.settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return Audit(process.returncode or 0, output.decode())
