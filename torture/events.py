"""The log of events: whoever goes on from a place misses nothing and gets nothing twice, whatever ends meanwhile.

Three parts, each on a database of its own:

1. kill -9 of APIs and workers, each of which may be the one that orders the log, while events come through the API.
   Of each account one reader pages by its cursor, and one follows the stream and goes on at another process where it
   ends.
2. Very many events of one account, written by SQL (see `event_bulk.py`), ordered by running processes, and read
   by one cursor through the API at the same time.
3. One API after the other is stopped by SIGTERM and started again, while some hundred streams are open.

What was read is held against the log, and the log against the jobs and the ledger.
"""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torture.event_bulk import EVENTS, MARK_TOKENS, START_TOKENS, Bulk
from torture.event_readers import PageReader, StreamReader, reading
from torture.event_stage import APIS, open_stage
from torture.event_writers import EVENTS_EACH
from torture.kills import KILL_SECONDS, KILLS, kill_members
from torture.report import Check, Outcome, Plan
from torture.timeline import Timeline, sampled
from torture.under_load import Trouble

KILLED_EVENTS = 50_000
KILLED_ACCOUNTS = 20

MANY_EVENTS = 1_000_000
MANY_SECONDS_MAX = 3_600

STREAMS = 300
STREAMS_EACH = 10
RESTARTS = 24
RESTART_SECONDS = 6.0
ROLLING_PER_SECOND = 10
PAUSE_SECONDS = 1.0
OPEN_SECONDS_MAX = 60


async def events(plan: Plan) -> Outcome:
    directory = plan.directory / "events"
    directory.mkdir()
    inner = replace(plan, directory=directory)
    began = time.monotonic()
    timeline = Timeline()
    parts = {
        "with kills": await with_kills(inner, timeline),
        "very many": await very_many(inner),
        "rolling restarts": await rolling_restarts(inner),
    }
    checks = [replace(check, claim=f"{name}: {check.claim}") for name, (checks, _) in parts.items() for check in checks]
    counts = {name: counts for name, (_, counts) in parts.items()}
    return Outcome("events", checks, counts, timeline, time.monotonic() - began)


Part = tuple[list[Check], dict[str, Any]]


async def with_kills(plan: Plan, timeline: Timeline) -> Part:
    rng = random.Random(f"{plan.seed}/events with kills")
    kills, least = plan.count(KILLS), plan.count(KILLED_EVENTS)
    seconds = kills * KILL_SECONDS
    async with open_stage(plan, "kills", KILLED_ACCOUNTS) as stage:
        pages = [PageReader(stage.session, stage.urls, book, n) for n, book in enumerate(stage.books)]
        streams = [StreamReader(stage.session, stage.urls, book, n + 1) for n, book in enumerate(stage.books)]
        trouble = Trouble(stage.fleet, timeline, rng, may_end=True)
        async with sampled(timeline, stage.dsn), reading([*pages, *streams]):

            async def trouble_them() -> None:
                await kill_members(trouble, kills)

            pace = (round(least / EVENTS_EACH), seconds)
            done = await stage.write_beside(plan, trouble_them, rng, pace, least)
            checks = await stage.settle([*pages, *streams])
        checks += [
            Check(f"at least {least:,} events", stage.seen, [] if stage.seen >= least else [f"{stage.seen:,}"]),
            *await stage.checks(await stage.truth(), {"pages": pages, "streams": streams}),
        ]
    gaps = [gap for stream in streams for gap in stream.gaps_seconds]
    counts = {
        **trouble.counts,
        "events": stage.seen,
        "operations": dict(done.done),
        "streams_went_on": len(gaps),
        **_of_gaps(gaps),
    }
    return checks, counts


async def very_many(plan: Plan) -> Part:
    rng = random.Random(f"{plan.seed}/very many events")
    batches = max(1, plan.count(MANY_EVENTS) // EVENTS)
    async with (
        open_stage(plan, "many", 1, tokens=START_TOKENS, mark_tokens=MARK_TOKENS) as stage,
        asyncio.timeout(MANY_SECONDS_MAX),
    ):
        (book,) = stage.books
        reader = PageReader(stage.session, stage.urls, book)
        async with reading([reader]):
            began = time.monotonic()
            async with stage.told(plan, began):
                await Bulk(stage.dsn, book.user_id, batches, rng).write()
                written_seconds = time.monotonic() - began
                checks = await stage.settle([reader])
                read_seconds = time.monotonic() - began
        checks += await stage.checks(await stage.truth(), {"one cursor": [reader]})
    counts = {
        "events": stage.seen,
        "seconds_to_write": written_seconds,
        "seconds_to_order": stage.sequenced_at - began,
        "seconds_to_read": read_seconds,
        "written_per_second": stage.seen / written_seconds,
        "ordered_per_second": stage.seen / (stage.sequenced_at - began),
        "read_per_second": len(reader.told) / read_seconds,
    }
    return checks, counts


async def rolling_restarts(plan: Plan) -> Part:
    rng = random.Random(f"{plan.seed}/rolling restarts")
    streams, restarts = plan.count(STREAMS), max(APIS, plan.count(RESTARTS))
    async with open_stage(plan, "rolling", max(1, streams // STREAMS_EACH)) as stage:
        readers = [
            StreamReader(stage.session, stage.urls, book, number)
            for number, book in zip(range(streams), itertools.cycle(stage.books))
        ]
        stops: list[float] = []
        exits: list[str] = []

        async def restart_all() -> None:
            for number in range(restarts):
                api = stage.fleet.apis[number % APIS]
                began = time.monotonic()
                code = await asyncio.to_thread(api.process.stop)
                stops.append(time.monotonic() - began)
                if code:
                    exits.append(f"{api.name} ended with {code}")
                api.start()
                await asyncio.to_thread(api.process.wait_until_ready)
                await asyncio.sleep(PAUSE_SECONDS)

        async with reading(readers):
            await _until_open(readers)
            seconds = restarts * RESTART_SECONDS
            done = await stage.write_beside(plan, restart_all, rng, (round(seconds * ROLLING_PER_SECOND), seconds), 1)
            checks = await stage.settle(readers)
        gaps = [gap for reader in readers for gap in reader.gaps_seconds]
        checks += [
            Check("every stop is clean", len(stops), exits),
            *await stage.checks(await stage.truth(), {f"{streams} streams": readers}),
        ]
    lags = sorted(lag for reader in readers for lag in reader.lags_seconds)
    counts = {
        "restarts": restarts,
        "streams": streams,
        "events": stage.seen,
        "messages": sum(len(reader.told) for reader in readers),
        "operations": dict(done.done),
        "streams_went_on": len(gaps),
        **_of_gaps(gaps),
        "lag_seconds_median": statistics.median(lags) if lags else 0.0,
        "lag_seconds_max": max(lags, default=0.0),
        "stop_seconds_max": max(stops),
    }
    return checks, counts


def _of_gaps(gaps: Sequence[float]) -> dict[str, float]:
    return {"gap_seconds_median": statistics.median(gaps), "gap_seconds_max": max(gaps)} if gaps else {}


async def _until_open(readers: Sequence[StreamReader]) -> None:
    until = time.monotonic() + OPEN_SECONDS_MAX
    while not all(reader.is_open for reader in readers):
        assert time.monotonic() < until, [reader.wrong for reader in readers if not reader.is_open][:3]
        await asyncio.sleep(0.1)
