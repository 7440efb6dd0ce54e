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
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from torture.callers import Book, Callers
from torture.event_bulk import EVENTS, MARK_TOKENS, START_TOKENS, Bulk
from torture.event_readers import PageReader, Reader, StreamReader, reading, reading_session
from torture.event_truth import last_seqs, log_checks, reader_checks, truth_of, until_read, until_sequenced
from torture.event_writers import EVENTS_EACH, Writers, answers_are_right, calling_all, open_books
from torture.evidence import ledger_violations, until_settled
from torture.fleet import Fleet, running_fleet
from torture.kills import KILL_SECONDS, KILLS, kill_members
from torture.report import Check, Outcome, Plan
from torture.timeline import Timeline, sampled
from torture.under_load import Trouble, no_bug_is_logged

APIS = 3
WORKERS = 2
KILLED_EVENTS = 50_000
KILLED_ACCOUNTS = 20
# Longer than anything takes here that was not lost with its process; what was ends then.
SETTINGS = {"IMAGE_TIME_LIMIT_SECONDS": "90"}
# Beyond what was planned; whatever is missing then is said.
LATE_SECONDS_MAX = 300
LOOK_SECONDS = 2.0

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
    async with _stage(plan, "kills", KILLED_ACCOUNTS) as stage:
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
            *await stage.checks({"pages": pages, "streams": streams}),
        ]
    gaps = [gap for stream in streams for gap in stream.gaps_seconds]
    counts = {**trouble.counts, "events": stage.seen, **done, "streams_went_on": len(gaps), **_of_gaps(gaps)}
    return checks, counts


async def very_many(plan: Plan) -> Part:
    rng = random.Random(f"{plan.seed}/very many events")
    batches = max(1, plan.count(MANY_EVENTS) // EVENTS)
    async with (
        _stage(plan, "many", 1, tokens=START_TOKENS, mark_tokens=MARK_TOKENS) as stage,
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
        checks += await stage.checks({"one cursor": [reader]})
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
    async with _stage(plan, "rolling", max(1, streams // STREAMS_EACH)) as stage:
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
            *await stage.checks({f"{streams} streams": readers}),
        ]
    lags = sorted(lag for reader in readers for lag in reader.lags_seconds)
    counts = {
        "restarts": restarts,
        "streams": streams,
        "events": stage.seen,
        "messages": sum(len(reader.told) for reader in readers),
        **done,
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


@dataclass(slots=True)
class _Stage:
    """One part's processes, accounts and callers, and what becomes of them at the end."""

    fleet: Fleet
    callers: Sequence[Callers]
    books: Sequence[Book]
    session: Any
    seen: int = 0
    """How many events the log had when it was last looked at."""
    sequenced_at: float = field(default=0.0)

    @property
    def dsn(self) -> str:
        return self.fleet.postgres.dsn

    @property
    def urls(self) -> list[str]:
        return self.fleet.urls

    async def write_beside(
        self,
        plan: Plan,
        trouble: Callable[[], Awaitable[None]],
        rng: random.Random,
        pace: tuple[int, float],
        least: int,
    ) -> dict[str, Any]:
        """Until the trouble is over and the log has `least` events. The pace: how many operations in how long."""

        async def trouble_them() -> None:
            await trouble()

        async with self.told(plan, time.monotonic()), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(trouble_them())
            count, seconds = pace
            writers = Writers(
                self.callers,
                self.books,
                rng,
                count,
                seconds,
                is_enough=lambda: task.done() and self.seen >= least,
                seconds_max=2 * seconds + LATE_SECONDS_MAX,
            )
            tasks.create_task(writers.run())
        return {"operations": dict(writers.done)}

    @asynccontextmanager
    async def told(self, plan: Plan, began: float) -> AsyncIterator[None]:
        """Looks meanwhile how many events the log has, and says so."""

        async def look() -> None:
            connection = await asyncpg.connect(self.dsn)
            try:
                for number in itertools.count():
                    self.seen = await connection.fetchval("SELECT count(*) FROM events", timeout=60)
                    if number % 5 == 0:
                        plan.console.log(f"{self.seen:,} events after {time.monotonic() - began:.0f} s")
                    await asyncio.sleep(LOOK_SECONDS)
            finally:
                connection.terminate()

        task = asyncio.create_task(look())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def settle(self, readers: Sequence[Reader]) -> list[Check]:
        """Until every job has ended, the log has all and everybody has read it, or nothing more can be waited for."""
        await self.fleet.until_ready()
        await until_settled(self.fleet)
        is_sequenced = await until_sequenced(self.dsn)
        self.sequenced_at = time.monotonic()
        lasts = await last_seqs(self.dsn)
        is_read = await until_read(lasts, lambda: ((reader.user_id, reader.last_seq) for reader in readers))
        wrong = [answer for reader in readers for answer in reader.wrong]
        return [
            Check("all that happened is in the log in time", 1, [] if is_sequenced else ["the inbox is not empty"]),
            Check("everybody comes to the end in time", len(readers), [] if is_read else ["somebody does not"]),
            Check("readers are answered as they must be", sum(reader.answers for reader in readers), wrong),
        ]

    async def checks(self, readers: dict[str, Sequence[Reader]]) -> list[Check]:
        truth = await truth_of(self.dsn)
        self.seen = sum(map(len, truth.log.values()))
        found = log_checks(truth)
        for who, each in readers.items():
            found += reader_checks(who, ((reader.user_id, reader.told) for reader in each), truth)
        return [
            *found,
            answers_are_right(self.callers),
            Check("the ledger has no violation", self.seen, await ledger_violations(self.dsn)),
            no_bug_is_logged(self.fleet),
        ]


@asynccontextmanager
async def _stage(plan: Plan, name: str, accounts: int, **of_books: int) -> AsyncIterator[_Stage]:
    plan.console.log(f"events: {name}")
    directory = plan.directory / name
    directory.mkdir()
    async with (
        running_fleet(directory, workers=WORKERS, apis=APIS, settings=SETTINGS) as fleet,
        calling_all(fleet.urls) as callers,
        reading_session() as session,
    ):
        yield _Stage(fleet, callers, await open_books(callers, accounts, **of_books), session)
