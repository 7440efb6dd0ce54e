"""How many jobs stand before one that waits, and when it may end: measured, or not said.

A window is from the median to the 90th hundredth of what was measured: half of the jobs end before it begins, and nine
of ten before it ends. So four of ten end within.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from app.domain.jobs import Job, JobStatus, WaitingFor

# Of a model, the newest ones.
RUNS_KEPT = 200
# Fewer say nothing of the next one, and of those that run for longer than nearly all have, too few are left.
RUNS_MIN = 10
LONGER_RUNS_MIN = 4
LOW, HIGH = 0.5, 0.9
# The same two, in standard deviations.
_LOW_DEVIATIONS, _HIGH_DEVIATIONS = 0.0, 1.2816
# Between the first and the last look that a speed is measured from, and how many jobs must have gone on meanwhile.
MEASURED_SECONDS_MIN = 8.0
MEASURED_JOBS_MIN = 8.0
MEASURED_SECONDS_MAX = 300.0
# The jobs that were measured and those that come next are of different models: so much less does their average tell.
UNLIKE = 2.0


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds from now, by which half of the jobs have ended, and nine of ten."""

    from_seconds: float
    to_seconds: float

    def __add__(self, other: "Window") -> "Window":
        """The end is a little late: a wait and a run are seldom both that long."""
        return Window(self.from_seconds + other.from_seconds, self.to_seconds + other.to_seconds)


NO_WAIT = Window(0, 0)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long jobs of a model took lately from their claim to their end, fal's own queue included."""

    seconds: Sequence[float]
    """Ascending."""

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Pace | None":
        return cls(sorted(seconds)) if len(seconds) >= RUNS_MIN else None

    @property
    def mean_seconds(self) -> float:
        return sum(self.seconds) / len(self.seconds)

    def left(self, passed_seconds: float = 0.0) -> Window | None:
        """What of those that took longer than this was left by then. None: too few did."""
        first = bisect_right(self.seconds, passed_seconds)
        longer = len(self.seconds) - first
        if longer < LONGER_RUNS_MIN:
            return None
        low, high = int(LOW * longer), ceil(HIGH * longer) - 1
        return Window(self.seconds[first + low] - passed_seconds, self.seconds[first + high] - passed_seconds)


Paces = Mapping[str, Pace]


