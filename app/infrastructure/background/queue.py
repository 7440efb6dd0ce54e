"""Queue items, written in the caller's own transaction: a job and its queue item commit together or not at all."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from app.application.execution import Step

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]

# PgQueuer's own enqueue writes a row of its log with each item, which nothing here reads and which takes as long.
_ENQUEUE = """
    INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status, execute_after)
    SELECT 0, $1, payload, dedupe_key, 'queued', now() + make_interval(secs => after_seconds)
      FROM unnest($2::bytea[], $3::text[], $4::float8[]) AS item (payload, dedupe_key, after_seconds)
    ON CONFLICT (dedupe_key) WHERE status IN ('queued', 'picked') AND dedupe_key IS NOT NULL DO NOTHING
    RETURNING id
"""


def dedupe_key(step: Step, job_id: UUID) -> str:
    return f"{step.value}:{job_id}"


async def enqueue(fetch: Fetch, step: Step, job_ids: Sequence[UUID], after_seconds: Sequence[float] = ()) -> None:
    """One item per job and step: an item that waits or runs already stays as it is."""
    await fetch(
        _ENQUEUE,
        step.value,
        [job_id.bytes for job_id in job_ids],
        [dedupe_key(step, job_id) for job_id in job_ids],
        after_seconds or [0.0] * len(job_ids),
    )
