"""One reader of the log for everybody in this process who waits for events."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.domain.events import Event
from app.domain.jobs import Job
from app.infrastructure.postgres.database import DriverConnection, driver_connection, reading
from app.infrastructure.postgres.events import complete
from app.infrastructure.postgres.jobs.rows import IS_UNFINISHED
from app.infrastructure.postgres.statements import any_of
from app.infrastructure.postgres.tables import event_log, events, jobs

log = structlog.get_logger(__name__)

CHANNEL = "tollgate_events"
EVENTS_MAX = 1_000
# Whoever falls so far behind reads what it has missed from the log.
HELD_MAX = 100
# A notification may be lost with its connection.
LOOK_SECONDS = 1.0
FAILED_SECONDS = 1.0

_LAST_SEQ = select(event_log.c.last_seq)
_NEXT = (
    select(events).where(events.c.seq > bindparam("place", type_=BigInteger)).order_by(events.c.seq).limit(EVENTS_MAX)
)


_STATUSES = select(
    jobs.c.id, jobs.c.status, jobs.c.cancel_requested_at.is_not(None).label("is_cancel_requested")
).where(any_of(jobs.c.id, "job_ids"), IS_UNFINISHED)


class Subscription:
    """What happens to an account, or to one job of it, from a place in the log on."""

    __slots__ = ("_held", "_woken", "account_id", "has_missed", "is_ended", "job_id", "place", "seen")

    def __init__(self, account_id: UUID, job_id: UUID | None) -> None:
        self.account_id = account_id
        self.job_id = job_id
        self.place = 0
        """Of whatever comes later it hears."""
        self.has_missed = False
        self.is_ended = False
        self.seen: Job | None = None
        """Whoever waits for its status to change has seen it so."""
        self._held: deque[Event] = deque()
        self._woken = asyncio.Event()

    async def next(self, seconds: float) -> Sequence[Event]:
        """What has come since the last call, or comes within so long. Empty: nothing, or `end` was called.

        Where `has_missed` is set afterwards, more has come than is held: the log has it.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
        found = list(self._held)
        self._held.clear()
        return found

    def end(self) -> None:
        self.is_ended = True
        self._woken.set()

    def tell(self, event: Event) -> None:
        if len(self._held) == HELD_MAX:
            self.miss()
        if not self.has_missed:
            self._held.append(event)
        self._woken.set()

    def wake(self) -> None:
        self._woken.set()

    def miss(self) -> None:
        self.has_missed = True
        self._held.clear()
        self._woken.set()


