"""Queue items, written in the caller's own transaction: a job and its queue item commit together or not at all."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Delete,
    FromClause,
    Text,
    Uuid,
    cast,
    column,
    delete,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy import table as named_table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from app.application.execution.steps import Step
from app.infrastructure.postgres.database import Fetch
from app.infrastructure.postgres.statements import Batch, Statement, constant, seconds
from app.infrastructure.postgres.statements import column as typed

queue = named_table(
    "pgqueuer",
    column("id"),
    column("priority"),
    column("entrypoint"),
    column("payload"),
    column("dedupe_key"),
    column("status"),
    column("execute_after"),
)
# Of the queue's own type: compared as text, they would miss the index of the dedupe keys.
QUEUED: ColumnElement[str] = literal_column("'queued'")
PICKED: ColumnElement[str] = literal_column("'picked'")


def dedupe_key(step: Step, subject_id: ColumnElement[UUID]) -> ColumnElement[str]:
    return constant(f"{step.value}:") + cast(subject_id, Text)


def insert_items(step: Step, source: FromClause) -> ReturningInsert[Any]:
    """Queue the step for each row of `source`: its `subject_id`, after `after_seconds`.

    One item per job and step: an item that waits or runs already stays as it is. In the order of the jobs, so that no
    two transactions wait for each other's items. PgQueuer's own statement writes a row of its log with each item, which
    nothing here reads and which takes as long.
    """
    due = func.now() + seconds(source.c.after_seconds)
    items = select(
        constant(0),
        constant(step.value),
        func.uuid_send(source.c.subject_id),
        dedupe_key(step, source.c.subject_id),
        QUEUED,
        due,
    ).order_by(source.c.subject_id)
    return (
        insert(queue)
        .from_select(["priority", "entrypoint", "payload", "dedupe_key", "status", "execute_after"], items)
        .on_conflict_do_nothing(
            index_elements=["dedupe_key"],
            index_where=queue.c.status.in_([QUEUED, PICKED]) & queue.c.dedupe_key.is_not(None),
        )
        .returning(queue.c.id)
    )


def delete_queued(step: Step, subjects: FromClause) -> Delete:
    """Take back the items that wait for each `subject_id`.

    The item of a step under way is the runner's. Locked ones are left alone: who waits for no item is in no circle of
    those that wait.
    """
    waiting = (
        select(queue.c.id)
        .join_from(subjects, queue, queue.c.dedupe_key == dedupe_key(step, subjects.c.subject_id))
        .where(queue.c.status == QUEUED)
        .with_for_update(of=queue, skip_locked=True)
    )
    return delete(queue).where(queue.c.id.in_(waiting))


_SUBJECTS = Batch("queued", typed("subject_id", Uuid))
_DUE_NOW = select(_SUBJECTS.c.subject_id, constant(0).label("after_seconds")).subquery("due")
_ENQUEUE = {step: Statement(insert_items(step, _DUE_NOW)) for step in Step}


async def enqueue(fetch: Fetch, step: Step, job_ids: Sequence[UUID]) -> None:
    """Queue the step for each of the jobs, due immediately."""
    await _ENQUEUE[step](fetch, queued_subject_id=job_ids)


async def look_after(connection: AsyncConnection, job_id: UUID, seconds: float) -> None:
    """Make the queued look at the job due in at most `seconds`."""
    await connection.execute(
        update(queue)
        .where(queue.c.dedupe_key == f"{Step.FOLLOW.value}:{job_id}", queue.c.status == QUEUED)
        .values(execute_after=func.least(queue.c.execute_after, func.now() + timedelta(seconds=seconds)))
    )
