"""Media: 2 GiB through copy and download with the memory that takes, how late the copy of a picture is, and what copies
cost those who start jobs.

Outputs come from a process on the same machine that does nothing else, and are copied into a folder on its disk.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.figures import Bar, Figures, percentiles
from benchmarks.film_server import filming
from benchmarks.load import Load, LoadError, measure
from benchmarks.measuring import Options, Run
from benchmarks.rows import accept_requests
from benchmarks.seed import User
from benchmarks.stage import Stage
from tests.builders import connect
from tests.service_process import ServiceProcess

NAMES = ("media",)
ROUNDS_MAX = 3
GIB = 2**30
FILM_BYTES, FILM_BYTES_QUICK = 2 * GIB, GIB // 16
PICTURE_BYTES = 2_000_000
PICTURES, PICTURES_QUICK = 200, 10
PICTURES_PER_SECOND = 10
PACED_FILMS, PACE_MB_PER_SECOND = 4, 25
ACCEPTS_PER_SECOND = 20
ACCEPT_SECONDS, ACCEPT_SECONDS_QUICK = 15, 2
SECONDS_MAX = 300
COPY, DOWNLOAD, PICTURE = "copy of a film", "download of a film", "copies of 2 MB pictures"
IDLE, BESIDE = f"accept at {ACCEPTS_PER_SECOND}/s, nothing is copied", f"accept at {ACCEPTS_PER_SECOND}/s, copies"

BARS = (
    Bar("2 GiB through the copy: more memory, MiB", COPY, None, "<=", 64, "more_memory_mib"),
    Bar("2 GiB through the download: more memory, MiB", DOWNLOAD, None, "<=", 64, "more_memory_mib"),
    Bar("a 2 MB picture, from its end to its copy: p95 ms", PICTURE, None, "<=", 300, "p95_ms"),
    Bar("accepts' p99 while 100 MB/s are copied, of idle", BESIDE, IDLE, "<=", 1.2, "p99_ms"),
)

_LAGS = """
SELECT extract(epoch FROM output.stored_at - job.updated_at)::float * 1000 AS lag_ms, output.size_bytes
  FROM outputs AS output JOIN jobs AS job ON job.id = output.job_id WHERE output.stored_at IS NOT NULL
