"""What is sold: each model with its parameters, prices and the shape of its result. All of it is data."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any

from app.domain.errors import CombinationNotAllowed
from app.domain.kinds import GenerationKind
from app.domain.parameter_values import values_to_try
from app.domain.parameters import FalField, Parameter, ParameterType, Words
from app.domain.pricing import PriceLine, PriceRule, Quantities, Unit, megapixels_of, price, total_tokens
from app.domain.terms import ResultShape, Terms

# The names that say how much of something is asked for, the same for every model.
COUNT, SECONDS, SIZE = "num_images", "duration", "image_size"
SEED = "seed"
SAFETY_CHECKER = "enable_safety_checker"
KNOWN_MAX = 10_000
SEED_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A combination that is known to fail at fal."""

    when: Mapping[str, frozenset[Any]]
    message: Words
    require: Mapping[str, frozenset[Any]] = field(default_factory=dict)
    forbid: frozenset[str] = frozenset()

    @property
    def parameter(self) -> str:
        """The one to change first."""
        return next(iter([*self.require, *sorted(self.forbid), *self.when]))

    def is_violated_by(self, parameters: Mapping[str, Any]) -> bool:
        if not all(_is_among(parameters.get(name), values) for name, values in self.when.items()):
            return False
        return any(parameters.get(name) is not None for name in self.forbid) or not all(
            _is_among(parameters.get(name), values) for name, values in self.require.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRule:
    """A line of what fal charges us."""

    rule: PriceRule
    usd: Fraction
    is_upper_bound: bool = False

    def usd_for(self, parameters: Mapping[str, Any], quantities: Quantities) -> Fraction:
        if not self.rule.counts_for(parameters):
            return Fraction(0)
        line = self.rule.line_for(parameters, quantities)
        return self.usd * line.factor * line.quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPrice:
    """The one price that fal names of a model, for a unit in fal's own word. What is charged is a multiple of it."""

    usd: Fraction
    unit: str


@dataclass(frozen=True, kw_only=True)
class Model:
    id: str
    """fal's endpoint id: the one name everywhere."""
    kind: GenerationKind
    family: str
    title: str
    description: Words
    parameters: Mapping[str, Parameter]
    """In the order of a form."""
    prices: Sequence[PriceRule]
    costs: Sequence[CostRule]
    shape: ResultShape
    sources: Sequence[str]
    checked: date
    typical_seconds: tuple[int, int]
    is_bounded_as_video: bool
    """Which of the two time limits holds."""
    example: Mapping[str, Any]
    is_default: bool = False
    is_size_told: bool = False
    """Whether width and height of each output may be in the result."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Sent with every request, in fal's spelling."""
    safety_switch: str | None = None
    """fal's field that turns its safety checker on, of a model that takes no SAFETY_CHECKER."""
    constraints: Sequence[Constraint] = ()
    listed_price: ListedPrice | None = None
    """Where it is none of the lines in `costs`."""
    outputs_per_image_max: int = 1
    price_names: Mapping[str, str] = field(default_factory=dict)
    """The name in TOKEN_PRICES_JSON of a line that can be overridden there."""

    def completed(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was given, with everything filled in that the price and fal shall see."""
        return {**self._filled_in, **_told(given)}

    def check_combination(self, parameters: Mapping[str, Any]) -> None:
        """Of completed parameters. Raises CombinationNotAllowed."""
        constraint = self.violated(parameters)
        if constraint is not None:
            raise CombinationNotAllowed(constraint.parameter, constraint.message["en"])

    def violated(self, parameters: Mapping[str, Any]) -> Constraint | None:
        """The first constraint that completed parameters break."""
        return next((constraint for constraint in self.constraints if constraint.is_violated_by(parameters)), None)

    def fal_input(self, parameters: Mapping[str, Any], *, is_checked: bool = False) -> Mapping[str, Any]:
        """Completed parameters as fal spells them. `is_checked`: with the safety checker on, if there is a switch."""
        if is_checked and SAFETY_CHECKER in self.parameters:
            parameters = {**parameters, SAFETY_CHECKER: True}
        body = {}
        for name, value in parameters.items():
            fal = self.parameters[name].fal
            body[fal.name] = fal.of(value)
        switch = {self.safety_switch: True} if is_checked and self.safety_switch is not None else {}
        return {**body, **self.fixed, **switch}

    @property
    def has_safety_switch(self) -> bool:
        return self.safety_switch is not None or SAFETY_CHECKER in self.parameters

    def price_lines(self, parameters: Mapping[str, Any]) -> tuple[PriceLine, ...]:
        """Of completed parameters."""
        key = (*self._amounts(parameters), *[parameters.get(name) for name in self._condition_names])
        if (lines := self._known_lines.get(key)) is None:
            lines = tuple(price(self.prices, parameters, self.quantities(parameters)))
            if len(self._known_lines) < KNOWN_MAX:
                self._known_lines[key] = lines
        return lines

    def terms(self, parameters: Mapping[str, Any]) -> Terms:
        """On which a job with these completed parameters is accepted."""
        amounts = outputs, megapixels, seconds = self._amounts(parameters)
        takes_seed = self.takes_seed_with(parameters)
        key = (*amounts, takes_seed, *[parameters.get(name) for name in self._condition_names])
        if (terms := self._known_terms.get(key)) is None:
            terms = Terms(
                lines=self.price_lines(parameters),
                shape=self.shape,
                outputs_max=outputs,
                megapixels=megapixels,
                seconds=seconds,
                takes_seed=takes_seed,
            )
            if len(self._known_terms) < KNOWN_MAX:
                self._known_terms[key] = terms
        return terms

    def takes_seed_with(self, parameters: Mapping[str, Any]) -> bool:
        """Whether a seed may be added to completed parameters: some models make all images the same with one."""
        return self._takes_seed and (not self.constraints or self.violated({**parameters, SEED: SEED_MAX}) is None)

    @cached_property
    def _takes_seed(self) -> bool:
        """Whether any seed of 31 bits can be sent under fal's usual name."""
        seed = self.parameters.get(SEED)
        return seed is not None and seed.fal == FalField(name=SEED) and (seed.maximum or 0) >= SEED_MAX

    def quantities(self, parameters: Mapping[str, Any]) -> Quantities:
        """What is asked for at most. Megapixels and seconds are 0 where nothing is charged by them."""
        outputs, megapixels, seconds = self._amounts(parameters)
        return Quantities(megapixels=[megapixels] * outputs, seconds=seconds)

    @cached_property
    def expected_seconds(self) -> int:
        """How long a run takes on an average: what it counts for in the turns of its account."""
        return max(1, math.ceil(sum(self.typical_seconds) / 2))

    @cached_property
    def from_tokens(self) -> int:
        """The cheapest request that the model takes."""
        return min(map(self.tokens, self.combinations()))

    @cached_property
    def to_tokens(self) -> int:
        """The dearest request that the model takes."""
        return max(map(self.tokens, self.combinations()))

    def tokens(self, parameters: Mapping[str, Any]) -> int:
        return total_tokens(self.price_lines(parameters))

    def combinations(self) -> Iterator[Mapping[str, Any]]:
        """Everything that a price depends on, in each way that the model takes; of long ranges where it may turn."""
        axes = {
            name: values_to_try(self.parameters[name], self._constrained_values(name), self._turns(name))
            for name in self.priced_names
        }
        for values in product(*axes.values()):
            parameters = dict(zip(axes, values, strict=True))
            if self.violated(parameters) is None:
                yield parameters

    def _constrained_values(self, name: str) -> frozenset[Any]:
        named = (each.get(name, frozenset()) for it in self.constraints for each in (it.when, it.require))
        return frozenset().union(*named)

    def _turns(self, name: str) -> frozenset[int]:
        """The values of the parameter around which a line begins to count."""
        rules = [*self.prices, *(cost.rule for cost in self.costs)]
        counted = (rule for rule in rules if rule.after and _TURNED_BY.get(rule.unit) == name)
        return frozenset(rule.after // (self.outputs_per_image_max if name == COUNT else 1) for rule in counted)

    @cached_property
    def priced_names(self) -> Sequence[str]:
        """The parameters that a price depends on, and those that constraints tie to each other."""
        rules = [*self.prices, *(cost.rule for cost in self.costs)]
        named = {name for rule in rules for name in (*rule.when, *rule.factors)}
        named |= {name for constraint in self.constraints for name in (*constraint.when, *constraint.require)}
        named |= {name for unit, name in _COUNTED_BY.items() if any(rule.unit is unit for rule in rules)}
        return [name for name in self.parameters if name in named | {COUNT}]

    @cached_property
    def quoted_names(self) -> Sequence[str]:
        """The parameters that our price follows from, and no others: what a quote is bound to."""
        named = {name for rule in self.prices for name in (*rule.when, *rule.factors)}
        named |= {name for rule in self.prices for name in _MULTIPLIED_BY[rule.unit]}
        return [name for name in self.parameters if name in named]

    @cached_property
    def unquoted_names(self) -> Sequence[str]:
        """The other parameters from which a price may come to follow: prices never follow from texts and media."""
        others = [it for it in self.parameters.values() if it.name not in self.quoted_names]
        return [it.name for it in others if it.type not in _NEVER_PRICED]

    def _amounts(self, parameters: Mapping[str, Any]) -> tuple[int, int, int]:
        """Outputs, and megapixels and seconds of each."""
        return (
            parameters.get(COUNT, 1) * self.outputs_per_image_max,
            self._megapixels_of(parameters[SIZE]) if self._is_priced_by_size else 0,
            parameters[SECONDS] if self._is_priced_by_length else 0,
        )

    @cached_property
    def _known_lines(self) -> dict[Hashable, tuple[PriceLine, ...]]:
        return {}

    @cached_property
    def _known_terms(self) -> dict[Hashable, Terms]:
        """They are asked for at each accept, and there are few: they are worked out once each."""
        return {}

    @cached_property
    def _condition_names(self) -> Sequence[str]:
        return sorted({name for rule in self.prices for name in (*rule.when, *rule.factors)})

    @cached_property
    def _filled_in(self) -> Mapping[str, Any]:
        return {name: it.filled_in for name, it in self.parameters.items() if it.filled_in is not None}

    @cached_property
    def _is_priced_by_size(self) -> bool:
        return self._has_unit(Unit.MEGAPIXEL)

    @cached_property
    def _is_priced_by_length(self) -> bool:
        return self._has_unit(Unit.SECOND)

    def _has_unit(self, unit: Unit) -> bool:
        return any(rule.unit is unit for rule in (*self.prices, *(cost.rule for cost in self.costs)))

    @cached_property
    def _megapixels_by_preset(self) -> Mapping[str, int]:
        return {name: megapixels_of(*size) for name, size in self.parameters[SIZE].presets.items()}

    def _megapixels_of(self, size: Any) -> int:
        return self._megapixels_by_preset[size] if isinstance(size, str) else megapixels_of(**size)


_COUNTED_BY = {Unit.MEGAPIXEL: SIZE, Unit.SECOND: SECONDS}
_TURNED_BY = {Unit.IMAGE: COUNT, **_COUNTED_BY}
# What the amount of each is made of.
_MULTIPLIED_BY: Mapping[Unit, Sequence[str]] = {
    Unit.IMAGE: [COUNT],
    Unit.MEGAPIXEL: [COUNT, SIZE],
    Unit.SECOND: [COUNT, SECONDS],
    Unit.RUN: [],
}

_NEVER_PRICED = (ParameterType.TEXT, ParameterType.IMAGE, ParameterType.IMAGES, ParameterType.AUDIO)


def _told(given: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _is_among(value: Any, values: frozenset[Any]) -> bool:
    """A size in numbers is in no enumeration. False is no 0: TOML and JSON tell them apart, Python does not."""
    return not isinstance(value, dict | list) and any(value == each and type(value) is type(each) for each in values)
