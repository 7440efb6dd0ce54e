"""The whole way of a job, from the accept to COMPLETED, through the simulator and with the runner in the service."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

import httpx

from benchmarks.figures import Bar, Figures, percentiles
from benchmarks.load import Load, LoadError, measure
from benchmarks.measuring import Measure, Options, Run
from benchmarks.rows import accept_requests, warm_up
from benchmarks.seed import ACCOUNTS, JOBS_OF_EACH_ACCOUNT
from benchmarks.stage import Stage
from tests.builders import Connection, connect
from tests.service_process import ServiceProcess, free_port

NAMES = ("runner", "completed", "lag")
JOBS = 1000
JOBS_QUICK = 100
COMPLETED_SECONDS_MAX = 60
WARM_UP_SECONDS_MAX = 120
# fal takes seconds; here the run must only outlast the answer to its submission.
LAG_RUN_SECONDS = 0.5
LAG_PER_SECOND = 20
LAG_SECONDS = 5
SETTLED_SECONDS_MAX = 10
LOOK_SECONDS = 0.005

BARS = (
    Bar("accept while the runner works: of accept alone", "accept with runner c=32", "accept alone c=32", ">=", 0.5),
    Bar(
        "completed by webhook: of the accept rate",
        "completed by webhook",
        "accept alone c=32",
        ">=",
        0.15,
    ),
    Bar("COMPLETED visible after fal's end, by webhook: p95 ms", "lag by webhook", None, "<=", 100, "p95_ms"),
)


@asynccontextmanager
async def service_with_runner(
    stage: Stage, simulator_url: str, *, has_webhooks: bool = True
) -> AsyncIterator[tuple[ServiceProcess, str]]:
    """On a database of its own, so that no job of an earlier round is left to work on; the DSN comes with it."""
    port = str(free_port())
    settings = {"PUBLIC_URL": f"http://127.0.0.1:{port}"} if has_webhooks else {}
    async with stage.database() as dsn:
        with stage.service(dsn, simulator_url, PORT=port, RUNNER="embedded", **settings) as service:
            yield service, dsn


def estimate_seconds(options: Options) -> float:
    a_round = 2 * options.wants("runner") * (options.seconds + 5) + 2 * options.wants("completed") * 15
    return options.rounds * (a_round + 2 * options.wants("lag") * (LAG_SECONDS + 6))


async def run_jobs(stage: Stage, run: Run) -> None:
    options = run.options
    jobs = JOBS_QUICK if options.is_quick else JOBS
    with stage.simulator() as simulator_url:
        measures: dict[str, Measure] = {}
        if options.wants("runner", "completed"):
            measures["accept alone c=32"] = lambda: _accept_alone(stage, options.seconds)
        if options.wants("runner"):
            measures["accept with runner c=32"] = lambda: _accept_with_runner(stage, simulator_url, options.seconds)
        if options.wants("completed"):
            measures["completed by webhook"] = lambda: _completed(stage, simulator_url, jobs, has_webhooks=True)
            measures["completed by polling"] = lambda: _completed(stage, simulator_url, jobs, has_webhooks=False)
        await run.in_turn("jobs", measures)
    if options.wants("lag"):
        await run.in_turn(
            "from fal's end to COMPLETED",
            {
                "lag by webhook": lambda: _lag(stage, has_webhooks=True),
                "lag by polling": lambda: _lag(stage, has_webhooks=False),
            },
        )


async def _accept_alone(stage: Stage, seconds: float) -> Figures:
    async with stage.database() as dsn:
        with stage.service(dsn) as service:
            await warm_up(stage.users, service.port)
            return await measure(Load(service.port, 32, accept_requests(stage.users), 202, seconds))


async def _accept_with_runner(stage: Stage, simulator_url: str, seconds: float) -> Figures:
    async with service_with_runner(stage, simulator_url) as (service, dsn):
        await warm_up(stage.users, service.port)
        figures = await measure(Load(service.port, 32, accept_requests(stage.users), 202, seconds))
        async with connect(dsn) as connection:
            # Shows that the runner did work.
            final = await connection.fetchval("SELECT count(*) FROM jobs WHERE is_final")
            figures["finished_meanwhile"] = final - ACCOUNTS * JOBS_OF_EACH_ACCOUNT
        return figures


async def finish_jobs(port: int, requests: list[str], dsn: str) -> None:
    """Until they are over: what a process does and allocates once, for its first jobs, is behind it then."""
    await measure(Load(port, 32, requests, 202, WARM_UP_SECONDS_MAX, is_once=True))
    async with connect(dsn) as connection, asyncio.timeout(WARM_UP_SECONDS_MAX):
        await _until_all_are_final(connection)


async def _until_all_are_final(connection: Connection) -> None:
    while await connection.fetchval("SELECT EXISTS (SELECT FROM jobs WHERE NOT is_final)"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def _completed(stage: Stage, simulator_url: str, jobs: int, *, has_webhooks: bool) -> Figures:
    """Jobs per second from the first accept to the last COMPLETED."""
    async with service_with_runner(stage, simulator_url, has_webhooks=has_webhooks) as (service, dsn):
        requests = list(itertools.islice(itertools.cycle(accept_requests(stage.users)), jobs))
        # The accepts that this is compared with are warmed up, too.
        await finish_jobs(service.port, requests, dsn)
        async with connect(dsn) as connection:
            began_at = await connection.fetchval("SELECT clock_timestamp()")
            await measure(Load(service.port, 32, requests, 202, COMPLETED_SECONDS_MAX, is_once=True))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPLETED_SECONDS_MAX):
                    await _until_all_are_final(connection)
            # By the database's clock: the callers' process needs a moment to start, and this one looks now and then.
            lives = await connection.fetch(
                "SELECT extract(epoch FROM created_at)::float8 AS accepted,"
                " extract(epoch FROM updated_at)::float8 AS ended"
                " FROM jobs WHERE status = 'COMPLETED' AND created_at >= $1",
                began_at,
            )
    if len(lives) < jobs:
        raise LoadError(f"{len(lives)} of {jobs} jobs were COMPLETED within {COMPLETED_SECONDS_MAX} s")
    seconds = max(life["ended"] for life in lives) - min(life["accepted"] for life in lives)
    latencies = [(life["ended"] - life["accepted"]) * 1000 for life in lives]
    return {"per_second": len(lives) / seconds, "count": len(lives), **percentiles(latencies)}


async def _lag(stage: Stage, *, has_webhooks: bool) -> Figures:
    """From the end of a run, as the simulator plans it, until a query finds the job settled; one clock for both."""
    with stage.simulator(run_seconds_image=LAG_RUN_SECONDS) as simulator_url:
        async with service_with_runner(stage, simulator_url, has_webhooks=has_webhooks) as (service, dsn):
            seen: dict[str, float] = {}
            looking = asyncio.create_task(_look(dsn, seen))
            try:
                requests = accept_requests(stage.users)
                await measure(Load(service.port, 8, requests, 202, LAG_SECONDS, per_second=LAG_PER_SECOND))
                await _all_seen(seen, round(LAG_SECONDS * LAG_PER_SECOND))
            finally:
                looking.cancel()
                await asyncio.wait({looking})
        async with httpx.AsyncClient(base_url=simulator_url, trust_env=False) as http:
            known = (await http.get("/_sim/requests")).raise_for_status().json()["requests"]
    lags = [
        (seen[request["request_id"]] - datetime.fromisoformat(request["ended_at"]).timestamp()) * 1000
        for request in known
        if request["request_id"] in seen
    ]
    if len(lags) < LAG_SECONDS * LAG_PER_SECOND * 0.95:
        raise LoadError(f"only {len(lags)} of {len(known)} jobs were seen to settle")
    return {"count": len(lags), **percentiles(lags)}


async def _all_seen(seen: Mapping[str, float], count: int) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while len(seen) < count and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def _look(dsn: str, seen: dict[str, float]) -> None:
    """When each request of fal was first not among the unfinished ones any more; these are few, and have an index."""
    unfinished: set[str] = set()
    async with connect(dsn) as connection:
        while True:
            found = await connection.fetch("SELECT fal_request_id FROM jobs WHERE NOT is_final")
            now = time.time()
            present = {row["fal_request_id"] for row in found if row["fal_request_id"]}
            for request in unfinished - present:
                seen[request] = now
            unfinished = present
            await asyncio.sleep(LOOK_SECONDS)
