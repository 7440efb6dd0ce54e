"""How jobs and accounts are locked.

Jobs come before accounts, and among each they are taken in the order of their ids, so that no two transactions wait for
each other in a circle. Jobs are locked as fully as the updates need them: no lock is made stronger later.
"""

from collections.abc import Hashable, Sequence, Set
from typing import Any, TypeVar

from sqlalchemy import CTE, ColumnElement, select

from app.infrastructure.postgres.statements import RowArrays
from app.infrastructure.postgres.tables import jobs

Won = TypeVar("Won", bound=Hashable)


def locked_jobs(batch: RowArrays, *columns: ColumnElement[Any]) -> CTE:
    """The jobs that `job_id` of the batch names, with these columns as they were before the statement.

    An update of many rows locks them in any order; joined to this, in the order of their ids.
    """
    named = batch.names(jobs.c.id, "job_id")
    return select(jobs.c.id, *columns).where(named).order_by(jobs.c.id).with_for_update().cte("locked")


def one_for_each(won: Set[Won], named: Sequence[Won]) -> Sequence[bool]:
    """Whoever comes first with a name that won; who comes later with the same one was too late."""
    left = set(won)
    answers = []
    for name in named:
        answers.append(name in left)
        left.discard(name)
    return answers
