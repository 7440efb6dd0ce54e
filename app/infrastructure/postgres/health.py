"""What /readyz says of the database and of the workers behind it."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.health import Check
from app.domain.errors import DatabaseUnavailable
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.failures import failures_of
from app.infrastructure.postgres.faults import NO_TABLE, WRITES_REFUSED, fault_of
from app.infrastructure.postgres.heartbeats import DEAD_SECONDS, Heartbeats, ages_seconds, has_silent_runner, silence
from app.infrastructure.postgres.migrations import current_revision, head_revision, is_usable
from app.infrastructure.postgres.queue import oldest_due_seconds

BACKLOG_SECONDS_MAX = 30
# However often /readyz is asked, the database is written once in this time.
WRITE_SECONDS = 1.0
# A worker that is being replaced, or comes up beside this process, is not missed for so long.
WORKER_GRACE_SECONDS = 30.0

NOT_ANSWERING = "PostgreSQL does not answer"


def database_check(engine: AsyncEngine, heartbeats: Heartbeats) -> Callable[[], Awaitable[Check]]:
    """By a write, because a database whose disk is full, or that became a standby, still answers questions."""

    async def check() -> Check:
        try:
            await heartbeats.beat(unless_within_seconds=WRITE_SECONDS)
        except DatabaseUnavailable as error:
            kind = fault_of(error.__cause__ or error).kind
            if kind == NO_TABLE:
                return Check("database", True, "PostgreSQL answers")
            return Check("database", False, WRITES_REFUSED.get(kind, NOT_ANSWERING))
        refused = failures_of(engine).writes_refused()
        return Check("database", refused is None, refused or "PostgreSQL answers and is written")

    return check


def migrations_check(engine: AsyncEngine) -> Callable[[], Awaitable[Check]]:
    head = head_revision()

    async def check() -> Check:
        try:
            current = await current_revision(engine)
        except DatabaseUnavailable:
            return Check("migrations", False, NOT_ANSWERING)
        if is_usable(current):
            return Check("migrations", True, f"at revision {current}")
        return Check("migrations", False, f"at revision {current or 'none'}, this release needs {head}")

    return check


def workers_check(engine: AsyncEngine, duties: Collection[str]) -> Callable[[], Awaitable[Check]]:
    """What an API without a runner of its own can see of the workers: their heartbeats."""
    seen_at_seconds, was_seen = time.monotonic(), False

    async def check() -> Check:
        nonlocal seen_at_seconds, was_seen
        try:
            ages = await ages_seconds(engine, duties)
            dead = {duty: age for duty, age in ages.items() if age > DEAD_SECONDS}
            if ages and not dead:
                seen_at_seconds, was_seen = time.monotonic(), True
                return await _working(engine)
            unseen_seconds = time.monotonic() - seen_at_seconds
            # What grew old while this process looked on hangs, and is not just being replaced.
            hangs = was_seen and any(age < unseen_seconds + DEAD_SECONDS for age in dead.values())
            if unseen_seconds < WORKER_GRACE_SECONDS and not hangs:
                return Check("runner", True, "external: waiting for a worker")
            if not ages and await has_silent_runner(engine):
                return Check("runner", True, "external: a worker of an older release works on jobs")
        except DatabaseUnavailable:
            return Check("runner", False, NOT_ANSWERING)
        return Check("runner", False, _missing(dead))

    return check


def _missing(dead: Mapping[str, float]) -> str:
    if not dead:
        return "external: no worker works on jobs; start python -m app worker"
    return f"external: no worker works; {silence(dead)}; restart the workers"


async def _working(engine: AsyncEngine) -> Check:
    async with reading(engine) as connection:
        waiting_seconds = await connection.scalar(oldest_due_seconds())
    if waiting_seconds is None or waiting_seconds < BACKLOG_SECONDS_MAX:
        return Check("runner", True, "external: worker processes work on jobs")
    return Check("runner", True, f"external: a step has been waiting for {waiting_seconds:.0f} s; are there too few?")
