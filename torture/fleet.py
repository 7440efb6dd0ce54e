"""One PostgreSQL, one simulator, APIs that only accept, and workers: each a process that can be taken away."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx

from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.migrations import migrate
from devtools.embedded_postgres import embedded_postgres_blocking
from tests.service_process import PROJECT_DIR, WITHOUT_LIMITS, ServiceProcess, free_port

QUEUE_SECONDS = 0.2
RUN_SECONDS = 0.8
# Longer than anything takes that was not lost, also through the longest outage (60 s) and the pause of fal's webhooks
# that it leads to (64 s); short enough for what was lost to end within the run.
TIME_LIMIT_SECONDS = 180
START_SECONDS_MAX = 60
SIMULATOR_SECONDS_MAX = 30
READY_LOG_BYTES = 400_000


class Postgres:
    """The embedded server with its own settings for durability, and a way to end it without a clean shutdown."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self.dsn = ""

    def start(self) -> None:
        dsn = self._running.enter_context(embedded_postgres_blocking(self._directory, {"max_connections": "300"}))
        assert self.dsn in ("", dsn), "the server moved to another socket"
        self.dsn = dsn

    def crash(self) -> None:
        """As `pg_ctl stop -m immediate`: every backend quits at once, and the next start recovers from the log."""
        pid = int((self._directory / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
        self._running.close()

    def stop(self) -> None:
        self._running.close()


class Member:
    """One process of the service. It is ready once its log since the last start says so."""

    def __init__(self, name: str, process: ServiceProcess, ready_event: str) -> None:
        self.name = name
        self.process = process
        self._ready_event = ready_event.encode()
        self._log_offset = 0
        self.starts = 0

    def start(self) -> None:
        log = self.process.log
        self._log_offset = log.stat().st_size if log.exists() else 0
        self.starts += 1
        self.process.start()

    def is_ready(self) -> bool:
        with self.process.log.open("rb") as log:
            log.seek(self._log_offset)
            return self._ready_event in log.read(READY_LOG_BYTES)

    def has_ended(self) -> bool:
        return self.process.process.poll() is not None

    def logged(self, event: str) -> list[str]:
        """The lines with the event, over all its lives."""
        with self.process.log.open(errors="replace") as log:
            return [f"{self.name}: {line.strip()}" for line in log if event in line]


class Fleet:
    def __init__(
        self,
        directory: Path,
        postgres: Postgres,
        simulator_url: str,
        *,
        workers: int,
        apis: int,
        others: Mapping[str, str | None],
    ) -> None:
        self.postgres = postgres
        self.simulator_url = simulator_url
        ports = [free_port() for _ in range(apis)]
        chosen = {
            "DATABASE_URL": postgres.dsn,
            "FAL_KEY": "torture:key",
            "FAL_QUEUE_URL": simulator_url,
            "FAL_REST_URL": simulator_url,
            # fal's webhooks come to the first.
            "PUBLIC_URL": f"http://127.0.0.1:{ports[0]}",
            "IMAGE_TIME_LIMIT_SECONDS": str(TIME_LIMIT_SECONDS),
            "DATA_DIR": str(directory),
            **WITHOUT_LIMITS,
            **others,
        }
        settings = {name: value for name, value in chosen.items() if value is not None}
        self.settings = settings
        self.apis = [
            Member(
                name,
                ServiceProcess(
                    directory / f"{name.replace(' ', '-')}.log", settings | {"RUNNER": "external", "PORT": str(port)}
                ),
                "service_ready",
            )
            for name, port in zip(["api", *(f"api {number}" for number in range(2, apis + 1))], ports, strict=True)
        ]
        self.workers = [
            Member(
                f"worker {number}",
                ServiceProcess(directory / f"worker-{number}.log", settings, "worker"),
                "runner_started",
            )
            for number in range(1, workers + 1)
        ]

    @property
    def members(self) -> list[Member]:
        return [*self.apis, *self.workers]

    @property
    def api(self) -> Member:
        return self.apis[0]

    @property
    def url(self) -> str:
        return self.api.process.url

    @property
    def urls(self) -> list[str]:
        return [api.process.url for api in self.apis]

    async def until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not all(member.is_ready() for member in self.members):
            for member in self.members:
                assert not member.has_ended(), f"{member.name} ended: {member.process.output()[-2000:]}"
            assert time.monotonic() < deadline, "the service did not start"
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        for member in self.members:
            if not member.has_ended():
                member.process.process.send_signal(signal.SIGTERM)
        for member in self.members:
            member.process.__exit__(None, None, None)


@asynccontextmanager
async def running_fleet(
    directory: Path, *, workers: int = 2, apis: int = 1, settings: Mapping[str, str | None] | None = None
) -> AsyncIterator[Fleet]:
    """Everything started and ready; a setting that is None is not set.

    `directory` gets the logs; PostgreSQL's files are dropped at the end.
    """
    with tempfile.TemporaryDirectory(prefix="torture-", dir="/tmp") as files, ExitStack() as stack:
        postgres = Postgres(Path(files))
        await asyncio.to_thread(postgres.start)
        stack.callback(postgres.stop)
        async with open_engine(postgres.dsn) as engine:
            await migrate(engine)
        simulator_url = stack.enter_context(_Simulator(directory / "simulator.log"))
        fleet = Fleet(directory, postgres, simulator_url, workers=workers, apis=apis, others=settings or {})
        stack.callback(fleet.stop)
        for member in fleet.members:
            member.start()
        await fleet.until_ready()
        yield fleet


class _Simulator:
    """A process of its own, so that its work does not hold up the callers. It is never killed: fal remembers."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> str:
        port = free_port()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "simulator",
                    f"--port={port}",
                    f"--queue-seconds={QUEUE_SECONDS}",
                    f"--run-seconds-image={RUN_SECONDS}",
                    f"--parent-pid={os.getpid()}",
                ],
                cwd=PROJECT_DIR,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + SIMULATOR_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/_sim/stats", trust_env=False).raise_for_status()
                return url
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"the simulator did not start: {self._log.read_text()}")

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)
