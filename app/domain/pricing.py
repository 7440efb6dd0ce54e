"""What a generation costs, line by line, and what of it is charged for what was delivered."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

_ONE = Fraction(1)
# Of one unit, and of a whole request.
PRICE_TOKENS_MAX = 10**9
# fal rounds the size of each picture up to whole ones.
MEGAPIXEL_PIXELS = 1024 * 1024


class Unit(StrEnum):
    """What a line counts."""

    IMAGE = "image"
    MEGAPIXEL = "megapixel"
    SECOND = "second"
    RUN = "run"


def megapixels_of(width: int, height: int) -> int:
    return -(-width * height // MEGAPIXEL_PIXELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantities:
    """What a request asks for, or what came of it."""

    megapixels: Sequence[int]
    """Of each output, rounded up; 0 where it has no price by size. As many as there are outputs."""
    seconds: int = 0
    """Of each output; 0 where it has no length."""

    @property
    def outputs(self) -> int:
        return len(self.megapixels)

    def of(self, unit: Unit, after: int) -> int:
        """How many units there are beyond the first `after`: of all pictures, or of each one's size or length."""
        if not self.outputs:
            return 0
        match unit:
            case Unit.IMAGE:
                return max(0, self.outputs - after)
            case Unit.MEGAPIXEL:
                return sum(max(0, size - after) for size in self.megapixels)
            case Unit.SECOND:
                return self.outputs * max(0, self.seconds - after)
            case Unit.RUN:
                return 1


@dataclass(frozen=True, kw_only=True)
class PriceLine:
    """One summand of a cost, as a job keeps it: everything that its refund takes."""

    line: str
    unit: Unit
    unit_tokens: int
    quantity: int
    factor: Fraction = _ONE
    after: int = 0

    def __hash__(self) -> int:
        # That of a fraction takes longer than all the others.
        return hash((self.line, self.unit, self.unit_tokens, self.quantity, self.after))

    @cached_property
    def tokens(self) -> int:
        """Rounded up once."""
        return -(-self.unit_tokens * self.factor.numerator * self.quantity // self.factor.denominator)

    def delivered(self, quantities: Quantities) -> Self:
        """The line for what came, which is never more than what was charged."""
        return replace(self, quantity=min(self.quantity, quantities.of(self.unit, self.after)))

    def as_json(self) -> Mapping[str, Any]:
        return {
            "line": self.line,
            "unit": self.unit.value,
            "unit_tokens": self.unit_tokens,
            "factor": str(self.factor),
            "quantity": self.quantity,
            "after": self.after,
            "tokens": self.tokens,
        }

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        return cls(
            line=stored["line"],
            unit=Unit(stored["unit"]),
            unit_tokens=stored["unit_tokens"],
            factor=Fraction(stored["factor"]),
            quantity=stored["quantity"],
            after=stored["after"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRule:
    """A line of a model's price list. Conditions and factors are of parameters with few values."""

    line: str
    unit: Unit
    tokens: int
    after: int = 0
    when: Mapping[str, frozenset[Hashable]] = field(default_factory=dict)
    """The values of parameters for which it counts; without any, always."""
    factors: Mapping[str, Mapping[Hashable, Fraction]] = field(default_factory=dict)
    """By parameter and value; a value that is not named has 1."""
    group: str = ""
    """Of the rules of one group exactly one counts, or at most one if it is optional."""
    is_optional: bool = False

    def counts_for(self, parameters: Mapping[str, Any]) -> bool:
        return all(parameters.get(name) in values for name, values in self.when.items())

    def line_for(self, parameters: Mapping[str, Any], quantities: Quantities) -> PriceLine:
        factor = _ONE
        for name, factors in self.factors.items():
            own = factors.get(parameters.get(name), _ONE)
            # A product of fractions takes longer than all the rest.
            factor = own if factor is _ONE else factor * own
        return PriceLine(
            line=self.line,
            unit=self.unit,
            unit_tokens=self.tokens,
            factor=factor,
            quantity=quantities.of(self.unit, self.after),
            after=self.after,
        )


def price(rules: Iterable[PriceRule], parameters: Mapping[str, Any], quantities: Quantities) -> Sequence[PriceLine]:
    """The lines that count, in the order of the rules, without those that come to nothing."""
    lines = [rule.line_for(parameters, quantities) for rule in rules if rule.counts_for(parameters)]
    return [line for line in lines if line.quantity]


def total_tokens(lines: Iterable[PriceLine]) -> int:
    return sum(line.tokens for line in lines)


def delivered(lines: Iterable[PriceLine], quantities: Quantities) -> Sequence[PriceLine]:
    """What is charged of the lines in the end. Nothing, if nothing came."""
    return [line.delivered(quantities) for line in lines]


def refunded(lines: Iterable[PriceLine], quantities: Quantities) -> Mapping[str, int]:
    """The tokens that go back, by line; lines that were charged whole are left out."""
    back = {line.line: line.tokens - line.delivered(quantities).tokens for line in lines}
    return {name: tokens for name, tokens in back.items() if tokens}
