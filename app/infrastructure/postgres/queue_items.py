"""Queue items, written in the caller's own transaction: a job and its queue item commit together or not at all."""

from collections.abc import Sequence
from uuid import UUID

from app.application.execution import Step
from app.infrastructure.postgres.database import Fetch


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
    """For at once."""
    await fetch(_ENQUEUE[step], job_ids)
