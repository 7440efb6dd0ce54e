"""What a run needs, all of it its own: PostgreSQL, the simulator, services, floors. Everything ends with the run."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import httpx

from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.migrations import migrate
from benchmarks.seed import User, add_users
from devtools.embedded_postgres import embedded_postgres
from tests.builders import Connection, connect
from tests.service_process import PROJECT_DIR, WITHOUT_LIMITS, ServiceProcess, free_port

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
# pgbench opens one for each of its 128 clients. Everything else is as it comes: fsync and synchronous_commit are on.
CONNECTIONS_MAX = "300"
TEMPLATE = "bench_template"
WEBHOOK_SECRET = "development-webhook-secret"


@contextmanager
def own_process(arguments: Sequence[str], log: Path, health_url: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=PROJECT_DIR, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_until_it_answers(process, health_url, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url, timeout=2, trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.02)
    raise RuntimeError(f"{url} does not answer: {log.read_text()[-2000:]}")


@dataclass(frozen=True, slots=True)
class Stage:
    directory: Path
    users: Sequence[User]
    _server_dsn: str

    def dsn(self, database: str) -> str:
        return urlunsplit(urlsplit(self._server_dsn)._replace(path=f"/{database}"))

    @asynccontextmanager
    async def database(self, template: str = TEMPLATE) -> AsyncIterator[str]:
        """A copy of the template, dropped afterwards; the DSN."""
        name = f"bench_{uuid4().hex}"
        await self.administer(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield self.dsn(name)
        finally:
            await self.administer(f"DROP DATABASE {name} WITH (FORCE)")

    async def administer(self, statement: str) -> None:
        async with connect(self._server_dsn) as connection:
            await connection.execute(statement, timeout=600)

    def settings(self, dsn: str, simulator_url: str | None = None) -> dict[str, str]:
        # Without a simulator nobody listens there, and nothing is ever sent.
        url = simulator_url or "http://127.0.0.1:9"
        return {
            "DATABASE_URL": dsn,
            "FAL_KEY": "bench:mark",
            "FAL_QUEUE_URL": url,
            "FAL_REST_URL": url,
            "FAL_API_URL": f"{url}/v1",
            "DATA_DIR": str(self.directory),
            # What copies take is measured apart: the simulator draws what is fetched.
            "MEDIA_URL": "none",
            **WITHOUT_LIMITS,
        }

    @contextmanager
    def service(self, dsn: str, simulator_url: str | None = None, **settings: str) -> Iterator[ServiceProcess]:
        """Ready. Its settings are the defaults, but for the runner, which is external unless told otherwise."""
        complete = {**self.settings(dsn, simulator_url), "RUNNER": "external", **settings}
        with ServiceProcess(self.directory / f"service-{uuid4().hex[:8]}.log", complete) as service:
            yield service.wait_until_ready()

    @contextmanager
    def simulator(self, **seconds: float) -> Iterator[str]:
        """Its URL; without arguments every run completes at once."""
        port = free_port()
        options = {"queue_seconds": 0.0, "run_seconds_image": 0.0, **seconds}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        url = f"http://127.0.0.1:{port}"
        log = self.directory / "simulator.log"
        with own_process(["simulator", f"--port={port}", *arguments], log, f"{url}/_sim/stats"):
            yield url

    @contextmanager
    def floor(self, what: str, argument: str = "") -> Iterator[int]:
        """Its port."""
        port = free_port()
        log = self.directory / f"{what}.log"
        with own_process(["benchmarks.floor", what, str(port), argument], log, f"http://127.0.0.1:{port}/"):
            yield port

    def nothing(self, answers: Mapping[str, str]) -> Any:
        path = self.directory / "answers.json"
        path.write_text(json.dumps(answers))
        return self.floor("nothing", str(path))


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    home = PROJECT_DIR / ".data"
    home.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="benchmarks-", dir=home))
    try:
        async with embedded_postgres(directory, {"max_connections": CONNECTIONS_MAX}) as server_dsn:
            async with connect(server_dsn) as connection:
                await connection.execute(f"CREATE DATABASE {TEMPLATE}")
            stage = Stage(directory, [], server_dsn)
            async with open_engine(stage.dsn(TEMPLATE)) as engine:
                await migrate(engine)
            async with connect(stage.dsn(TEMPLATE)) as template:
                users = await add_users(template)
            yield Stage(directory, users, server_dsn)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def server_version(connection: Connection) -> str:
    version: str = await connection.fetchval("SHOW server_version")
    return version
