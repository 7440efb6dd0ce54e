"""How long a start takes: until the first answer, and until the service says that it can do its work."""

import asyncio
import time
from uuid import uuid4

from benchmarks.figures import Figures
from benchmarks.load import LoadError
from benchmarks.measuring import Options, Run
from benchmarks.stage import Stage
from tests.service_process import ServiceProcess

NAMES = ("start",)
START_SECONDS_MAX = 40
LOOK_SECONDS = 0.005


def estimate_seconds(options: Options) -> float:
    return options.rounds * 5


async def run_startup(stage: Stage, run: Run) -> None:
    await run.in_turn("start", {"start": lambda: _start(stage)})


async def _start(stage: Stage) -> Figures:
    """The whole service, with the runner, on a database that is there and migrated."""
    async with stage.database() as dsn:
        settings = {**stage.settings(dsn), "RUNNER": "embedded"}
        start = time.perf_counter()
        with ServiceProcess(stage.directory / f"start-{uuid4().hex[:8]}.log", settings) as service:
            await _answer(service.port, "/healthz")
            first_answer = time.perf_counter() - start
            await _answer(service.port, "/readyz")
            ready = time.perf_counter() - start
        return {"first_answer_ms": first_answer * 1000, "ready_ms": ready * 1000}


async def _answer(port: int, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(LOOK_SECONDS)
            continue
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            if (await reader.read()).startswith(b"HTTP/1.1 200 "):
                return
        finally:
            writer.close()
        await asyncio.sleep(LOOK_SECONDS)
    raise LoadError(f"{path} was not answered within {START_SECONDS_MAX} s")
