"""What happened when: what was done to the service, and samples of its books while it worked."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

SAMPLE_SECONDS = 1.0
# The view reads every entry there is.
LEDGER_SAMPLE_EVERY = 5


@dataclass(frozen=True, slots=True)
class Mark:
    seconds: float
    kind: str


@dataclass(frozen=True, slots=True)
class Sample:
    seconds: float
    jobs: dict[str, int]
    balance_tokens: int
    violations: int | None
    """None where this sample did not ask."""


@dataclass(slots=True)
class Timeline:
    began: float = field(default_factory=time.monotonic)
    marks: list[Mark] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def now(self) -> float:
        return time.monotonic() - self.began

    def mark(self, kind: str) -> None:
        self.marks.append(Mark(self.now, kind))

    @property
    def violating_samples(self) -> list[str]:
        return [f"{sample.violations} at {sample.seconds:.0f} s" for sample in self.samples if sample.violations]

    @property
    def ledger_looks(self) -> int:
        return sum(sample.violations is not None for sample in self.samples)


@asynccontextmanager
async def sampled(timeline: Timeline, dsn: str) -> AsyncIterator[None]:
    """Sample while the block runs; a database that is away leaves a gap."""
    task = asyncio.create_task(_sample(timeline, dsn))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sample(timeline: Timeline, dsn: str) -> None:
    number = 0
    while True:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(dsn, timeout=5, server_settings={"application_name": "torture"})
            try:
                while True:
                    timeline.samples.append(await _look(timeline, connection, number % LEDGER_SAMPLE_EVERY == 0))
                    number += 1
                    await asyncio.sleep(SAMPLE_SECONDS)
            finally:
                connection.terminate()
        await asyncio.sleep(SAMPLE_SECONDS)


async def _look(timeline: Timeline, connection: "asyncpg.Connection[asyncpg.Record]", with_ledger: bool) -> Sample:
    statuses = await connection.fetch("SELECT status, count(*) FROM jobs GROUP BY status", timeout=10)
    balance = await connection.fetchval("SELECT coalesce(sum(balance_tokens), 0)::bigint FROM accounts", timeout=10)
    violations = None
    if with_ledger:
        violations = await connection.fetchval("SELECT count(*) FROM ledger_violations", timeout=30)
    jobs = {row["status"]: row["count"] for row in statuses}
    return Sample(timeline.now, jobs, balance, violations)
