"""A service without a runner, whose jobs, store and fal are what a test makes of them."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.media import StoredCopy
from app.domain.jobs import JobStatus, Outcome
from app.domain.outputs import OutputId
from app.infrastructure.media_links import SignedMediaLinks
from app.infrastructure.postgres.media.copies import PostgresOutputCopies
from tests.builders import Customer, connect, database_copy, job_in, jobs_of, open_account, run_with_engine
from tests.media import MEDIA_DAYS
from tests.service_process import WITHOUT_LIMITS, ServiceProcess

SIGNING_SECRET = "5b1c" * 16
LINKS = SignedMediaLinks([SIGNING_SECRET])
PIECE = bytes(64 * 1024)


class Files(ThreadingHTTPServer):
    """What fal keeps: by its path the bytes, or how many zeros, and the headers."""

    daemon_threads = True
    # Many connections at once must not wait for the system to repeat a handshake.
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.contents: dict[str, tuple[bytes | int, Mapping[str, str]]] = {}
        self.sent_bytes = 0

    def put(self, path: str, content: bytes | int, **headers: str) -> str:
        self.contents[path] = content, {name.replace("_", "-"): value for name, value in headers.items()}
        return f"{self.url}{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Files

    def do_GET(self) -> None:
        if self.path not in self.server.contents:
            self.send_error(404)
            return
        content, headers = self.server.contents[self.path]
        size = content if isinstance(content, int) else len(content)
        start, end = self._range(size)
        if start >= end:
            self._begin(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        is_part = "Range" in self.headers
        told = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if is_part else {}
        is_chunked = "Transfer-Encoding" in headers
        length = {} if is_chunked else {"Content-Length": str(end - start)}
        self._begin(206 if is_part else 200, {**headers, **told, **length})
        try:
            self._send(content, start, end, is_chunked=is_chunked)
        except OSError:
            self.close_connection = True

    def _send(self, content: bytes | int, start: int, end: int, *, is_chunked: bool) -> None:
        while start < end:
            stop = min(end, start + len(PIECE))
            piece = PIECE[: stop - start] if isinstance(content, int) else content[start:stop]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
            self.server.sent_bytes += len(piece)
            start = stop
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _range(self, size: int) -> tuple[int, int]:
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        return (int(first), min(size, int(last) + 1 if last else size)) if first else (size - int(last), size)

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def files_of_fal() -> Iterator[Files]:
    files = Files()
    threading.Thread(target=files.serve_forever, daemon=True).start()
    try:
        yield files
    finally:
        files.shutdown()
        files.server_close()


@dataclass(frozen=True)
class MediaService:
    process: ServiceProcess
    settings: Mapping[str, str]
    files: Files
    database: str
    http: httpx.Client

    @property
    def store(self) -> Path:
        return self.process.log.parent / "media"

    def customer(self) -> Customer:
        return run_with_engine(self.database, lambda engine: open_account(engine, 1000))

    def output(self, url: str, customer: Customer | None = None, **told: object) -> OutputId:
        """Of a job that delivered what is behind the URL."""

        async def make(engine: AsyncEngine) -> OutputId:
            owner = customer or await open_account(engine, 100)
            job_id = await job_in(engine, owner, JobStatus.IN_PROGRESS)
            assert await jobs_of(engine).settle(job_id, Outcome.completed({"images": [{"url": url, **told}]}))
            return OutputId(job_id, 0)

        return run_with_engine(self.database, make)

    def stored(self, content: bytes | int, content_type: str, customer: Customer | None = None) -> OutputId:
        """An output whose copy is there; fal has it no more."""
        output_id = self.output(f"{self.files.url}/gone", customer, content_type="image/png")
        path = self.store / output_id.store_key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(content) if isinstance(content, int) else file.write(content)
        size = content if isinstance(content, int) else len(content)
        digest = hashlib.sha256(b"" if isinstance(content, int) else content).digest()
        copy = StoredCopy(content_type=content_type, size_bytes=size, sha256=digest)

        async def record(engine: AsyncEngine) -> bool:
            return await PostgresOutputCopies(engine, MEDIA_DAYS).record_stored(output_id, copy)

        assert run_with_engine(self.database, record)
        return output_id

    def link(self, output_id: OutputId | str, *, seconds: float = 3600, name: str = "image-1.png") -> str:
        query = LINKS.query_for(str(output_id), datetime.now(UTC) + timedelta(seconds=seconds))
        return f"/media/{output_id}/{name}?{query}"

    def get(self, output_id: OutputId, **headers: str) -> httpx.Response:
        return self.http.get(self.link(output_id), headers={name.replace("_", "-"): headers[name] for name in headers})

    def sql(self, statement: str, *arguments: Any) -> None:
        async def run() -> None:
            async with connect(self.database) as connection:
                await connection.execute(statement, *arguments)

        asyncio.run(run())

    def memory_bytes(self) -> int:
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


@contextmanager
def running_media_service(postgres_dsn: str, template: str, directory: Path, **more: str) -> Iterator[MediaService]:
    with database_copy(postgres_dsn, template) as database, files_of_fal() as files:
        settings = {
            "DATABASE_URL": database,
            "DATA_DIR": str(directory),
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": files.url,
            "RUNNER": "external",
            "SIGNING_SECRET": SIGNING_SECRET,
            **WITHOUT_LIMITS,
            **more,
        }
        with ServiceProcess(directory / "service.log", settings) as process:
            process.wait_until_ready()
            with httpx.Client(base_url=process.url, timeout=60, trust_env=False) as http:
                yield MediaService(process, settings, files, database, http)
