"""Queue items, written in the caller's own transaction: a job and its queue item commit together or not at all."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, cast
from uuid import UUID

from pgqueuer.db import Driver
from pgqueuer.queries import Queries

from app.application.execution import Step

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]


class _TransactionDriver:
    """Enqueueing needs no more of a driver than `fetch`; this one's is part of the caller's transaction."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        return [dict(row) for row in await self._fetch(query, *args)]


def dedupe_key(step: Step, job_id: UUID) -> str:
    return f"{step.value}:{job_id}"


async def enqueue(fetch: Fetch, step: Step, job_ids: Sequence[UUID]) -> None:
    """One item per job and step: an item that waits or runs already stays as it is."""
    count = len(job_ids)
    await Queries(cast(Driver, _TransactionDriver(fetch))).enqueue(
        [step.value] * count,
        [job_id.bytes for job_id in job_ids],
        [0] * count,
        execute_after=[timedelta()] * count,
        dedupe_key=[dedupe_key(step, job_id) for job_id in job_ids],
        on_conflict="skip",
    )
