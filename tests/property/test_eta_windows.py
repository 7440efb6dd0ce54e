"""What jobs were told of their end, held against it, in three shapes of load of the fair queue, without a service.

TOLD_WAITS sets how many jobs each shape has, TOLD_SEED what they are, TORTURE_REPORT a file that gets the figures.
"""

import os
import random
from collections.abc import Callable, Sequence

import pytest

from tests.property.served import DRAFT, FILM, PICTURE, PLACES, Arrival, Asked, FairService
from tests.torture_report import report

JOBS = int(os.environ.get("TOLD_WAITS", "1500"))
SEED = int(os.environ.get("TOLD_SEED", "1"))
MODELS, SHARES = (PICTURE, DRAFT, FILM), (0.6, 0.3, 0.1)
# Of a thousand jobs so many have ended when their window begins, and when it ends: of all, of those that waited for
# their turn, whose speed the shapes change meanwhile, and of those that ran.
BY_FROM = {"all": (370, 590), "waiting": (300, 640), "running": (430, 590)}
BY_TO = {"all": (850, 960), "waiting": (850, 970), "running": (825, 970)}
# Of a thousand who ask so many are told.
TOLD_MIN = 700


def steady(chance: random.Random, jobs: int) -> Sequence[Arrival]:
    """Nine tenths of what the places can do, of twenty accounts."""
    mean_seconds = sum(model.mean_seconds * share for model, share in zip(MODELS, SHARES, strict=True))
    now, arrivals = 0.0, list[Arrival]()
    for _ in range(jobs):
        now += chance.expovariate(0.9 * PLACES / mean_seconds)
        arrivals.append(Arrival(now, f"user {chance.randrange(20)}", chance.choices(MODELS, SHARES)[0]))
    return arrivals


def crowd(chance: random.Random, jobs: int) -> Sequence[Arrival]:
    """One account brings half of all at once, a quarter of them films; light users overtake it all along."""
    arrivals = [Arrival(chance.uniform(0, 5), "crowd", PICTURE if each % 4 else FILM) for each in range(jobs // 2)]
    now = 0.0
    for _ in range(jobs - jobs // 2):
        now += chance.expovariate(0.3 * PLACES / PICTURE.mean_seconds)
        arrivals.append(Arrival(now, f"user {chance.randrange(20)}", chance.choice((PICTURE, DRAFT))))
    return arrivals


def bursts(chance: random.Random, jobs: int) -> Sequence[Arrival]:
    """Every few minutes up to three accounts bring some dozens within three seconds."""
    now, arrivals = 0.0, list[Arrival]()
    while len(arrivals) < jobs:
        now += chance.uniform(60, 240)
        accounts = [f"user {chance.randrange(30)}" for _ in range(chance.randrange(1, 4))]
        for _ in range(chance.randrange(10, 80)):
            model = chance.choices(MODELS, SHARES)[0]
            arrivals.append(Arrival(now + chance.uniform(0, 3), chance.choice(accounts), model))
    return arrivals


def of_a_thousand(asked: Sequence[Asked], is_so: Callable[[Asked], bool]) -> int:
    return round(1000 * sum(map(is_so, asked)) / len(asked))


def is_told(asked: Asked) -> bool:
    return asked.window is not None


def is_by_from(asked: Asked) -> bool:
    return asked.window is not None and asked.seconds <= asked.window.from_seconds


def is_by_to(asked: Asked) -> bool:
    return asked.window is not None and asked.seconds <= asked.window.to_seconds


def is_within(asked: Asked) -> bool:
    return asked.window is not None and asked.window.from_seconds <= asked.seconds <= asked.window.to_seconds


def width(asked: Sequence[Asked]) -> float:
    """How many times the true wait the end of the window is, in the middle of all."""
    ratios = sorted(each.window.to_seconds / each.seconds for each in asked if each.window and each.seconds)
    return round(ratios[len(ratios) // 2], 2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", [steady, crowd, bursts], ids=lambda shape: str(shape.__name__))
def test_half_end_by_the_begin_of_their_window_and_nine_of_ten_by_its_end(
    shape: Callable[[random.Random, int], Sequence[Arrival]],
) -> None:
    """Less is asked here: the shapes are harder than the law that the windows are computed by."""
    chance = random.Random(SEED)

    asked = FairService(chance).serve(shape(chance, JOBS))

    told = [each for each in asked if is_told(each)]
    waiting, running = ([each for each in told if each.is_waiting is waits] for waits in (True, False))
    groups = {"all": told, "waiting": waiting, "running": running}
    by_from = {name: of_a_thousand(group, is_by_from) for name, group in groups.items()}
    by_to = {name: of_a_thousand(group, is_by_to) for name, group in groups.items()}
    told_of_1000 = of_a_thousand(asked, is_told)
    figures = {
        "windows": len(told),
        "told_of_1000": told_of_1000,
        "by_from_of_1000": by_from,
        "by_to_of_1000": by_to,
        "within_of_1000": {name: of_a_thousand(group, is_within) for name, group in groups.items()},
        "end_of_window_by_true_wait": width(told),
    }
    report(shape.__name__, figures)
    assert len(told) > JOBS / 2
    assert told_of_1000 >= TOLD_MIN
    for name in groups:
        assert BY_FROM[name][0] <= by_from[name] <= BY_FROM[name][1], figures
        assert BY_TO[name][0] <= by_to[name] <= BY_TO[name][1], figures
