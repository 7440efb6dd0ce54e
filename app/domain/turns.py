"""Fair turns: start-time fair queueing between accounts, weighted.

Each job has a tag, and whoever has the smallest goes next. The tags of an account lie as far apart as its jobs take at
fal, divided by its weight, and begin at the virtual time, which is the tag of the newest job that was let go. So one
that comes anew goes next, whoever else has waited for however long; and whoever waits keeps its turn, whatever comes.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

# Of virtual time: fine enough for a job of a second and the largest weight. 64 bits of them last for centuries.
TAGS_PER_SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Turns:
    """Of the jobs of an account that are accepted together, as the accepting statement gives them."""

    tags: Sequence[int]
    next_tag: int
    """Where the account's next job begins, unless the virtual time is beyond that by then."""

    @classmethod
    def of(cls, expected_seconds: Sequence[int], *, virtual_time: int, next_tag: int, weight: int = 1) -> "Turns":
        start = max(virtual_time, next_tag)
        tags = [start + cost(before, weight) for before in seconds_before((None, each) for each in expected_seconds)]
        return cls(tags, start + cost(sum(expected_seconds), weight))


def cost(expected_seconds: int, weight: int) -> int:
    return expected_seconds * TAGS_PER_SECOND // weight


def seconds_before(jobs: Iterable[tuple[Hashable, int]]) -> list[int]:
    """Of accounts and expected seconds: what the jobs of its account take that come before each one.

    Costs are rounded of such sums, so that no error adds up.
    """
    totals: Counter[Hashable] = Counter()
    before = []
    for account, seconds in jobs:
        before.append(totals[account])
        totals[account] += seconds
    return before
