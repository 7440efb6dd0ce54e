"""Queue items, written in the caller's own transaction: a job and its queue item commit together or not at all."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, column, func, literal_column, update
from sqlalchemy import table as named_table
from sqlalchemy.ext.asyncio import AsyncConnection

from app.application.execution.steps import Step
from app.infrastructure.postgres.database import Fetch

queue = named_table("pgqueuer", column("entrypoint"), column("dedupe_key"), column("status"), column("execute_after"))
# Of the queue's own type: compared as text, they would miss the index of the dedupe keys.
QUEUED: ColumnElement[str] = literal_column("'queued'")
PICKED: ColumnElement[str] = literal_column("'picked'")


def insert_items(step: Step, source: str) -> str:
    """The statement, or its part, that queues the step for each row of `source`: its `job_id`, after `after_seconds`.

    One item per job and step: an item that waits or runs already stays as it is. In the order of the jobs, so that no
    two transactions wait for each other's items. PgQueuer's own statement writes a row of its log with each item, which
    nothing here reads and which takes as long.
    """
    return f"""
    INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status, execute_after)
    SELECT 0, '{step.value}', uuid_send(job_id), '{step.value}:' || job_id, 'queued',
           now() + make_interval(secs => after_seconds)
      FROM {source} ORDER BY job_id
    ON CONFLICT (dedupe_key) WHERE status IN ('queued', 'picked') AND dedupe_key IS NOT NULL DO NOTHING
    RETURNING id
    """  # noqa: S608 - our own names


_ENQUEUE = {
    step: insert_items(step, "(SELECT unnest($1::uuid[]) AS job_id, 0 AS after_seconds) AS item") for step in Step
}


async def enqueue(fetch: Fetch, step: Step, job_ids: Sequence[UUID]) -> None:
    """Queue the step for each of the jobs, due immediately."""
    await fetch(_ENQUEUE[step], job_ids)


async def look_after(connection: AsyncConnection, job_id: UUID, seconds: float) -> None:
    """Make the queued look at the job due in at most `seconds`."""
    await connection.execute(
        update(queue)
        .where(queue.c.dedupe_key == f"{Step.FOLLOW.value}:{job_id}", queue.c.status == QUEUED)
        .values(execute_after=func.least(queue.c.execute_after, func.now() + timedelta(seconds=seconds)))
    )