class PostgresEventFeed:
    """Reads while somebody listens, through one connection of the pool, which tells it when there is something new."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._listeners: defaultdict[UUID, set[Subscription]] = defaultdict(set)
        self._woken: set[asyncio.Event] = set()
        self._place: int | None = None
        self._finding: asyncio.Task[None] | None = None
        self._new = asyncio.Event()
        self._looked_at_seconds = float("-inf")
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def follow(self, account_id: UUID, job_id: UUID | None = None) -> AsyncIterator[Subscription]:
        """From now on. Raises DatabaseUnavailable."""
        subscription = Subscription(account_id, job_id)
        self._listeners[account_id].add(subscription)
        try:
            subscription.place = await self._found_place()
            self._start()
            yield subscription
        finally:
            self._listeners[account_id].discard(subscription)
            if not self._listeners[account_id]:
                del self._listeners[account_id]
            self._new.set()

    @asynccontextmanager
    async def waking(self, woken: asyncio.Event) -> AsyncIterator[None]:
        """Set it whenever the log has grown, and now and then where it has not."""
        self._woken.add(woken)
        try:
            self._start()
            yield
        finally:
            self._woken.discard(woken)
            self._new.set()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._read_on(), name="event feed")

    @property
    def _is_wanted(self) -> bool:
        return bool(self._listeners or self._woken)

    async def _found_place(self) -> int:
        """By one query for all who come while there is none: at a process that has just started these are many."""
        while self._place is None:
            if self._finding is None:
                self._finding = asyncio.create_task(self._find_place(), name="place of the event feed")
                self._finding.add_done_callback(self._end_finding)
            # It is for the others as well, so it goes on where one of them goes away.
            await asyncio.shield(self._finding)
        return self._place

    def _end_finding(self, finding: asyncio.Task[None]) -> None:
        self._finding = None
        if not finding.cancelled():
            # Or asyncio would complain where nobody waits any more to hear of it.
            finding.exception()

    async def _find_place(self) -> None:
        async with reading(self._engine) as connection:
            place = await connection.scalar(_LAST_SEQ)
        if self._place is None:
            self._place = place
            # What has come since then was read for nobody.
            self._new.set()

    async def _read_on(self) -> None:
        """Until nobody listens any more."""
        try:
            while self._is_wanted:
                try:
                    async with driver_connection(self._engine) as driver:
                        await self._listen(driver)
                except DatabaseUnavailable:
                    # The event database_failed says why. Nothing is missed: the place stays.
                    await asyncio.sleep(FAILED_SECONDS)
                except Exception:
                    log.exception("event_feed_failed")
                    await asyncio.sleep(FAILED_SECONDS)
        finally:
            self._task = self._place = None

    async def _listen(self, driver: DriverConnection) -> None:
        def wake(*_: object) -> None:
            self._new.set()

        await driver.add_listener(CHANNEL, wake)
        driver.add_termination_listener(wake)
        while self._is_wanted:
            if driver.is_closed():
                raise DatabaseUnavailable
            self._new.clear()
            for woken in self._woken:
                woken.set()
            if not self._listeners:
                # Whoever listens next finds a place of its own.
                self._place = None
            elif await self._read() == EVENTS_MAX:
                continue
            else:
                await self._look_at_statuses()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._new.wait()
        # Whatever goes wrong before this, the pool does not get the connection back.
        driver.remove_termination_listener(wake)
        await driver.remove_listener(CHANNEL, wake)

    async def _read(self) -> int:
        before = self._place
        try:
            async with reading(self._engine) as connection:
                rows = (await connection.execute(_NEXT, {"place": before})).all()
                if rows:
                    # At once: whoever begins to listen from here on finds these in the log.
                    self._place = rows[-1].seq
                wanted = [row for row in rows if self._has_listener(row)]
                found = await complete(connection, wanted) if wanted else []
        except BaseException:
            if self._place != before:
                self._send_to_the_log()
            raise
        for event in found:
            for subscription in self._listeners.get(event.account_id, ()):
                if _is_of(subscription, event):
                    subscription.tell(event)
        return len(rows)

    async def _look_at_statuses(self) -> None:
        """Not each change of a status is an event: some seconds between fal's queue and its work are none."""
        if time.monotonic() < self._looked_at_seconds + LOOK_SECONDS:
            return
        self._looked_at_seconds = time.monotonic()
        watching = [one for each in self._listeners.values() for one in each if one.seen is not None]
        if not watching:
            return
        async with reading(self._engine) as connection:
            rows = await connection.execute(_STATUSES, {"job_ids": [one.job_id for one in watching]})
            found = {row.id: (row.status, row.is_cancel_requested) for row in rows}
        for one in watching:
            seen = one.seen
            # An end is an event, which comes by itself.
            if seen is not None and found.get(seen.id, _status_of(seen)) != _status_of(seen):
                one.wake()

    def _send_to_the_log(self) -> None:
        for subscriptions in self._listeners.values():
            for subscription in subscriptions:
                subscription.miss()

    def _has_listener(self, row: Any) -> bool:
        listeners = self._listeners.get(row.account_id, ())
        return any(listener.job_id is None or listener.job_id == row.job_id for listener in listeners)


def _status_of(job: Job) -> tuple[str, bool]:
    return job.status, job.cancel_requested_at is not None


def _is_of(subscription: Subscription, event: Event) -> bool:
    if event.seq <= subscription.place:
        return False
    return subscription.job_id is None or (event.job is not None and event.job.id == subscription.job_id)
