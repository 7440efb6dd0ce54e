"""How long a price takes, of every model in each way that it is sold: worked out, and remembered."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.domain.models import Model
from app.infrastructure.catalogue.reading import read_catalogue
from benchmarks.figures import Bar, Figures
from benchmarks.measuring import Options, Run
from benchmarks.stage import Stage

NAMES = ("price",)
BARS = (Bar("a price, of first ones and remembered ones: mean us", "price", None, "<=", 5, "mean_us"),)
TIMES = 10

Asked = Sequence[tuple[Model, Mapping[str, Any]]]


def estimate_seconds(options: Options) -> float:
    return options.rounds * 2


async def run_prices(_stage: Stage, run: Run) -> None:
    await run.in_turn("price", {"price": _price})


async def _price() -> Figures:
    """In this process. Models that were read have been priced to check them; their copies remember nothing."""
    models = list(read_catalogue())
    asked = [_asked([replace(model) for model in models]) for _ in range(TIMES)]
    first, remembered = (_us_each([price for each in asked for price in each]) for _ in range(2))
    return {
        "count": len(asked[0]),
        "first_us": first,
        "remembered_us": remembered,
        "mean_us": (first + remembered) / 2,
    }


def _asked(models: Sequence[Model]) -> Asked:
    return [(model, model.completed(parameters)) for model in models for parameters in model.combinations()]


def _us_each(asked: Asked) -> float:
    """Processor time: what else the machine does is not in it."""
    began = time.process_time_ns()
    for model, parameters in asked:
        model.price_lines(parameters)
    return (time.process_time_ns() - began) / len(asked) / 1000