def places_per_second(held: Mapping[str, int], paces: Paces) -> float | None:
    """How many places become free, by how many each model holds. None: of one of them nothing was measured."""
    if not held or any(model_id not in paces for model_id in held):
        return None
    return sum(count / paces[model_id].mean_seconds for model_id, count in held.items())


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs that wait for their turn, as one look saw them."""

    seen_at_seconds: float
    tags: Sequence[int]
    """Ascending."""
    virtual_time: int
    free_places: int = 0
    held_places: int = 0
    is_bounded: bool = False
    """Only so many jobs may be at fal at once."""
    places_per_second: float | None = None
    """How many become free, by the runs of the models that hold them."""

    def position(self, tag: int) -> int:
        """How many stand before it."""
        return bisect_left(self.tags, tag)


@dataclass(frozen=True, slots=True)
class QueueSpeed:
    """The newest look at the queue, and how it moved since an older one."""

    now: Queue
    tags_per_second: float | None = None
    """Of virtual time: whoever overtakes is in it."""
    jobs_per_second: float | None = None
    """That take their turn."""
    measured_jobs: float = 1.0
    """Of how many that is the average."""

    def wait(self, tag: int) -> Window | None:
        """Until the job of this tag has its turn. None: nothing was measured."""
        position = self.now.position(tag)
        if position < self.now.free_places or (position == 0 and not self.now.is_bounded):
            return NO_WAIT
        if self.jobs_per_second is None:
            return None
        before: float = position + 1 - self.now.free_places
        if self.tags_per_second is not None:
            # With those who come meanwhile and go first.
            before = max(before, (tag - self.now.virtual_time) / self.tags_per_second * self.jobs_per_second)
        return Window(
            _time_of(before, self.measured_jobs, _LOW_DEVIATIONS) / self.jobs_per_second,
            _time_of(before, self.measured_jobs, _HIGH_DEVIATIONS) / self.jobs_per_second,
        )


def _time_of(number: float, measured: float, deviations: float) -> float:
    """When so many have come, of whom one comes in a second on the average (Wilson and Hilferty, of a gamma law).

    Places become free like that, each at a time of its own; and the average is that of so few.
    """
    shape = 1 / (1 / number + UNLIKE / measured)
    return float(number * max(0.0, 1 - 1 / (9 * shape) + deviations / (3 * sqrt(shape))) ** 3)


@dataclass(frozen=True, slots=True)
class _Look:
    at_seconds: float
    virtual_time: int
    passed: int
    """How many jobs that an earlier look saw had had their turn by then."""


class QueueHistory:
    """Looks at the queue since it was last empty, but for the newest one without the tags."""

    def __init__(self) -> None:
        self._looks: deque[_Look] = deque()
        self._tags: Sequence[int] = ()

    def add(self, now: Queue) -> QueueSpeed:
        if not now.tags:
            self._looks.clear()
        # Of those that stood there, and not of those that came since.
        passed = bisect_right(self._tags, now.virtual_time) + (self._looks[-1].passed if self._looks else 0)
        self._tags = now.tags
        self._looks.append(_Look(now.seen_at_seconds, now.virtual_time, passed))
        while self._looks[0].at_seconds < now.seen_at_seconds - MEASURED_SECONDS_MAX:
            self._looks.popleft()
        first = self._looks[0]
        seconds = now.seen_at_seconds - first.at_seconds
        jobs_per_second = now.places_per_second
        if jobs_per_second is None and seconds >= MEASURED_SECONDS_MIN:
            jobs_per_second = (passed - first.passed) / seconds or None
        measured = max(1.0, now.held_places, (jobs_per_second or 0) * seconds)
        if not jobs_per_second or jobs_per_second * seconds < MEASURED_JOBS_MIN:
            return QueueSpeed(now, None, jobs_per_second, measured)
        return QueueSpeed(now, (now.virtual_time - first.virtual_time) / seconds or None, jobs_per_second, measured)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is said of a job that has not ended. None: not known, or nothing to say."""

    waiting_for: WaitingFor | str | None = None
    position: int | None = None
    eta: Window | None = None


NOTHING_TO_SAY = Outlook()


def outlook(job: Job, speed: QueueSpeed | None, paces: Paces, now_seconds: float) -> Outlook:
    """`now_seconds` is a moment, as `timestamp()` of a datetime tells it."""
    if job.is_final:
        return NOTHING_TO_SAY
    waits_for, pace = job.waits_for, paces.get(job.model_id)
    if job.status is JobStatus.QUEUED:
        # Of those that came with a job that is younger than the look, nobody was counted.
        is_seen = speed is not None and job.created_at.timestamp() <= speed.now.seen_at_seconds
        if waits_for is None or job.fair_tag is None or speed is None or not is_seen:
            return Outlook(waits_for)
        in_our_queue = speed.now.position(job.fair_tag)
        # Nobody knows when the others end.
        is_in_turn = waits_for is WaitingFor.FAIR_SHARE
        wait = speed.wait(job.fair_tag) if is_in_turn else None
        run = None if pace is None else pace.left()
        return Outlook(waits_for, in_our_queue, None if wait is None or run is None else wait + run)
    if waits_for is None and job.status is not JobStatus.IN_PROGRESS:
        return NOTHING_TO_SAY
    position = job.provider_position if job.status in _IN_FALS_QUEUE else None
    is_lost = job.status is JobStatus.SUBMITTING and job.status_reason is not None
    if pace is None or job.claimed_at is None or is_lost:
        return Outlook(waits_for, position)
    return Outlook(waits_for, position, pace.left(max(0.0, now_seconds - job.claimed_at.timestamp())))


_IN_FALS_QUEUE = frozenset({JobStatus.SUBMITTED, JobStatus.IN_QUEUE})
