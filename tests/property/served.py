"""Jobs, accounts and places without a service: what the fair queue does with them, and who asks when."""

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.domain.turns import Turns
from app.domain.waiting import RUNS_KEPT, Pace, Queue, QueueHistory, QueueSpeed, Window, places_per_second

LOOK_SECONDS = 2.0
PLACES = 8


@dataclass(frozen=True, slots=True)
class Model:
    """`expected_seconds` is what the catalogue says; what its runs take is spread about another mean."""

    name: str
    expected_seconds: int
    mean_seconds: float
    sigma: float

    def run_seconds(self, chance: random.Random) -> float:
        """Logarithmically normal, with a few that take three times as long."""
        slow = 3.0 if chance.random() < 0.02 else 1.0
        return slow * self.mean_seconds * chance.lognormvariate(-(self.sigma**2) / 2, self.sigma)


PICTURE = Model("picture", 15, 9.0, 0.35)
DRAFT = Model("draft", 5, 6.0, 0.5)
FILM = Model("film", 90, 70.0, 0.3)


@dataclass(frozen=True, slots=True)
class Arrival:
    at_seconds: float
    account: str
    model: Model


@dataclass(slots=True)
class Asked:
    """What a job was told, and when it ended."""

    at_seconds: float
    account: str
    is_waiting: bool
    """For its turn: it does not run yet."""
    window: Window | None
    ends_at_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it took from then on."""
        return self.ends_at_seconds - self.at_seconds


@dataclass(slots=True)
class _Job:
    arrival: Arrival
    tag: int
    asked: list[Asked] = field(default_factory=list)
    claimed_at_seconds: float | None = None


class FairService:
    """Ends all jobs. Each asks at the first look that sees it, and a few ask again at every later one."""

    def __init__(self, chance: random.Random, *, places: int = PLACES, asks_each_look: int = 2) -> None:
        self._chance = chance
        self._places = places
        self._asks = asks_each_look
        self._virtual_time = 1
        self._next_tags: dict[str, int] = {}
        self._waiting: list[tuple[int, int, _Job]] = []
        self._running: list[tuple[float, int, _Job]] = []
        self._runs: dict[str, list[float]] = {}
        self._paces: dict[str, Pace] = {}
        self._history = QueueHistory()
        self._speed: QueueSpeed | None = None
        self._count = 0
        self._new: list[_Job] = []
        self.asked: list[Asked] = []

    def serve(self, arrivals: Sequence[Arrival]) -> Sequence[Asked]:
        ahead = sorted(arrivals, key=lambda arrival: arrival.at_seconds)
        look_at = 0.0
        while ahead or self._waiting or self._running:
            moments = [look_at, *(arrival.at_seconds for arrival in ahead[:1])]
            now = min([*moments, self._running[0][0]] if self._running else moments)
            while self._running and self._running[0][0] <= now:
                self._end(now)
            self._fill(now)
            if now >= look_at:
                look_at = now + LOOK_SECONDS
                self._look(now)
            while ahead and ahead[0].at_seconds <= now:
                self._new.append(self._accept(ahead.pop(0)))
                self._fill(now)
        return self.asked

    def _accept(self, arrival: Arrival) -> _Job:
        account, expected = arrival.account, arrival.model.expected_seconds
        turn = Turns.of([expected], virtual_time=self._virtual_time, next_tag=self._next_tags.get(account, 0))
        self._next_tags[account] = turn.next_tag
        job = _Job(arrival, turn.tags[0])
        self._count += 1
        heapq.heappush(self._waiting, (job.tag, self._count, job))
        return job

    def _fill(self, now: float) -> None:
        while self._waiting and len(self._running) < self._places:
            tag, number, job = heapq.heappop(self._waiting)
            self._virtual_time = max(self._virtual_time, tag)
            job.claimed_at_seconds = now
            heapq.heappush(self._running, (now + job.arrival.model.run_seconds(self._chance), number, job))

    def _end(self, now: float) -> None:
        _, _, job = heapq.heappop(self._running)
        assert job.claimed_at_seconds is not None
        name = job.arrival.model.name
        runs = [now - job.claimed_at_seconds, *self._runs.get(name, [])][:RUNS_KEPT]
        self._runs[name] = runs
        pace = Pace.of(runs)
        if pace is not None:
            self._paces[name] = pace
        for asked in job.asked:
            asked.ends_at_seconds = now

    def _look(self, now: float) -> None:
        held = Counter(job.arrival.model.name for _, _, job in self._running)
        self._speed = self._history.add(
            Queue(
                seen_at_seconds=now,
                tags=sorted(tag for tag, _, _ in self._waiting),
                virtual_time=self._virtual_time,
                free_places=self._places - len(self._running),
                held_places=len(self._running),
                is_bounded=True,
                places_per_second=places_per_second(held, self._paces),
            )
        )
        here = [job for _, _, job in (*self._waiting, *self._running)]
        for job in [*self._new, *self._chance.sample(here, min(self._asks, len(here)))]:
            self._ask(job, now)
        self._new.clear()

    def _ask(self, job: _Job, now: float) -> None:
        pace = self._paces.get(job.arrival.model.name)
        window = None
        if pace is not None and job.claimed_at_seconds is not None:
            window = pace.left(now - job.claimed_at_seconds)
        elif pace is not None and self._speed is not None:
            wait, run = self._speed.wait(job.tag), pace.left()
            window = None if wait is None or run is None else wait + run
        asked = Asked(now, job.arrival.account, job.claimed_at_seconds is None, window)
        job.asked.append(asked)
        self.asked.append(asked)
