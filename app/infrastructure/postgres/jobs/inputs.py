"""What large inputs leave behind: their jobs keep digest and size, and nobody brings along more than their share."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Double,
    Select,
    cast,
    extract,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import FORGET_INPUT
from app.domain.orders import LARGE_INPUTS_SECONDS, LargeInputs
from app.infrastructure.postgres.database import DriverConnection, transaction
from app.infrastructure.postgres.lost_steps import WaitingSubjects
from app.infrastructure.postgres.queue import count_queued, enqueue, insert_items
from app.infrastructure.postgres.statements import Statement, any_of, constant
from app.infrastructure.postgres.tables import jobs

# Inputs above it are large, as JSON and as the table stores it.
LARGE_INPUT_BYTES = 8192
# Of the rows that an older release wrote, so many are looked at in one go.
MARKED_AT_ONCE = 5_000
# A walk that has found nothing begins anew after this: in a rolling deploy the older release goes on beside this one.
WALK_AGAIN_SECONDS = 3600
# While so many wait to be forgotten, no more are marked.
BACKLOG_MAX = 1_000

_IS_TO_FORGET: ColumnElement[bool] = (
    jobs.c.is_final & jobs.c.input_bytes.is_not(None) & jobs.c.input_forgotten_at.is_(None)
)
INPUTS_TO_FORGET: WaitingSubjects = select(jobs.c.id).where(_IS_TO_FORGET)

_SPENT = (
    select(jobs.c.id.label("subject_id"), constant(0).label("after_seconds"))
    .where(any_of(jobs.c.id, "job_ids"), _IS_TO_FORGET)
    .subquery("spent")
)
FORGET = Statement(insert_items(FORGET_INPUT, _SPENT))
"""Queue the step for those of `job_ids` that have an input to forget."""

_RECENT = Statement(
    select(
        jobs.c.account_id,
        func.sum(jobs.c.input_bytes).label("size_bytes"),
        cast(extract("epoch", func.now() - func.min(jobs.c.created_at)), Double).label("age_seconds"),
    )
    .where(
        any_of(jobs.c.account_id, "account_ids"),
        jobs.c.created_at > func.now() - literal_column(f"interval '{LARGE_INPUTS_SECONDS} seconds'", DateTime),
        jobs.c.input_bytes.is_not(None),
    )
    .group_by(jobs.c.account_id)
)


async def recent_large_inputs(driver: DriverConnection, account_ids: Sequence[UUID]) -> Mapping[UUID, LargeInputs]:
    """What each of the accounts brought along lately. It is exact if the caller has locked them before."""
    rows = await _RECENT(driver.fetch, account_ids=account_ids)
    return {
        row["account_id"]: LargeInputs(size_bytes=int(row["size_bytes"]), age_seconds=row["age_seconds"])
        for row in rows
    }


_IS_UNMARKED = jobs.c.input_bytes.is_(None) & (func.pg_column_size(jobs.c.parameters) > LARGE_INPUT_BYTES)


_BEFORE_ALL = UUID(int=0)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Through all jobs, in the order of their ids."""

    until: UUID = _BEFORE_ALL
    found: int = 0


@dataclass(slots=True)
class PostgresJobInputs:
    engine: AsyncEngine
    now_seconds: Callable[[], float] = time.monotonic
    _walk: _Walk | None = field(default_factory=_Walk, init=False)
    """None: the last one has found no large input of an older release."""
    _ended_at_seconds: float = field(default=0.0, init=False)

    async def forget(self, job_id: UUID) -> bool:
        async with transaction(self.engine, "forget_input") as connection:
            forgotten = await connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, _IS_TO_FORGET)
                .values(parameters=func.without_media(jobs.c.parameters), input_forgotten_at=func.now())
            )
            return bool(forgotten.rowcount)

    async def mark_older(self) -> int:
        if self._walk is None:
            if self.now_seconds() < self._ended_at_seconds + WALK_AGAIN_SECONDS:
                return 0
            self._walk = _Walk()
        async with transaction(self.engine, "mark_older_inputs") as connection:
            if (await connection.scalar(count_queued(FORGET_INPUT)) or 0) >= BACKLOG_MAX:
                return 0
            ids = (await connection.scalars(_next(self._walk.until))).all()
            unmarked = (await connection.execute(_unmarked(ids))).all() if ids else []
            ended = [row.id for row in unmarked if row.is_final]
            if ended:
                size = func.pg_column_size(jobs.c.parameters)
                await connection.execute(update(jobs).where(jobs.c.id.in_(ended)).values(input_bytes=size))
                await enqueue(connection, FORGET_INPUT, ended)
        if ids:
            self._walk = replace(self._walk, until=ids[-1], found=self._walk.found + len(unmarked))
        else:
            # Those that had not ended yet, or that an older release has accepted since, are found the next time.
            self._walk = _Walk() if self._walk.found else None
            self._ended_at_seconds = self.now_seconds()
        return len(ended)


def _next(after: UUID) -> Select[UUID]:
    return select(jobs.c.id).where(jobs.c.id > after).order_by(jobs.c.id).limit(MARKED_AT_ONCE)


def _unmarked(ids: Sequence[UUID]) -> Select[UUID, bool]:
    return select(jobs.c.id, jobs.c.is_final).where(jobs.c.id.between(ids[0], ids[-1]), _IS_UNMARKED)
