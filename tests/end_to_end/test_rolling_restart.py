"""Two replicas behind a proxy are restarted one after the other under load, and no client sees it.

ROLLING_RESTARTS sets how many restarts, TORTURE_REPORT a file that gets the figures as JSON.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.serving import STOP_SECONDS_MAX
from tests.builders import Connection, connect, until
from tests.service_process import WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator
from tests.torture_report import report

RESTARTS = int(os.environ.get("ROLLING_RESTARTS", "3"))
USERS = 8
TOPUP_TOKENS = 10_000
SMALL_TOPUP_TOKENS = 1
PRICE_TOKENS = 5
PAUSE_SECONDS = 0.25
LOOK_SECONDS = 0.5
# A job takes half a second at the simulator, and one that hangs two more. Below the 10 s after which a dead
# process's queue items are taken over, with room for a busy machine.
JOB_SECONDS_MAX = 9.0
TEXT_TO_IMAGE = "/generations/images/text-to-image"
HEADERS = {"X-Webhook-Secret": "development-webhook-secret"}

pytestmark = pytest.mark.timeout(300 + 40 * RESTARTS)


class Proxy:
    """A balancer on TCP: each new connection goes to the next replica that is ready, and to the one after it where
    that cannot be connected. What has been sent is never sent again.
    """

    def __init__(self, replicas: Sequence[ServiceProcess]) -> None:
        self._replicas = replicas
        self._ready: list[ServiceProcess] = []
        self._turn = 0
        self.connections = 0

    async def until_ready(self, replica: ServiceProcess) -> None:
        async def is_ready() -> bool:
            return replica in self._ready

        await until(is_ready)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        watching = asyncio.create_task(self._watch())
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            async with server:
                yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self) -> None:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:

            async def look(replica: ServiceProcess) -> bool:
                try:
                    return (await http.get(f"{replica.url}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            while True:
                found = await asyncio.gather(*map(look, self._replicas))
                self._ready = [replica for replica, ok in zip(self._replicas, found, strict=True) if ok]
                await asyncio.sleep(LOOK_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_close, writer)
            stack.enter_context(suppress(ConnectionError))
            behind_reader, behind_writer = await self._connect()
            stack.push_async_callback(_close, behind_writer)
            both = [
                asyncio.create_task(_copy(reader, behind_writer)),
                asyncio.create_task(_copy(behind_reader, writer)),
            ]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(len(self._ready)):
            self._turn += 1
            replica = self._ready[self._turn % len(self._ready)]
            with suppress(ConnectionError):
                return await asyncio.open_connection("127.0.0.1", replica.port)
        raise ConnectionRefusedError


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        writer.close()
        await writer.wait_closed()


@dataclass
class Load:
    """Users who do not stop to generate, to look and to pay, each on connections of their own that are kept."""

    url: str
    requests: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    jobs: set[str] = field(default_factory=set)
    topups: int = 0
    is_over: bool = False

    async def run_user(self) -> None:
        user = str(uuid4())
        async with httpx.AsyncClient(base_url=self.url, timeout=15, trust_env=False) as http:
            await self._top_up(http, user, TOPUP_TOKENS)
            answer = await self._ask(http, "POST", "/auth", 201, json={"external_user_id": user})
            http.headers["X-API-Key"] = answer["api_key"]
            mine: list[str] = []
            while not self.is_over:
                job = await self._ask(http, "POST", TEXT_TO_IMAGE, 202, json={"prompt": self._prompt()})
                if "job_id" in job:
                    mine.append(job["job_id"])
                    self.jobs.add(job["job_id"])
                await asyncio.gather(
                    self._ask(http, "GET", f"/generations/{random.choice(mine)}", 200),
                    self._top_up(http, user, SMALL_TOPUP_TOKENS),
                    self._ask(http, "GET", "/balance", 200),
                )
                await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_SECONDS)

    @staticmethod
    def _prompt() -> str:
        """Some are with fal when a replica stops, and some on their way there."""
        return random.choices(["", "[slow:1] ", "[submit:hang:2] "], [8, 1, 1])[0] + str(uuid4())

    async def _top_up(self, http: httpx.AsyncClient, user: str, tokens: int) -> None:
        body = {"external_user_id": user, "amount": tokens}
        await self._ask(http, "POST", "/webhook/topup", 200, json=body, headers=HEADERS | {"X-Event-Id": str(uuid4())})
        self.topups += tokens

    async def _ask(
        self, http: httpx.AsyncClient, method: str, path: str, expected: int, **request: Any
    ) -> dict[str, Any]:
        route = "/generations/{job_id}" if path.startswith("/generations/") and method == "GET" else path
        self.requests[f"{method} {route}"] += 1
        try:
            answer = await http.request(method, path, **request)
        except httpx.TransportError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return {}
        if answer.status_code != expected:
            self.failures.append(f"{method} {path}: {answer.status_code} {answer.text}")
            return {}
        return dict(answer.json())


async def restart(replica: ServiceProcess, proxy: Proxy) -> float:
    """How many seconds the stop took. Returns when the proxy uses the replica again."""
    began = time.monotonic()
    exit_code = await asyncio.to_thread(replica.stop)
    seconds = time.monotonic() - began
    assert exit_code == 0, replica.output()
    replica.start()
    await asyncio.to_thread(replica.wait_until_ready)
    await proxy.until_ready(replica)
    return seconds


async def measure(sql: Connection, simulator: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=simulator, trust_env=False, timeout=60) as fal:
        submits = Counter(entry["input"]["prompt"] for entry in (await fal.get("/_sim/requests")).json()["requests"])
    jobs = await sql.fetch("SELECT parameters ->> 'prompt' AS prompt, status FROM jobs")
    return {
        "jobs": len(jobs),
        "jobs_by_status": dict(Counter(job["status"] for job in jobs)),
        "jobs_not_submitted_once": sum(submits.pop(job["prompt"], 0) != 1 for job in jobs),
        "submits_without_job": submits.total(),
        "job_seconds_max": float(
            await sql.fetchval("SELECT extract(epoch FROM max(updated_at - created_at)) FROM jobs")
        ),
        "refunds": await sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'REFUND'"),
        "credited_tokens": await sql.fetchval(
            "SELECT sum(amount)::bigint FROM ledger_entries WHERE payment_source = 'webhook'"
        ),
        "ledger_violations": await sql.fetchval("SELECT count(*) FROM ledger_violations"),
        "queue_items_left": await sql.fetchval("SELECT count(*) FROM pgqueuer"),
    }


@pytest.mark.alone
async def test_no_client_sees_that_the_replicas_are_restarted(database: str, tmp_path: Path) -> None:
    with running_simulator(queue_seconds=0.2, run_seconds_image=0.3) as simulator:
        settings = {
            "DATABASE_URL": database,
            "FAL_KEY": "test:key",
            **WITHOUT_LIMITS,
            "FAL_QUEUE_URL": simulator,
            "DATA_DIR": str(tmp_path),
            # What production has by default.
            "DRAIN_SECONDS": "3",
        }
        replicas = [ServiceProcess(tmp_path / f"replica-{number}.log", settings) for number in range(2)]
        async with AsyncExitStack() as stack:
            for replica in replicas:
                stack.enter_context(replica)
            for replica in replicas:
                await asyncio.to_thread(replica.wait_until_ready)
            proxy = Proxy(replicas)
            load = Load(await stack.enter_async_context(proxy.running()))
            for replica in replicas:
                await proxy.until_ready(replica)
            users = [asyncio.create_task(load.run_user()) for _ in range(USERS)]
            stops = [await restart(replicas[number % 2], proxy) for number in range(RESTARTS)]
            load.is_over = True
            await asyncio.gather(*users)

            async with connect(database) as sql:

                async def all_are_completed() -> bool:
                    return not await sql.fetchval("SELECT count(*) FROM jobs WHERE status <> 'COMPLETED'")

                with suppress(TimeoutError):
                    await until(all_are_completed, seconds=JOB_SECONDS_MAX)
                found = await measure(sql, simulator)

    figures = {
        "rolling_restarts": len(stops),
        "stop_seconds_max": round(max(stops), 1),
        "requests": dict(load.requests),
        "requests_failed": len(load.failures),
        "connections": proxy.connections,
        **found,
    }
    report("rolling_restart", figures)
    assert load.failures == []
    assert len(stops) == RESTARTS
    assert max(stops) <= STOP_SECONDS_MAX
    assert found["jobs"] == len(load.jobs) > 10 * RESTARTS
    assert found["jobs_by_status"] == {"COMPLETED": len(load.jobs)}
    assert found["jobs_not_submitted_once"] == found["submits_without_job"] == 0
    assert found["job_seconds_max"] < JOB_SECONDS_MAX, figures
    assert found["credited_tokens"] == load.topups
    assert found["refunds"] == found["ledger_violations"] == 0
    assert proxy.connections < load.requests.total(), "no connection was kept"
