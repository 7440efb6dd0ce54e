"""The arithmetic: percentiles, medians over rounds, ratios, and the bars that ratios are held against."""

import math
import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Figures: TypeAlias = dict[str, float]
"""What one round of one row came to: `per_second`, `p50_ms` and the like."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed. `ordered` is sorted and not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles(values_ms: Sequence[float]) -> Figures:
    ordered = sorted(values_ms)
    return {f"p{percent}_ms": percentile(ordered, percent / 100) for percent in (50, 95, 99)}


@dataclass(slots=True)
class Row:
    rounds: list[Figures] = field(default_factory=list)
    error: str | None = None
    """Why there are no figures; a row that failed once is not asked again."""

    def median(self, figure: str) -> float | None:
        values = [figures[figure] for figures in self.rounds if figure in figures]
        return statistics.median(values) if values and self.error is None else None

    @property
    def names(self) -> Sequence[str]:
        return list(dict.fromkeys(name for figures in self.rounds for name in figures))


Rows: TypeAlias = dict[str, Row]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of the medians, and the smallest and largest one that a single round gave."""

    value: float
    least: float
    most: float


def ratio(rows: Mapping[str, Row], dividend: str, divisor: str, figure: str = "per_second") -> Ratio | None:
    """None: one of the two rows has no such figure."""
    if dividend not in rows or divisor not in rows:
        return None
    above, below = rows[dividend].median(figure), rows[divisor].median(figure)
    if above is None or not below:
        return None
    each = [
        over[figure] / under[figure]
        for over, under in zip(rows[dividend].rounds, rows[divisor].rounds, strict=False)
        if figure in over and under.get(figure)
    ]
    return Ratio(above / below, min(each, default=above / below), max(each, default=above / below))


@dataclass(frozen=True, slots=True)
class Bar:
    """`dividend` over `divisor`, or the bare figure of `dividend`, must be at least or at most `bound`."""

    text: str
    dividend: str
    divisor: str | None
    sense: str
    bound: float
    figure: str = "per_second"

    def judge(self, rows: Mapping[str, Row]) -> "Verdict | None":
        """None: the rows were not measured."""
        if self.divisor is None:
            row = rows.get(self.dividend)
            value = None if row is None else row.median(self.figure)
            found = None if value is None else Ratio(value, value, value)
        else:
            found = ratio(rows, self.dividend, self.divisor, self.figure)
        if found is None:
            return None
        return Verdict(self, found, _SENSES[self.sense](found.value, self.bound))


@dataclass(frozen=True, slots=True)
class Verdict:
    bar: Bar
    ratio: Ratio
    is_reached: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "bar": self.bar.text,
            "figure": self.bar.figure,
            "dividend": self.bar.dividend,
            "divisor": self.bar.divisor,
            "value": self.ratio.value,
            "least_of_rounds": self.ratio.least,
            "most_of_rounds": self.ratio.most,
            "bound": f"{self.bar.sense} {self.bar.bound:g}",
            "is_reached": self.is_reached,
        }


_SENSES: Mapping[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, "<": operator.lt}