"""


def estimate_seconds(options: Options) -> float:
    return 30 + min(ROUNDS_MAX, options.rounds) * (120 if not options.is_quick else 20)


@dataclass(slots=True)
class _Memory:
    """The most that the service had more than at the beginning."""

    process: psutil.Process
    before: int = 0
    most: int = field(default=0)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        self.before = self.most = self.process.memory_info().rss
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, self.process.memory_info().rss)
            await asyncio.sleep(0.02)

    @property
    def more_mib(self) -> float:
        return (self.most - self.before) / 2**20


@dataclass(frozen=True, slots=True)
class _Place:
    service: ServiceProcess
    dsn: str
    http: httpx.AsyncClient
    user: User
    others: list[User]
    is_quick: bool

    @property
    def film_bytes(self) -> int:
        return FILM_BYTES_QUICK if self.is_quick else FILM_BYTES

    @property
    def accept_seconds(self) -> float:
        return ACCEPT_SECONDS_QUICK if self.is_quick else ACCEPT_SECONDS

    async def start(self, prompt: str) -> str:
        asked = await self.http.post(
            "/generations/images/text-to-image", json={"prompt": prompt}, headers=self.user.headers
        )
        asked.raise_for_status()
        return str(asked.json()["job_id"])

    async def output(self, job_id: str, *, is_stored: bool) -> dict[str, Any]:
        """Once the job is completed, and its output stored."""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            job = (await self.http.get(f"/generations/{job_id}", headers=self.user.headers)).json()
            if job["outputs"] and (job["outputs"][0]["is_stored"] or not is_stored):
                return dict(job["outputs"][0])
            await asyncio.sleep(0.02)
        raise LoadError(f"a film was not copied within {SECONDS_MAX} s")


async def run_media(stage: Stage, run: Run) -> None:
    async with filming() as films, stage.database() as dsn:
        settings = {"RUNNER": "embedded", "MEDIA_URL": (stage.directory / "media").as_uri(), "FAL_CONCURRENCY": "0"}
        with stage.service(dsn, films.url, **settings) as service:
            async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=60) as http:
                user, *others = stage.users
                place = _Place(service, dsn, http, user, others, run.options.is_quick)
                await run.in_turn(
                    "media",
                    {
                        COPY: lambda: _copy(place),
                        DOWNLOAD: lambda: _download(place),
                        PICTURE: lambda: _pictures(place),
                        IDLE: lambda: _accepts(place),
                        BESIDE: lambda: _accepts_beside(place),
                    },
                    rounds=min(ROUNDS_MAX, run.options.rounds),
                )


async def _copy(place: _Place) -> Figures:
    memory = _Memory(psutil.Process(place.service.process.pid))
    async with memory.watching():
        job_id = await place.start(str(place.film_bytes))
        await place.output(job_id, is_stored=False)
        began_at = time.monotonic()
        await place.output(job_id, is_stored=True)
        seconds = time.monotonic() - began_at
    await _delete(place, job_id)
    return {"mb_per_second": place.film_bytes / 1e6 / seconds, "more_memory_mib": memory.more_mib}


async def _download(place: _Place) -> Figures:
    job_id = await place.start(str(place.film_bytes))
    output = await place.output(job_id, is_stored=True)
    memory = _Memory(psutil.Process(place.service.process.pid))
    async with memory.watching():
        began_at = time.monotonic()
        await _read_all(output["url"], place.film_bytes)
        seconds = time.monotonic() - began_at
    await _delete(place, job_id)
    return {"mb_per_second": place.film_bytes / 1e6 / seconds, "more_memory_mib": memory.more_mib}


async def _read_all(url: str, size_bytes: int) -> None:
    """Without a library for HTTP, which would take longer than the service does."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
    request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise LoadError(head.decode())
    read = 0
    while chunk := await reader.read(2**20):
        read += len(chunk)
    writer.close()
    if read != size_bytes:
        raise LoadError(f"{read} of {size_bytes} bytes came")


async def _pictures(place: _Place) -> Figures:
    count = PICTURES_QUICK if place.is_quick else PICTURES
    async with connect(place.dsn) as connection:
        before = await connection.fetchval("SELECT count(*) FROM outputs WHERE stored_at IS NOT NULL")
    job_ids = []
    for _ in range(count):
        job_ids.append(await place.start(str(PICTURE_BYTES)))
        await asyncio.sleep(1 / PICTURES_PER_SECOND)
    for job_id in job_ids:
        await place.output(job_id, is_stored=True)
    async with connect(place.dsn) as connection:
        rows = await connection.fetch(f"{_LAGS} ORDER BY output.stored_at OFFSET $1", before)
    lags = [row["lag_ms"] for row in rows if row["size_bytes"] == PICTURE_BYTES]
    for job_id in job_ids:
        await _delete(place, job_id)
    return {"count": len(lags), **percentiles(lags)}


async def _accepts(place: _Place) -> Figures:
    requests = accept_requests(place.others)
    load = Load(place.service.port, 8, requests, 202, place.accept_seconds, per_second=ACCEPTS_PER_SECOND)
    return await measure(load)


async def _accepts_beside(place: _Place) -> Figures:
    size_bytes = int(PACE_MB_PER_SECOND * 1e6 * (place.accept_seconds + 4))
    job_ids = [await place.start(f"{size_bytes} {PACE_MB_PER_SECOND}") for _ in range(PACED_FILMS)]
    for job_id in job_ids:
        await place.output(job_id, is_stored=False)
    await asyncio.sleep(0.5)
    figures = await _accepts(place)
    for job_id in job_ids:
        await place.output(job_id, is_stored=True)
        await _delete(place, job_id)
    return {**figures, "copied_mb_per_second": float(PACED_FILMS * PACE_MB_PER_SECOND)}


async def _delete(place: _Place, job_id: str) -> None:
    (await place.http.delete(f"/generations/{job_id}/media", headers=place.user.headers)).raise_for_status()
