"""Fair turns: start-time fair queueing between accounts, weighted.

Each job has a tag, and whoever has the smallest goes next. The tags of an account lie as far apart as its jobs take at
fal, divided by its weight, and begin at the virtual time, which is the tag of the newest job that was let go. So one
that comes anew goes next, whoever else has waited for however long; and whoever waits keeps its turn, whatever comes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Of virtual time: fine enough for a job of a second and the largest weight. 64 bits of them last for centuries.
TAGS_PER_SECOND = 1_000_000
WEIGHT_MAX = 1000
# Before it no tag is given, so that 0 can stand for none.
FIRST_TAG = 1


@dataclass(frozen=True, slots=True)
class Turns:
    """Of the jobs of an account that are accepted together."""

    tags: Sequence[int]
    next_tag: int
    """Where the account's next job begins, unless the virtual time is beyond that by then."""

    @classmethod
    def of(cls, expected_seconds: Sequence[int], *, virtual_time: int, next_tag: int, weight: int = 1) -> "Turns":
        start = max(virtual_time, next_tag)
        tags = [start + cost(seconds, weight) for seconds in seconds_before(expected_seconds)]
        return cls(tags, start + cost(sum(expected_seconds), weight))


def cost(expected_seconds: int, weight: int) -> int:
    return expected_seconds * TAGS_PER_SECOND // weight


def seconds_before(expected_seconds: Sequence[int]) -> Iterator[int]:
    """What the jobs before each one take together. Costs are rounded of such sums, so that no error adds up."""
    total = 0
    for seconds in expected_seconds:
        yield total
        total += seconds
