"""Asks everybody who knows something of files: rows, store, fal's storage, the owners, and every API."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from torture.callers import Book, Callers
from torture.fleet import Fleet
from torture.media_evidence import a_few_at_once
from torture.media_files import BYTES_MAX, FileUsers
from torture.media_files_time import TimePassed
from torture.media_files_truth import FileFindings, JobWithFiles, KeptFile, Look
from torture.media_truth import StoredFiles
from torture.media_users import follow_whole

_KEPT = """
    SELECT f.id::text, a.external_user_id::text AS user_id, f.size_bytes, encode(f.sha256, 'hex') AS sha256,
           f.stored_at IS NOT NULL AS is_stored, f.deleted_because, extract(epoch FROM f.erased_at)::float AS erased_at
      FROM files f JOIN accounts a ON a.id = f.account_id
     WHERE f.origin <> 'output'
"""
_JOBS = """
    SELECT j.id::text, j.status, j.error_code, j.cost_tokens - j.refunded_tokens AS charged_tokens,
           array_agg(coalesce(f.output_job_id || '-' || f.output_number, f.id::text)) AS files
      FROM jobs j JOIN files f ON f.id = ANY(j.file_ids)
     GROUP BY j.id
"""
# What was large and is forgotten left its size.
_WITH_BYTES = r"""
    SELECT id || ': ' || left(parameters::text, 200) FROM jobs
     WHERE input_bytes IS NOT NULL OR pg_column_size(parameters) > 4000
        OR parameters::text ~ 'base64|data:|iVBORw0KGgo|/9j/'
"""
_COUNTED = "SELECT external_user_id::text AS user_id, files_bytes FROM accounts"


@dataclass(frozen=True, slots=True)
class Kills:
    of_workers: int
    """Which hand files over."""
    last_at: float
    """In seconds since 1970, of whatever process."""


async def file_findings_of(
    fleet: Fleet,
    users: FileUsers,
    session: aiohttp.ClientSession,
    *,
    stored: StoredFiles,
    time: TimePassed,
    kills: Kills,
) -> FileFindings:
    connection = await asyncpg.connect(fleet.postgres.dsn)
    try:
        kept = {row["id"]: KeptFile(**row) for row in await connection.fetch(_KEPT)}
        jobs = [JobWithFiles(**row) for row in await connection.fetch(_JOBS)]
        with_bytes = [row[0] for row in await connection.fetch(_WITH_BYTES)]
        counted = {row["user_id"]: row["files_bytes"] for row in await connection.fetch(_COUNTED)}
    finally:
        await connection.close()
    return FileFindings(
        kept=kept,
        told=users.told,
        given_up=frozenset(users.given_up),
        jobs=jobs,
        with_bytes=with_bytes,
        looks=await _looks(fleet, users, session, kept),
        before=stored.before,
        after=stored.after,
        counted=counted,
        bytes_max=BYTES_MAX,
        is_by_links="PUBLIC_URL" in fleet.settings,
        at_fal=await _at_fal(session, fleet.simulator_url),
        kills=kills.of_workers,
        last_kill_at=kills.last_at,
        refusals=users.refusals,
        full=users.full,
        wrong=users.wrong,
        time=time,
        apis=len(fleet.urls),
    )


async def _looks(
    fleet: Fleet, users: FileUsers, session: aiohttp.ClientSession, kept: Mapping[str, KeptFile]
) -> Sequence[Look]:
    books = {book.user_id: book for book in users.books}

    async def look(caller: Callers, url: str, file: KeptFile, book: Book) -> Look:
        path = f"/files/{file.id}"
        answer = await caller.insist("GET", path, frozenset({200, 404, 410}), headers=book.headers)
        told = users.told.get(file.id)
        if told is None:
            return Look(file.id, answer, None)
        parts = urlsplit(told.view["url"])
        link, content = await follow_whole(session, file.id, url, f"{parts.path}?{parts.query}")
        return Look(file.id, answer, link, content)

    # Of what was never stored nobody was told, and it is answered like an unknown one while it lasts.
    asked = [each for each in kept.values() if each.user_id in books]
    return await a_few_at_once(
        look(caller, url, file, books[file.user_id])
        for file in asked
        for caller, url in zip(users.callers, fleet.urls, strict=True)
    )


async def _at_fal(session: aiohttp.ClientSession, simulator_url: str) -> Mapping[str, int]:
    async def digest(name: str) -> str:
        async with session.get(f"{simulator_url}/files/b/{name}") as response:
            response.raise_for_status()
            return hashlib.sha256(await response.read()).hexdigest()

    async with session.get(f"{simulator_url}/_sim/uploads") as response:
        uploads = (await response.json())["uploads"]
    return Counter(await a_few_at_once(digest(upload["name"]) for upload in uploads))
