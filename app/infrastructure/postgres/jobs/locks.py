"""How jobs and accounts are locked.

Jobs come before accounts, and among each they are taken in the order of their ids, so that no two transactions wait for
each other in a circle. Jobs are locked as fully as the updates need them: no lock is made stronger later.
"""

from collections.abc import Hashable, Sequence, Set
from typing import TypeVar

# An update of many rows takes them in any order; joined to this one, in the order of their ids.
LOCKED_JOBS = "locked AS (SELECT id FROM jobs WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE)"

Won = TypeVar("Won", bound=Hashable)


def one_for_each(won: Set[Won], named: Sequence[Won]) -> Sequence[bool]:
    """Whoever comes first with a name that won; who comes later with the same one was too late."""
    left = set(won)
    answers = []
    for name in named:
        answers.append(name in left)
        left.discard(name)
    return answers
