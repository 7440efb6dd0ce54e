"""Open streams: what each costs the service's memory, how late its reader hears of an end, and the accepts beside."""

import asyncio
import itertools
from collections.abc import Callable, Sequence

import psutil

from benchmarks.figures import Bar, Figures
from benchmarks.jobs import finish_jobs, service_with_runner
from benchmarks.listeners import Listeners, listening
from benchmarks.load import Load, http_request, measure
from benchmarks.measuring import Options, Run
from benchmarks.rows import accept_requests, get_requests
from benchmarks.seed import User
from benchmarks.stage import Stage
from tests.builders import connect

NAMES = ("streams",)
# Of the 20,000 connections that a process takes at most, two thirds may be streams.
LEVELS = (1_000, 10_000)
LEVELS_QUICK = (50, 100)
WARM_UP_JOBS = 500
PACE_PER_SECOND = 20
# Two of 240 answers are longer than the p99.
PACE_SECONDS = 12.0
SETTLED_SECONDS = 2.0
IDLE = "accept at 20/s, nobody listens"

BARS = (
    Bar("1,000 streams: kB of the service each, above an idle socket", "1,000 streams", None, "<=", 20, "kb_each"),
    Bar("1,000 streams: an end is heard of, p95 ms", "1,000 streams", None, "<=", 200, "p95_ms"),
    Bar(
        "1,000 streams: p99 of accepts, of nobody listening", "accept at 20/s, 1,000 streams", IDLE, "<=", 1.2, "p99_ms"
    ),
    Bar("10,000 streams: kB of the service each, above an idle socket", "10,000 streams", None, "<=", 20, "kb_each"),
    Bar("10,000 streams: an end is heard of, p95 ms", "10,000 streams", None, "<=", 500, "p95_ms"),
)


def estimate_seconds(options: Options) -> float:
    return options.rounds * 3 * (PACE_SECONDS + 4) + 60


async def run_streams(stage: Stage, run: Run) -> None:
    levels = LEVELS_QUICK if run.options.is_quick else LEVELS
    with stage.simulator() as simulator_url:
        async with service_with_runner(stage, simulator_url) as (service, dsn):
            requests = accept_requests(stage.users)
            await finish_jobs(service.port, list(itertools.islice(itertools.cycle(requests), WARM_UP_JOBS)), dsn)
            paced = Load(service.port, 8, requests, 202, PACE_SECONDS, per_second=PACE_PER_SECOND)

            def kb() -> float:
                return psutil.Process(service.process.pid).memory_info().rss / 1000

            idle_kb = await _idle_kb(stage.users, service.port, levels[0], kb)
            accepts: dict[int, list[Figures]] = {level: [] for level in levels}

            async def with_streams(level: int) -> Figures:
                heard: Figures = {}
                before_kb = kb()
                async with listening(Listeners(service.port, _streams(stage.users, level)), heard):
                    each = (kb() - before_kb) / level - idle_kb
                    accepts[level].append(await measure(paced))
                    await asyncio.sleep(SETTLED_SECONDS)
                async with connect(dsn) as connection:
                    assert not await connection.fetchval("SELECT EXISTS (SELECT FROM jobs WHERE NOT is_final)")
                return {**heard, "kb_each": each, "kb_of_an_idle_socket": idle_kb}

            async def beside(level: int) -> Figures:
                return accepts[level].pop(0)

            measures = {IDLE: lambda: measure(paced)}
            for level in levels:
                measures[f"{level:,} streams"] = lambda level=level: with_streams(level)  # type: ignore[misc]
                measures[f"accept at 20/s, {level:,} streams"] = lambda level=level: beside(level)  # type: ignore[misc]
            await run.in_turn("streams", measures)


def _streams(users: Sequence[User], count: int) -> list[str]:
    chosen = itertools.islice(itertools.cycle(users), count)
    return [http_request("GET", "/events/stream", user.headers) for user in chosen]


async def _idle_kb(users: Sequence[User], port: int, count: int, kb: Callable[[], float]) -> float:
    """What a connection costs that has been answered once, and is kept."""
    before_kb = kb()
    requests = list(itertools.islice(itertools.cycle(get_requests("/balance")(users)), count))
    heard: Figures = {}
    async with listening(Listeners(port, requests), heard):
        return max(0.0, (kb() - before_kb) / count)
