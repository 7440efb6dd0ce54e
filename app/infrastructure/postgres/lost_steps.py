"""Finds the steps that the queue has lost, whatever lost them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Select, exists, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import Step
from app.infrastructure.postgres.database import transaction
from app.infrastructure.postgres.queue import IS_LIVE, enqueue, key_of, queue_items

# Of each step that nobody waits for; the next look takes the next ones. Where a store was away for a day many wait.
REQUEUED_AT_ONCE = 5_000

WaitingSubjects: TypeAlias = Select[UUID]
"""The ids of the subjects that wait for a step, as the column `id`, whether or not the queue has an item for them."""


@dataclass(frozen=True, slots=True)
class PostgresLostSteps:
    engine: AsyncEngine
    waiting: Mapping[Step, WaitingSubjects]

    async def requeue_lost(self, subject_id: UUID | None = None) -> Mapping[Step, Sequence[UUID]]:
        requeued: dict[Step, Sequence[UUID]] = {}
        async with transaction(self.engine, "requeue_lost") as connection:
            for step, waiting in self.waiting.items():
                requeued[step] = (await connection.scalars(_lost(step, waiting, subject_id))).all()
                if requeued[step]:
                    await enqueue(connection, step, requeued[step])
        return requeued


def _lost(step: Step, waiting: WaitingSubjects, subject_id: UUID | None) -> Select[Any]:
    """Subjects that wait for the step while nothing in the queue will take it."""
    subject = waiting.subquery("subject")
    lost = select(subject.c.id).where(
        ~exists().where(queue_items.c.dedupe_key == key_of(step, subject.c.id), IS_LIVE),
    )
    if subject_id is not None:
        lost = lost.where(subject.c.id == subject_id)
    # Everybody queues in this order, so that no two transactions wait for each other's items.
    lost = lost.order_by(subject.c.id)
    return lost.limit(REQUEUED_AT_ONCE) if step.lane.steps_may_take_long else lost
