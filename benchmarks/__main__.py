"""`make bench`: requests per second of the routes that users call, beside a route that does nothing, in one run.

The rounds of all rows take turns, so that whatever else the machine does meets each of them. Absolute figures of a
shared machine mean little; the ratio to the floor does.
"""

import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.infrastructure.embedded_postgres import embedded_postgres
from tests.service_process import ServiceProcess
from tests.simulator_server import running_simulator

ROUNDS = 5
ROUND_SECONDS = 2.0
CONCURRENCY = 32
TOPUP_TOKENS = 10**9
RESULTS = Path(__file__).parent / "results"
FLOOR = "healthz"

Request = Callable[[], Awaitable[None]]


async def one_round(request: Request) -> float:
    """Requests per second with CONCURRENCY callers, each asking again as soon as it is answered."""
    end = time.perf_counter() + ROUND_SECONDS
    counts = [0] * CONCURRENCY

    async def call(caller: int) -> None:
        while time.perf_counter() < end:
            await request()
            counts[caller] += 1

    start = time.perf_counter()
    await asyncio.gather(*(call(caller) for caller in range(CONCURRENCY)))
    return sum(counts) / (time.perf_counter() - start)


async def rows_of(session: aiohttp.ClientSession) -> dict[str, Request]:
    user = str(uuid4())
    await fetch(
        session,
        "POST",
        "/webhook/topup",
        json={"external_user_id": user, "amount": TOPUP_TOKENS},
        headers={"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user},
    )
    key = (await fetch(session, "POST", "/auth", json={"external_user_id": user}))["api_key"]
    headers = {"X-API-Key": key}

    async def accept() -> None:
        await fetch(
            session, "POST", "/generations/images/text-to-image", json={"prompt": "a lighthouse"}, headers=headers
        )

    await accept()
    job_id = (await fetch(session, "GET", "/generations?limit=1", headers=headers))["items"][0]["job_id"]

    def get(path: str) -> Request:
        async def request() -> None:
            await fetch(session, "GET", path, headers=headers)

        return request

    return {
        FLOOR: get("/healthz"),
        "balance": get("/balance"),
        "status": get(f"/generations/{job_id}"),
        "list": get("/generations?limit=20"),
        "accept": accept,
    }


async def fetch(session: aiohttp.ClientSession, method: str, path: str, **request: Any) -> dict[str, Any]:
    async with session.request(method, path, **request) as answer:
        body: dict[str, Any] = await answer.json(content_type=None)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path} answers {answer.status}: {body}")
        return body


async def measure(url: str, console: Console) -> dict[str, list[float]]:
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        rows = await rows_of(session)
        figures: dict[str, list[float]] = {name: [] for name in rows}
        with Progress(console=console) as progress:
            task = progress.add_task("measuring", total=ROUNDS * len(rows))
            for _ in range(ROUNDS):
                for name, request in rows.items():
                    progress.update(task, description=name)
                    figures[name].append(await one_round(request))
                    progress.advance(task)
    return figures


def report(figures: dict[str, list[float]], console: Console) -> None:
    floor = statistics.median(figures[FLOOR])
    table = Table("route", "requests/s (median)", "of the floor", title=f"{CONCURRENCY} callers, {ROUNDS} rounds")
    rows = {}
    for name, values in figures.items():
        median = statistics.median(values)
        rows[name] = {"per_second_median": median, "ratio_to_floor": median / floor, "per_second": values}
        table.add_row(name, f"{median:,.0f}", f"{median / floor:.2f}")
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}.json"
    machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    path.write_text(json.dumps({"machine": machine, "concurrency": CONCURRENCY, "rows": rows}, indent=2) + "\n")
    console.print(f"written to {path}")


async def main() -> None:
    console = Console()
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, running_simulator() as simulator:
        async with embedded_postgres(Path(directory)) as dsn:
            settings = {
                "DATABASE_URL": dsn,
                "FAL_KEY": "bench:mark",
                "FAL_QUEUE_URL": simulator,
                "RUNNER": "external",
                "LOG_LEVEL": "WARNING",
                "DATA_DIR": directory,
            }
            with ServiceProcess(Path(directory) / "service.log", settings) as service:
                figures = await measure(service.wait_until_ready().url, console)
    report(figures, console)


if __name__ == "__main__":
    asyncio.run(main())
