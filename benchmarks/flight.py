"""Jobs in flight: what they cost the service's memory and the accepts beside them, while fal takes its time."""

import asyncio
import itertools
import time

import httpx
import psutil

from app.application.execution.pacing import LOOKS_PER_SECOND_MAX
from app.application.execution.steps import FOLLOW_JOB
from benchmarks.figures import Bar, Figures, Row
from benchmarks.jobs import finish_jobs, service_with_runner
from benchmarks.load import Load, LoadError, measure
from benchmarks.measuring import Options, Run
from benchmarks.rows import accept_requests
from benchmarks.stage import Stage
from tests.builders import connect

NAMES = ("flight",)
LEVELS = (5_000, 20_000)
LEVELS_QUICK = (200, 500)
WARM_UP_JOBS = 1_000
FILL_SECONDS_MAX = 300
HELD_SECONDS = 7200
PACE_PER_SECOND = 50
# Six of 600 answers are longer than the p99.
PACE_SECONDS = 12.0
IDLE = "accept at 50/s, idle"
BUSY = "accept at 50/s, jobs in flight"

BARS = (
    Bar("accept with 20,000 jobs in flight: p99 of idle", BUSY, IDLE, "<=", 2, "p99_ms"),
    Bar("memory of the service: bytes per job in flight", "memory of jobs in flight", None, "<", 1000, "bytes_per_job"),
)


def estimate_seconds(options: Options) -> float:
    return options.rounds * 2 * (PACE_SECONDS + 1) + (30 if options.is_quick else 240)


async def run_flight(stage: Stage, run: Run) -> None:
    levels = LEVELS_QUICK if run.options.is_quick else LEVELS
    with stage.simulator() as simulator_url:
        async with service_with_runner(stage, simulator_url) as (service, dsn):
            process = psutil.Process(service.process.pid)
            requests = accept_requests(stage.users)
            paced = Load(service.port, 8, requests, 202, PACE_SECONDS, per_second=PACE_PER_SECOND)

            async def accept_up_to(level: int, deadline: float) -> None:
                async with connect(dsn) as connection:
                    missing = level - await connection.fetchval("SELECT count(*) FROM jobs WHERE NOT is_final")
                more = list(itertools.islice(itertools.cycle(requests), max(0, missing)))
                if more:
                    seconds = max(1.0, deadline - time.monotonic())
                    await measure(Load(service.port, 32, more, 202, seconds, is_once=True))
                await _until_at_fal(dsn, level, deadline)

            def rss_mib() -> float:
                return process.memory_info().rss / 2**20

            async def memory() -> Figures:
                figures = {"rss_mib_idle": idle_mib}
                deadline = time.monotonic() + FILL_SECONDS_MAX
                for level in levels:
                    await accept_up_to(level, deadline)
                    figures[f"rss_mib_{level}"] = rss_mib()
                grown_mib = figures[f"rss_mib_{levels[-1]}"] - figures["rss_mib_idle"]
                return {**figures, "bytes_per_job": grown_mib * 2**20 / levels[-1]}

            await finish_jobs(service.port, list(itertools.islice(itertools.cycle(requests), WARM_UP_JOBS)), dsn)
            idle_mib = rss_mib()
            async with httpx.AsyncClient(base_url=simulator_url, trust_env=False) as http:
                (await http.post("/_sim/config", json={"run_seconds_image": HELD_SECONDS})).raise_for_status()
            await run.in_turn("idle", {IDLE: lambda: measure(paced)})
            await run.in_turn("jobs in flight: memory", {"memory of jobs in flight": memory}, rounds=1)
            if run.rows["memory of jobs in flight"].error is None:
                await spread_looks(dsn)
                await run.in_turn("jobs in flight: accept", {BUSY: lambda: measure(paced)})
            else:
                run.rows[BUSY] = Row(error="there were not as many jobs in flight")


async def spread_looks(dsn: str) -> None:
    """As they are once the jobs have been there for a while: those at jobs that began together come minutes later."""
    async with connect(dsn) as connection:
        await connection.execute(
            "UPDATE pgqueuer SET execute_after = now() + make_interval(secs => random() * $1::int / $2::int)"
            " WHERE entrypoint = $3 AND status = 'queued'",
            await connection.fetchval("SELECT count(*) FROM jobs WHERE NOT is_final"),
            LOOKS_PER_SECOND_MAX,
            FOLLOW_JOB.name,
        )


async def _until_at_fal(dsn: str, level: int, deadline: float) -> None:
    async with connect(dsn) as connection:
        while True:
            at_fal = await connection.fetchval(
                "SELECT count(*) FROM jobs WHERE NOT is_final AND fal_request_id IS NOT NULL"
            )
            if at_fal >= level:
                return
            if time.monotonic() > deadline:
                raise LoadError(f"only {at_fal} of {level} jobs were in flight after {FILL_SECONDS_MAX} s")
            await asyncio.sleep(0.5)
