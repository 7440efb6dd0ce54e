"""Models, prices and margins as an operator reads them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from app.domain.catalogue import Catalogue
from app.domain.kinds import GenerationKind
from app.domain.margins import Margin, worst_margin
from app.domain.models import SAFETY_CHECKER, SEED, Constraint, CostRule, Model
from app.domain.offered_prices import usd_text
from app.domain.parameters import Parameter
from app.domain.pricing import PriceRule

_COLUMNS = ("model", "parameters", "price lines, tokens", "a request", "fal's price", "sources")
# More of them are counted in a table, and not named.
_VALUES_NAMED_MAX = 4


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
    if model.has_safety_switch:
        yield f"  with SAFETY_CHECKER=on: {model.safety_switch or SAFETY_CHECKER} = true"
    for name, value in model.fixed.items():
        yield f"  always sent: {name} = {_value(value)}"
    if model.constraints:
        yield "constraints"
        for constraint in model.constraints:
            yield f"  {_constraint(constraint)}"
    yield f"price, {model.from_tokens} to {model.to_tokens} tokens"
    for rule in model.prices:
        yield f"  {rule.line}: {_tokens(rule.tokens)} per {_rule(rule)}"
    yield "fal's price"
    for cost in model.costs:
        yield f"  {_cost(cost)}"
    yield f"margin\n  {_margin(worst_margin(model))}"
    yield f"sources, checked {model.checked}"
    for source in model.sources:
        yield f"  {source}"


def table_of(catalogue: Catalogue) -> Iterator[str]:
    """All models in Markdown, by type, and after them the sources that their numbers stand for."""
    named = {source: None for model in catalogue for source in _sources(model)}
    numbers = {source: number for number, source in enumerate(named, 1)}
    for kind in GenerationKind:
        models = catalogue.of_kind(kind)
        yield f"### {kind.value.replace('_', ' ').capitalize()}: {len(models)}\n"
        yield _cells(_COLUMNS)
        yield _cells(["---"] * len(_COLUMNS))
        for model in models:
            yield _cells(_table_row(model, numbers))
        yield ""
    yield "### Sources, by their numbers\n"
    for source, number in numbers.items():
        yield f"{number}. {source}"


def _tokens(count: int) -> str:
    return f"{count} token" if count == 1 else f"{count} tokens"


def _sources(model: Model) -> list[str]:
    """Beside fal's page of the model, which each has."""
    return [source for source in model.sources if source != f"https://fal.ai/models/{model.id}"]


def _cells(texts: Iterable[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def _table_row(model: Model, numbers: Mapping[str, int]) -> Iterator[str]:
    yield f"{model.title}{', the default' if model.is_default else ''}<br>`{model.id}`"
    yield ", ".join(map(_short, model.parameters.values()))
    yield "<br>".join(f"`{rule.line}` {rule.tokens} per {_rule(rule)}" for rule in model.prices)
    yield f"{model.from_tokens} to {model.to_tokens}"
    yield "<br>".join(map(_cost, model.costs))
    yield f"{model.checked}: {' '.join(str(numbers[source]) for source in _sources(model))}"


def _short(parameter: Parameter) -> str:
    return " ".join([f"`{parameter.name}`{'*' if parameter.is_required else ''}", *_short_range(parameter)])


def _short_range(parameter: Parameter) -> Iterator[str]:
    choices = [_value(value) for value in parameter.presets or parameter.values]
    if len(choices) > _VALUES_NAMED_MAX:
        yield f"({len(choices)} {'presets' if parameter.presets else f'values, {choices[0]} to {choices[-1]}'})"
    elif choices:
        yield f"({' '.join(choices)})"
    if parameter.size_limits is not None:
        yield f"or {parameter.size_limits.side_min} to {parameter.size_limits.side_max} pixels a side"
    if parameter.minimum is not None and parameter.name != SEED:
        yield f"{parameter.minimum} to {parameter.maximum}"
    if parameter.length_max is not None:
        yield f"up to {parameter.length_max}"
    if parameter.count_max is not None:
        yield f"{parameter.count_min} to {parameter.count_max}"


def margin_line(margin: Margin, token_usd: Fraction) -> str:
    paid = usd_text(margin.tokens * token_usd)
    most = " at most" if margin.is_upper_bound else ""
    return (
        f"sold below cost: {margin.model.id}, {_settings(margin.parameters)}: {_tokens(margin.tokens)} for {paid}, "
        f"fal charges {usd_text(margin.cost_usd)}{most}; a token must be worth {usd_text(margin.break_even_usd)}"
    )


def _margin(margin: Margin) -> str:
    most = " at most" if margin.is_upper_bound else ""
    return (
        f"the worst is {_settings(margin.parameters)}: {_tokens(margin.tokens)}, fal charges "
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
    if parameter.media is not None:
        yield parameter.media.sentence_in("en").removesuffix(".")
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
