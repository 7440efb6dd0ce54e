"""What is sold for less than fal charges, at a given value of a token. No price depends on it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from app.domain.models import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """Of one combination of what a model's price depends on."""

    model: Model
    parameters: Mapping[str, Any]
    tokens: int
    cost_usd: Fraction
    is_upper_bound: bool
    """fal may charge less."""

    @property
    def break_even_usd(self) -> Fraction:
        """What a token must be worth for the sale to pay its cost."""
        return self.cost_usd / self.tokens


def cost_usd(model: Model, parameters: Mapping[str, Any]) -> Fraction:
    """What fal charges for completed parameters, at most."""
    quantities = model.quantities(parameters)
    return sum((cost.usd_for(parameters, quantities) for cost in model.costs), Fraction(0))


def worst_margin(model: Model) -> Margin:
    """The combination whose tokens must be worth most. In the middle of a long range the rounding of lines, less than a
    token each, may make another one a little worse.
    """
    return max((_margin(model, parameters) for parameters in model.combinations()), key=lambda it: it.break_even_usd)


def sold_below(models: Iterable[Model], token_usd: Fraction) -> Sequence[Margin]:
    """The worst combination of each model that has one below its cost, the worst model first."""
    worst = [margin for margin in map(worst_margin, models) if margin.break_even_usd > token_usd]
    return sorted(worst, key=lambda margin: margin.break_even_usd, reverse=True)


def _margin(model: Model, parameters: Mapping[str, Any]) -> Margin:
    return Margin(
        model=model,
        parameters=parameters,
        tokens=model.tokens(parameters),
        cost_usd=cost_usd(model, parameters),
        is_upper_bound=any(cost.is_upper_bound and cost.rule.counts_for(parameters) for cost in model.costs),
    )
