"""Models, prices and margins as an operator reads them."""

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from app.domain.margins import Margin, worst_margin
from app.domain.models import Constraint, CostRule, Model
from app.domain.offered_prices import usd_text
from app.domain.parameters import Parameter
from app.domain.pricing import PriceRule


def lines_of(model: Model) -> Iterator[str]:
    """Everything of one model."""
    first, last = model.typical_seconds
    yield f"{model.id}{' (default)' if model.is_default else ''}"
    yield f"  {model.title}, {model.kind}, {model.family}"
    yield f"  {model.description['en']}"
    yield f"  takes {first} to {last} s"
    yield "parameters"
    for parameter in model.parameters.values():
        yield f"  {parameter.name}: {_parameter(parameter)}"
    for name, value in model.fixed.items():
        yield f"  always sent: {name} = {_value(value)}"
    if model.constraints:
        yield "constraints"
        for constraint in model.constraints:
            yield f"  {_constraint(constraint)}"
    yield f"price, {model.from_tokens} to {model.to_tokens} tokens"
    for rule in model.prices:
        yield f"  {rule.line}: {rule.tokens} tokens per {_rule(rule)}"
    yield "fal's price"
    for cost in model.costs:
        yield f"  {_cost(cost)}"
    yield f"margin\n  {_margin(worst_margin(model))}"
    yield f"sources, checked {model.checked}"
    for source in model.sources:
        yield f"  {source}"


def margin_line(margin: Margin, token_usd: Fraction) -> str:
    paid = usd_text(margin.tokens * token_usd)
    most = " at most" if margin.is_upper_bound else ""
    return (
        f"sold below cost: {margin.model.id}, {_settings(margin.parameters)}: {margin.tokens} tokens are {paid}, "
        f"fal charges {usd_text(margin.cost_usd)}{most}; a token must be worth {usd_text(margin.break_even_usd)}"
    )


def _margin(margin: Margin) -> str:
    most = " at most" if margin.is_upper_bound else ""
    return (
        f"the worst is {_settings(margin.parameters)}: {margin.tokens} tokens, fal charges "
        f"{usd_text(margin.cost_usd)}{most}; pays from {usd_text(margin.break_even_usd)} a token on"
    )


def _parameter(parameter: Parameter) -> str:
    told = [parameter.type.value, *_range(parameter)]
    if parameter.is_required:
        told.append("required")
    if parameter.default is not None:
        told.append(f"default {_value(parameter.default)}")
    if parameter.assumed is not None:
        told.append(f"fal's default {_value(parameter.assumed)}")
    if parameter.fal.name != parameter.name:
        told.append(f"at fal {parameter.fal.name}")
    return ", ".join(told)


def _range(parameter: Parameter) -> Iterator[str]:
    if parameter.presets:
        yield " | ".join(parameter.presets)
    elif parameter.values:
        yield " | ".join(map(_value, parameter.values))
    limits = parameter.size_limits
    if limits is not None:
        yield f"or sides of {limits.side_min} to {limits.side_max} pixels"
        if limits.pixels_max is not None or limits.pixels_min > 1:
            yield f"{limits.smallest_pixels} to {limits.largest_pixels} pixels in all"
        if limits.ratio_max is not None:
            yield f"at most {limits.ratio_max}:1"
    if parameter.minimum is not None or parameter.maximum is not None:
        yield f"{parameter.minimum} to {parameter.maximum}"
    if parameter.length_max is not None:
        yield f"{parameter.length_min} to {parameter.length_max} characters"
    if parameter.count_max is not None:
        yield f"{parameter.count_min} to {parameter.count_max} of them"


def _rule(rule: PriceRule) -> str:
    told = [rule.unit.value]
    if rule.after:
        told.append(f"after the first {rule.after}")
    told += [f"when {name} is {_values(values)}" for name, values in rule.when.items()]
    told += [
        f"times {', '.join(f'{factor} for {_value(value)}' for value, factor in factors.items())} of {name}"
        for name, factors in rule.factors.items()
    ]
    return ", ".join(told)


def _cost(cost: CostRule) -> str:
    return f"{cost.rule.line}: {usd_text(cost.usd)}{' at most' if cost.is_upper_bound else ''} per {_rule(cost.rule)}"


def _constraint(constraint: Constraint) -> str:
    when = " and ".join(f"{name} is {_values(values)}" for name, values in constraint.when.items())
    then = [f"{name} must be {_values(values)}" for name, values in constraint.require.items()]
    then += [f"{name} must be left out" for name in sorted(constraint.forbid)]
    return f"when {when}: {', '.join(then)}"


def _settings(parameters: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{name} {_value(value)}" for name, value in parameters.items() if value is not None) or "any request"
    )


def _values(values: frozenset[Any]) -> str:
    return " or ".join(sorted(map(_value, values)))


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
