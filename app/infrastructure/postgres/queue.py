"""The queue's table: the only file that knows its name, its columns, and the form of its keys and payloads.

Items are written in the caller's own transaction: a subject and its queue item commit together or not at all.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Delete,
    Double,
    FromClause,
    Interval,
    LargeBinary,
    Select,
    Subquery,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    extract,
    func,
    literal,
    literal_column,
    select,
    table,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, ENUM, aggregate_order_by, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB, Step
from app.infrastructure.postgres.statements import any_of, constant, seconds
from app.infrastructure.postgres.tables import jobs

queue_items = table(
    "pgqueuer",
    column("id", BigInteger),
    column("priority", BigInteger),
    column("entrypoint", Text),
    column("payload", LargeBinary),
    column("dedupe_key", Text),
    # Compared as text, a status would miss the index of the dedupe keys.
    column("status", ENUM("queued", "picked", name="pgqueuer_status", create_type=False)),
    column("execute_after", DateTime(timezone=True)),
    column("updated", DateTime(timezone=True)),
    column("heartbeat", DateTime(timezone=True)),
    column("queue_manager_id", Uuid),
)
# What the library makes, and the rights that it needs there.
QUEUE_TABLES: Mapping[str, Sequence[str]] = {
    "pgqueuer": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "pgqueuer_log": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "pgqueuer_schedules": (),
    "pgqueuer_statistics": (),
}
ITEM_IDS = "pgqueuer_id_seq"
# Spelled out in the statements: the planner uses a partial index only if it sees the values.
QUEUED: ColumnElement[str] = literal_column("'queued'", queue_items.c.status.type)
PICKED: ColumnElement[str] = literal_column("'picked'", queue_items.c.status.type)
IS_LIVE: ColumnElement[bool] = queue_items.c.status.in_((QUEUED, PICKED))


def key_of(step: Step, subject_id: ColumnElement[UUID] | UUID) -> ColumnElement[str]:
    """The dedupe key: a subject has at most one item of each step that waits or runs."""
    known_id = literal(subject_id, Uuid) if isinstance(subject_id, UUID) else subject_id
    return constant(f"{step.name}:") + cast(known_id, Text)


def insert_items(step: Step, source: FromClause) -> ReturningInsert[int]:
    """Queue the step for each row of `source`: for its `subject_id`, due in `after_seconds`. Returns the items' ids.

    A submission takes the turn of its job's `fair_tag`, however often it is queued again.

    An item of the same step and subject that waits or runs already stays as it is. The items are written in the order
    of their subjects, so that no two transactions wait for each other's items. PgQueuer's own statement writes a row of
    its log with each item, which nothing here reads and which takes as long.
    """
    values = {
        queue_items.c.priority: -source.c.fair_tag if step is SUBMIT_JOB else constant(0),
        queue_items.c.entrypoint: constant(step.name),
        queue_items.c.payload: func.uuid_send(source.c.subject_id),
        queue_items.c.dedupe_key: key_of(step, source.c.subject_id),
        queue_items.c.status: QUEUED,
        queue_items.c.execute_after: func.now() + seconds(source.c.after_seconds),
    }
    return (
        insert(queue_items)
        .from_select(list(values), select(*values.values()).order_by(source.c.subject_id), include_defaults=False)
        .on_conflict_do_nothing(
            index_elements=[queue_items.c.dedupe_key],
            index_where=IS_LIVE & queue_items.c.dedupe_key.is_not(None),
        )
        .returning(queue_items.c.id)
    )


def delete_queued(step: Step, subject_ids: FromClause) -> Delete:
    """Delete the item of the step that waits for each `subject_id`.

    An item that is picked or locked is left to the runner: who waits for no item is in no circle of those that wait.
    """
    item = queue_items.alias("item")
    waiting = (
        select(item.c.id)
        .select_from(subject_ids.join(item, item.c.dedupe_key == key_of(step, subject_ids.c.subject_id)))
        .where(item.c.status == QUEUED)
        .with_for_update(of=item, skip_locked=True)
    )
    return delete(queue_items).where(queue_items.c.id.in_(waiting))


async def enqueue(connection: AsyncConnection, step: Step, subject_ids: Sequence[UUID]) -> None:
    """Queue the step for each of the subjects, due immediately."""
    await connection.execute(_items_due_immediately(step), {"subject_ids": subject_ids})


async def look_after(connection: AsyncConnection, job_id: UUID, delay_seconds: float) -> None:
    """Make the queued look at the job due in at most `delay_seconds`."""
    await connection.execute(
        update(queue_items)
        .where(queue_items.c.dedupe_key == key_of(FOLLOW_JOB, job_id), queue_items.c.status == QUEUED)
        .values(execute_after=func.least(queue_items.c.execute_after, func.now() + timedelta(seconds=delay_seconds)))
    )


def first_due(step: Step, items_max: int) -> Subquery:
    """The items that would be taken next: `id`, and `subject_id`."""
    return (
        select(queue_items.c.id, cast(func.encode(queue_items.c.payload, "hex"), Uuid).label("subject_id"))
        .where(
            queue_items.c.entrypoint == constant(step.name),
            queue_items.c.status == QUEUED,
            queue_items.c.execute_after < func.now(),
        )
        .order_by(queue_items.c.priority.desc(), queue_items.c.id)
        .limit(items_max)
        .subquery("due")
    )


def put_off(ids: Select[int]) -> ReturningUpdate[int]:
    """Let the items be due in `delay_seconds`, and each `spacing_seconds` after the one before. Returns their ids.

    An item that somebody takes meanwhile is left to them.
    """
    item = queue_items.alias("item")
    locked = (
        select(item.c.id, item.c.priority)
        .where(item.c.id.in_(ids), item.c.status == QUEUED)
        .order_by(item.c.id)
        .with_for_update(of=item, skip_locked=True)
        .cte("locked")
    )
    turn = func.row_number().over(order_by=(locked.c.priority.desc(), locked.c.id)) - constant(1)
    turns = select(locked.c.id, turn.label("turn")).cte("turns")
    delay_seconds = bindparam("delay_seconds", type_=Double) + turns.c.turn * bindparam("spacing_seconds", type_=Double)
    return (
        update(queue_items)
        .where(queue_items.c.id == turns.c.id)
        .values(execute_after=func.now() + seconds(delay_seconds))
        .returning(queue_items.c.id)
    )


def retaken(step: Step, subject_ids: Select[UUID]) -> ReturningUpdate[Any]:
    """Take those of the subjects' items that could be taken now, as the library does. Returns whole rows of its table.

    An item that somebody else takes meanwhile is left to them.
    """
    item, subject = queue_items.alias("item"), subject_ids.subquery("subject")
    is_due = (item.c.status == QUEUED) & (item.c.execute_after < func.now())
    silence = bindparam("heartbeat_timeout", type_=Interval)
    is_left = (item.c.status == PICKED) & (item.c.heartbeat < func.now() - silence)
    free = (
        select(item.c.id)
        .select_from(subject)
        .join(item, item.c.dedupe_key == key_of(step, subject.c.id))
        .where(is_due | is_left)
        .with_for_update(of=item, skip_locked=True)
    )
    return (
        update(queue_items)
        .where(queue_items.c.id.in_(free))
        .values(
            status=PICKED,
            updated=func.now(),
            heartbeat=func.now(),
            queue_manager_id=bindparam("manager_id", type_=Uuid),
        )
        .returning(literal_column(f"{queue_items.name}.*"))
    )


def count_queued(step: Step) -> Select[int]:
    """How many items of the step wait for their time."""
    return select(func.count()).where(queue_items.c.entrypoint == constant(step.name), queue_items.c.status == QUEUED)


def queued_tags(step: Step) -> Select[bytes | None]:
    """The tags of all items of the step that wait, ascending, eight bytes each."""
    tag = func.int8send(-queue_items.c.priority)
    nothing_between = cast(constant(""), LargeBinary)
    tags = func.string_agg(tag, aggregate_order_by(nothing_between, queue_items.c.priority.desc()))
    return select(tags).where(queue_items.c.entrypoint == constant(step.name), queue_items.c.status == QUEUED)


def oldest_due_seconds() -> Select[float | None]:
    """For how long the oldest item has been due without being taken. None: nothing is due."""
    age = func.now() - func.min(queue_items.c.execute_after)
    return select(extract("epoch", age)).where(queue_items.c.status == QUEUED, queue_items.c.execute_after < func.now())


@cache
def _items_due_immediately(step: Step) -> ReturningInsert[int]:
    at_once = constant(0).label("after_seconds")
    if step is SUBMIT_JOB:
        # A job without a tag waited before there were any: a trigger gives its item a turn.
        tag = func.coalesce(jobs.c.fair_tag, constant(0)).label("fair_tag")
        due = select(jobs.c.id.label("subject_id"), at_once, tag).where(any_of(jobs.c.id, "subject_ids"))
    else:
        due = select(func.unnest(bindparam("subject_ids", type_=ARRAY(Uuid))).column_valued("subject_id"), at_once)
    return insert_items(step, due.subquery("subject"))
