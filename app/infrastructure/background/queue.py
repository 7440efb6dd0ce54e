"""Queue items, written in the caller's own transaction: a job and its queue item commit together or not at all."""

from collections.abc import Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

from pgqueuer.db import Driver
from pgqueuer.queries import Queries
from sqlalchemy.ext.asyncio import AsyncConnection

from app.application.execution import Step


class _TransactionDriver:
    """PgQueuer's SQL through SQLAlchemy's connection; enqueueing needs no more of a driver than `fetch`.

    On the raw asyncpg connection it would escape the transaction whenever it came first: SQLAlchemy begins lazily.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        result = await self._connection.exec_driver_sql(query, args)
        return [dict(row) for row in result.mappings()]


def dedupe_key(step: Step, job_id: UUID) -> str:
    return f"{step.value}:{job_id}"


async def enqueue(
    connection: AsyncConnection, step: Step, job_ids: Sequence[UUID], *, delay_seconds: float = 0
) -> None:
    """One item per job and step: an item that waits or runs already stays as it is."""
    count = len(job_ids)
    await Queries(cast(Driver, _TransactionDriver(connection))).enqueue(
        [step.value] * count,
        [job_id.bytes for job_id in job_ids],
        [0] * count,
        execute_after=[timedelta(seconds=delay_seconds)] * count,
        dedupe_key=[dedupe_key(step, job_id) for job_id in job_ids],
        on_conflict="skip",
    )
