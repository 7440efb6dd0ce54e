"""The log of events: how its readers see it, and what is forgotten of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Row, Select, cast, delete, exists, extract, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.errors import JobNotFound
from app.domain.events import Event, EventPage, EventsForgotten, EventType, job_as_it_was
from app.domain.jobs import Job
from app.domain.ledger import LedgerEntry
from app.domain.newer_words import known
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, reading, transaction
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.ledger import entries_of
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, constant
from app.infrastructure.postgres.tables import events, forgotten_events, jobs

# Of an account with very many events, those of a rare type are searched for in so many at a time.
SCANNED_MAX = 1_000
FORGOTTEN_AT_ONCE = 5_000
SEQ_PER_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class _Place:
    account_id: UUID
    seq: int


_PLACE = RowArrays("place", events.c.account_id, events.c.seq)
_PLACES = Statement(
    # What is forgotten and what is deleted for it are one transaction, and one statement sees both or neither.
    select(
        _PLACE.c.account_id,
        _PLACE.c.seq,
        exists().where(events.c.account_id == _PLACE.c.account_id, events.c.seq > _PLACE.c.seq).label("goes_on"),
        exists()
        .where(
            forgotten_events.c.account_id == _PLACE.c.account_id,
            forgotten_events.c.last_seq > _PLACE.c.seq,
            # Before the first event there is no place that was told to anybody.
            _PLACE.c.seq > constant(0),
        )
        .label("is_forgotten"),
    ).select_from(_PLACE.table)
)


class PostgresEventLog:
    def __init__(self, engine: AsyncEngine, days_kept: int) -> None:
        self.engine = engine
        self._days_kept = days_kept
        # One connection, however many clients go on here at once because another process has stopped.
        self._look: Batcher[_Place, bool] = Batcher(engine, _look_all, flushes_max=1, drops_abandoned=True)

    async def page(
        self, account_id: UUID, *, after: int | None, types: Collection[str], job_id: UUID | None, limit: int
    ) -> EventPage:
        scanned_max = SCANNED_MAX if types else limit + 1
        scanned = _scanned(account_id, after or 0, job_id).limit(scanned_max).cte("scanned")
        # One more than asked for tells whether there is another page.
        wanted = select(scanned).order_by(scanned.c.seq).limit(limit + 1)
        async with reading(self.engine) as connection:
            if job_id is not None:
                await _check_owner(connection, account_id, job_id)
            count, last_seq = (await connection.execute(select(func.count(), func.max(scanned.c.seq)))).one()
            # What comes between the two looks is for the next page.
            wanted = wanted.where(scanned.c.seq <= (last_seq or 0))
            if types:
                wanted = wanted.where(scanned.c.type.in_(types))
            rows = (await connection.execute(wanted)).all() if count else []
            if after:
                # After the looks: what is forgotten meanwhile was seen.
                await _check_kept(connection, account_id, after)
            found = await complete(connection, rows[:limit])
        if len(rows) > limit:
            return EventPage(events=found, next_after=found[-1].seq, has_more=True)
        return EventPage(events=found, next_after=last_seq or after or 0, has_more=count == scanned_max)

    async def goes_on_after(self, account_id: UUID, after: int) -> bool:
        return await self._look(_Place(account_id, after))

    async def forget(self) -> int:
        async with transaction(self.engine, "forget_events") as connection:
            gone = (
                delete(events)
                .where(events.c.seq.in_(old_events(self._days_kept)))
                .returning(events.c.account_id, events.c.seq)
                .cte("gone")
            )
            newest = select(gone.c.account_id, func.max(gone.c.seq), func.count()).group_by(gone.c.account_id)
            rows = (await connection.execute(newest.order_by(gone.c.account_id))).all()
            if rows:
                statement = insert(forgotten_events).values([(row[0], row[1]) for row in rows])
                later = func.greatest(forgotten_events.c.last_seq, statement.excluded.last_seq)
                await connection.execute(
                    statement.on_conflict_do_update(index_elements=["account_id"], set_={"last_seq": later})
                )
            return sum(row[2] for row in rows)


def old_events(days_kept: int) -> Select[int]:
    horizon = old_horizon(days_kept)
    return select(events.c.seq).where(events.c.seq < horizon).order_by(events.c.seq).limit(FORGOTTEN_AT_ONCE)


def old_horizon(days_kept: int) -> ColumnElement[int]:
    """The place in the log before which nothing is kept."""
    age_seconds = days_kept * 24 * 60 * 60
    # Of the type of the column: by another one it would not be searched for in the index.
    return cast((extract("epoch", func.now()) - age_seconds) * SEQ_PER_SECOND, BigInteger)


def _scanned(account_id: UUID, after: int, job_id: UUID | None) -> Select[Any]:
    query = select(events).where(events.c.account_id == account_id, events.c.seq > after)
    if job_id is not None:
        query = query.where(events.c.job_id == job_id)
    return query.order_by(events.c.seq)


async def _look_all(
    driver: DriverConnection, places: Sequence[_Place], *, is_repeated: bool = False
) -> Sequence[bool | Exception]:
    rows = await _PLACES(driver.fetch, **_PLACE.values(places))
    found = {_Place(row["account_id"], row["seq"]): row for row in rows}
    # An exception of its own for each: it keeps the traces of all who raise it.
    return [EventsForgotten() if found[place]["is_forgotten"] else found[place]["goes_on"] for place in places]


async def _check_owner(connection: AsyncConnection, account_id: UUID, job_id: UUID) -> None:
    is_own = exists().where(jobs.c.id == job_id, jobs.c.account_id == account_id)
    if not await connection.scalar(select(is_own)):
        raise JobNotFound


async def _check_kept(connection: AsyncConnection, account_id: UUID, after: int) -> None:
    last_forgotten = await connection.scalar(
        select(forgotten_events.c.last_seq).where(forgotten_events.c.account_id == account_id)
    )
    if last_forgotten is not None and last_forgotten > after:
        raise EventsForgotten


async def complete(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> Sequence[Event]:
    """The events of these rows of the log, with what they tell of."""
    job_ids = [row.job_id for row in rows if row.job_id is not None]
    entry_keys = [(row.account_id, row.facts["entry_seq"]) for row in rows if "entry_seq" in (row.facts or {})]
    jobs_by_id = await _jobs_by_id(connection, job_ids) if job_ids else {}
    entries = await entries_of(connection, entry_keys) if entry_keys else {}
    return [_event_of(row, jobs_by_id, entries) for row in rows]


async def _jobs_by_id(connection: AsyncConnection, job_ids: Collection[UUID]) -> Mapping[UUID, Job]:
    found = await connection.execute(select(*JOB_COLUMNS).where(any_of(jobs.c.id, "job_ids")), {"job_ids": job_ids})
    return {row["id"]: job_of(row) for row in found.mappings()}


def _event_of(row: Row[Any], jobs_by_id: Mapping[UUID, Job], entries: Mapping[tuple[UUID, int], LedgerEntry]) -> Event:
    facts = row.facts or {}
    job = jobs_by_id.get(row.job_id)
    return Event(
        seq=row.seq,
        type=known(EventType, row.type),
        account_id=row.account_id,
        created_at=row.created_at,
        facts=facts,
        job=None if job is None else job_as_it_was(job, row.type, row.created_at, facts),
        entry=entries.get((row.account_id, facts.get("entry_seq", 0))),
    )
