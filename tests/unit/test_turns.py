"""Fair turns as a rule of their own, and what comes of it while many accounts wait for a few places at fal."""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.turns import TAGS_PER_SECOND, Turns, cost

FIRST_TAG, WEIGHT_MAX = 1, 1000
SECONDS = st.lists(st.integers(1, 3600), min_size=1, max_size=20)
TIMES = st.integers(FIRST_TAG, 10**15)
WEIGHTS = st.integers(1, WEIGHT_MAX)


@settings(deadline=None)
@given(SECONDS, TIMES, TIMES, WEIGHTS)
def test_tags_begin_at_the_virtual_time_or_where_the_account_has_come_to(
    seconds: Sequence[int], virtual_time: int, next_tag: int, weight: int
) -> None:
    turns = Turns.of(seconds, virtual_time=virtual_time, next_tag=next_tag, weight=weight)

    assert turns.tags[0] == max(virtual_time, next_tag)
    assert turns.next_tag == turns.tags[0] + sum(seconds) * TAGS_PER_SECOND // weight


@settings(deadline=None)
@given(SECONDS, TIMES, WEIGHTS)
def test_tags_lie_as_far_apart_as_the_jobs_take_divided_by_the_weight(
    seconds: Sequence[int], time: int, weight: int
) -> None:
    turns = Turns.of(seconds, virtual_time=time, next_tag=0, weight=weight)

    for each, (tag, following) in zip(seconds, pairwise([*turns.tags, turns.next_tag]), strict=True):
        assert cost(each, weight) <= following - tag <= cost(each, weight) + 1


@settings(deadline=None)
@given(SECONDS, SECONDS, TIMES, WEIGHTS)
def test_jobs_that_are_accepted_together_get_the_turns_that_they_would_get_one_after_the_other(
    first: Sequence[int], second: Sequence[int], time: int, weight: int
) -> None:
    together = Turns.of([*first, *second], virtual_time=time, next_tag=time, weight=weight)
    one = Turns.of(first, virtual_time=time, next_tag=time, weight=weight)
    other = Turns.of(second, virtual_time=time, next_tag=one.next_tag, weight=weight)

    apart = [*one.tags, *other.tags]
    assert all(0 <= tag - same <= 1 for tag, same in zip(together.tags, apart, strict=True))


@dataclass
class Fal:
    """So many places; whoever has the smallest tag goes next, and what came first of those that have the same."""

    places: int
    virtual_time: int = FIRST_TAG
    now: float = 0.0
    served: Counter[str] = field(default_factory=Counter)
    began_at: dict[int, float] = field(default_factory=dict)
    _next_tags: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _waiting: list[tuple[int, int, str, int]] = field(default_factory=list)
    _running: list[float] = field(default_factory=list)
    _count: int = 0

    def accept(self, account: str, *seconds: int, weight: int = 1) -> list[int]:
        next_tag = self._next_tags[account]
        turns = Turns.of(seconds, virtual_time=self.virtual_time, next_tag=next_tag, weight=weight)
        self._next_tags[account] = turns.next_tag
        jobs = []
        for tag, each in zip(turns.tags, seconds, strict=True):
            self._count += 1
            heapq.heappush(self._waiting, (tag, self._count, account, each))
            jobs.append(self._count)
        return jobs

    def run(self, until: float) -> None:
        while self._waiting:
            if len(self._running) == self.places:
                if self._running[0] > until:
                    break
                self.now = max(self.now, heapq.heappop(self._running))
            tag, number, account, seconds = heapq.heappop(self._waiting)
            self.virtual_time = max(self.virtual_time, tag)
            self.began_at[number] = self.now
            self.served[account] += seconds
            heapq.heappush(self._running, self.now + seconds)
        self.now = max(self.now, until)


def jain(shares: Sequence[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@pytest.mark.parametrize("places", [1, 2, 10, 40])
@pytest.mark.parametrize("seed", range(5))
def test_accounts_that_wait_get_the_same(places: int, seed: int) -> None:
    """However long their jobs take, and however many they are."""
    choice = random.Random(seed)
    fal, accounts = Fal(places), [f"account {number}" for number in range(8)]
    for account in accounts:
        longest = choice.choice([5, 30, 120])
        fal.accept(account, *(choice.randint(1, longest) for _ in range(4_000)))

    fal.run(until=40_000 / places)

    assert jain([fal.served[account] for account in accounts]) >= 0.99


@pytest.mark.parametrize("places", [1, 2, 10, 40])
def test_shares_follow_the_weights(places: int) -> None:
    weights: Mapping[str, int] = {"one": 1, "two": 2, "three": 3, "ten": 10}
    fal = Fal(places)
    for account, weight in weights.items():
        fal.accept(account, *[10] * 20_000, weight=weight)

    fal.run(until=100_000 / places)

    for account, weight in weights.items():
        share = fal.served[account] / fal.served.total()
        assert share == pytest.approx(weight / sum(weights.values()), rel=0.05)


@pytest.mark.parametrize("places", [1, 2, 10, 40])
def test_a_newcomer_goes_next(places: int) -> None:
    fal = Fal(places)
    fal.accept("crowd", *[90] * 10_000)
    fal.run(until=1_000)
    (number,) = fal.accept("newcomer", 10)
    asked_at = fal.now

    fal.run(until=2_000)

    # The next place comes free within the time of one run at the most.
    assert fal.began_at[number] - asked_at <= 90
    assert sum(asked_at < began < fal.began_at[number] for began in fal.began_at.values()) == 0


def test_with_one_place_the_long_backlog_goes_on_whatever_comes() -> None:
    fal = Fal(places=1)
    fal.accept("crowd", *[10] * 1_000)
    for second in range(0, 10_000, 5):
        fal.accept(f"newcomer {second % 50}", 10)
        fal.run(until=second)

    assert fal.served["crowd"] >= 0.8 * 10_000 / 11


def test_whoever_was_away_has_saved_nothing_up() -> None:
    fal = Fal(places=1)
    fal.accept("away", 10)
    fal.accept("crowd", *[10] * 2_000)
    fal.run(until=10_000)
    fal.accept("away", *[10] * 1_000)
    before = Counter(fal.served)

    fal.run(until=12_000)

    gained = {account: fal.served[account] - before[account] for account in ("away", "crowd")}
    assert jain(list(gained.values())) >= 0.99
