"""What the tortures of the log share: processes, accounts, whoever writes, and how everything comes to its end."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from torture.callers import Book, Callers
from torture.event_readers import Reader, reading_session
from torture.event_truth import Fact, Truth, last_seqs, log_checks, reader_checks, truth_of, until_read, until_sequenced
from torture.event_writers import Writers, answers_are_right, calling_all, open_books, open_budgets
from torture.evidence import ledger_violations, until_settled
from torture.fleet import Fleet, running_fleet
from torture.report import Check, Plan
from torture.under_load import no_bug_is_logged

APIS = 3
WORKERS = 2
# Longer than anything takes here that was not lost with its process; what was ends then.
SETTINGS = {"IMAGE_TIME_LIMIT_SECONDS": "90"}
# Beyond what was planned; whatever is missing then is said.
LATE_SECONDS_MAX = 300
LOOK_SECONDS = 2.0


@dataclass(slots=True)
class Stage:
    """One part's processes, accounts and callers, and what becomes of them at the end."""

    fleet: Fleet
    callers: Sequence[Callers]
    books: Sequence[Book]
    session: Any
    webhook_urls: Mapping[str, str] = field(default_factory=dict)
    """By user, what some of its orders name."""
    refusals: dict[str, list[Fact]] = field(default_factory=dict)
    """By user, what the writers were refused for a budget."""
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
    ) -> Writers:
        """Until the trouble is over and the log has `least` events. The pace: how many operations in how long."""

        async def trouble_them() -> None:
            await trouble()

        budgets = await open_budgets(self.callers, self.books)
        async with self.told(plan, time.monotonic()), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(trouble_them())
            count, seconds = pace
            writers = Writers(
                self.callers,
                self.books,
                budgets,
                rng,
                count,
                seconds,
                is_enough=lambda: task.done() and self.seen >= least,
                seconds_max=2 * seconds + LATE_SECONDS_MAX,
                webhook_urls=self.webhook_urls,
            )
            tasks.create_task(writers.run())
        self.refusals = {budget.user_id: [budget.refusal] for budget in budgets if budget.has_refused}
        return writers

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
        checks = [
            Check("all that happened is in the log in time", 1, [] if is_sequenced else ["the inbox is not empty"])
        ]
        if readers:
            wrong = [answer for reader in readers for answer in reader.wrong]
            checks += [
                Check("everybody comes to the end in time", len(readers), [] if is_read else ["somebody does not"]),
                Check("readers are answered as they must be", sum(reader.answers for reader in readers), wrong),
            ]
        return checks

    async def truth(self) -> Truth:
        truth = replace(await truth_of(self.dsn), refusals=self.refusals)
        self.seen = sum(map(len, truth.log.values()))
        return truth

    async def checks(self, truth: Truth, readers: Mapping[str, Sequence[Reader]]) -> list[Check]:
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
async def open_stage(plan: Plan, name: str, accounts: int, **of_books: int) -> AsyncIterator[Stage]:
    plan.console.log(f"{plan.directory.name}: {name}")
    directory = plan.directory / name
    directory.mkdir()
    async with (
        running_fleet(directory, workers=WORKERS, apis=APIS, settings=SETTINGS) as fleet,
        calling_all(fleet.urls) as callers,
        reading_session() as session,
    ):
        yield Stage(fleet, callers, await open_books(callers, accounts, **of_books), session)
