"""Proves that each request has exactly one price: all combinations of what prices depend on are gone through."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

from app.domain.models import COUNT, SECONDS, SIZE, Model
from app.domain.parameter_values import problem_of
from app.domain.parameters import Parameter, ParameterType
from app.domain.pricing import PRICE_TOKENS_MAX, Unit
from app.infrastructure.catalogue.files import Spot, closest
from app.infrastructure.catalogue.parameter_forms import key_text
from app.infrastructure.catalogue.tables import CostTable, PriceTable

COMBINATIONS_MAX = 50_000
# A quote carries each line that counts.
GROUPS_MAX = 8

_Line = PriceTable | CostTable
_COUNTED: Mapping[Unit, tuple[str, ParameterType]] = {
    Unit.SECOND: (SECONDS, ParameterType.INTEGER),
    Unit.MEGAPIXEL: (SIZE, ParameterType.SIZE),
}


def told(parameters: Mapping[str, Any]) -> str:
    """A combination as it is shown to a person."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in parameters.items()) or "any request"


def _shown(value: Any) -> str:
    if value is None:
        return "left out"
    return f"{value['width']} x {value['height']}" if isinstance(value, Mapping) else key_text(value)


def check_lines(lines: Sequence[_Line], parameters: Mapping[str, Parameter], spot: Spot) -> None:
    known = len(spot.problems)
    names = [line.line for line in lines]
    for index, line in enumerate(lines):
        if line.line in names[:index]:
            spot.say(f"there is a line `{line.line}` already: give it a name of its own.", index)
        _check_unit(line, parameters, spot.inside(index))
        _check_conditions(line, parameters, spot.inside(index))
    if len(spot.problems) > known:
        return
    groups: dict[str, list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(line.group or line.line, []).append(index)
    if len(groups) > GROUPS_MAX:
        spot.say(
            f"more than {GROUPS_MAX} lines could count together, which no quote has room for: put some into one group."
        )
    for group, indexes in groups.items():
        _check_group(group, {index: lines[index] for index in indexes}, parameters, spot)
    if all(line.is_optional for line in lines):
        spot.say("every line is optional, so that a request could cost nothing: make one group not optional.")


def _check_unit(line: _Line, parameters: Mapping[str, Parameter], spot: Spot) -> None:
    if line.per is Unit.RUN and line.after:
        spot.say("a run is one unit, so that nothing comes after the first: take `after` away.", "after")
    name, kind = _COUNTED.get(line.per, (COUNT, ParameterType.INTEGER))
    counted = parameters.get(name)
    if counted is None:
        if line.per in _COUNTED:
            spot.say(f"a price per {line.per} needs the parameter `{name}`: add it, or price by another unit.", "per")
        return
    if counted.type is not kind or any(least < 0 for least in _least_of(counted)):
        spot.say(f"`{name}` is counted, so that it must be of the type {kind} and never below 0.", "per")
    elif not counted.is_always_there:
        spot.say(
            f"`{name}` is counted, so that it must be there: make it required, or give it `default` or `assumed`.",
            "per",
        )


def _least_of(parameter: Parameter) -> Sequence[int | float]:
    if parameter.values:
        return [value for value in parameter.values if isinstance(value, int)]
    return [] if parameter.minimum is None else [parameter.minimum]


def _check_conditions(line: _Line, parameters: Mapping[str, Parameter], spot: Spot) -> None:
    for key, named in (("when", line.when), ("factors", line.factors)):
        for name, values in named.items():
            parameter = parameters.get(name)
            if parameter is None:
                spot.say(f"the model has no parameter `{name}`: {closest(name, list(parameters))}", key, name)
            elif parameter.choices is None or parameter.type is ParameterType.SIZE:
                spot.say(f"`{name}` has not a few fixed values, and a price may depend on those alone.", key, name)
            elif not parameter.is_always_there and (key == "factors" or not line.is_optional):
                spot.say(f"`{name}` may be left out: give it `default` or `assumed`, so that its price is known.", key)
            else:
                _check_named_values(key, parameter, values, spot)


def _check_named_values(key: str, parameter: Parameter, values: Any, spot: Spot) -> None:
    choices = list(parameter.choices or ())
    by_text = {key_text(value): value for value in choices}
    for value in values:
        is_there = value in by_text if key == "factors" else problem_of(parameter, value) is None
        if not is_there:
            spot.say(
                f"`{key}` names {key_text(value)}, which `{parameter.name}` cannot be: there are {', '.join(by_text)}.",
                key,
                parameter.name,
            )


def _check_group(group: str, lines: Mapping[int, _Line], parameters: Mapping[str, Parameter], spot: Spot) -> None:
    first = next(iter(lines))
    if len({line.is_optional for line in lines.values()}) > 1:
        spot.say(f"the lines of the group `{group}` must all be optional, or none of them.", first)
        return
    names = sorted({name for line in lines.values() for name in line.when})
    choices = [_choices(parameters[name]) for name in names]
    if math.prod(map(len, choices)) > COMBINATIONS_MAX:
        spot.say(f"the group `{group}` has more than {COMBINATIONS_MAX} combinations: condition it on less.", first)
        return
    for values in product(*choices):
        combination = dict(zip(names, values, strict=True))
        hits = [index for index, line in lines.items() if _counts(line, combination)]
        if len(hits) > 1:
            doubled = " and ".join(f"`{lines[index].line}`" for index in hits)
            spot.say(
                f"{told(combination)} is priced twice in the group `{group}`, by {doubled}: "
                "change a `when`, or give one of them another group.",
                hits[1],
            )
            return
        if not hits and not lines[first].is_optional:
            spot.say(f"{told(combination)} has no price in the group `{group}`: add a line, or widen a `when`.", first)
            return


def _choices(parameter: Parameter) -> Sequence[Any]:
    choices = parameter.choices or ()
    return choices if parameter.is_always_there else (None, *choices)


def _counts(line: _Line, combination: Mapping[str, Any]) -> bool:
    return all(combination[name] in values for name, values in line.when.items())


def check_total(model: Model, spot: Spot) -> None:
    """Each combination costs something, and no more than can be written down."""
    combinations = list(islice(model.combinations(), COMBINATIONS_MAX + 1))
    if len(combinations) > COMBINATIONS_MAX:
        spot.say(f"its prices depend on more than {COMBINATIONS_MAX} combinations: condition them on less.", "price")
        return
    if not combinations:
        spot.say("its constraints leave no combination that could be asked for: loosen one.", "constraints")
    for combination in combinations:
        tokens = model.tokens(combination)
        if not 1 <= tokens <= PRICE_TOKENS_MAX:
            problem = "costs nothing" if tokens < 1 else f"costs more than {PRICE_TOKENS_MAX} tokens"
            spot.say(f"{told(combination)} {problem}: correct the lines.", "price")
            return
        if model.terms(combination).least_tokens < 1:
            spot.say(
                f"{told(combination)} costs nothing if one output comes, of the smallest size: "
                "add a line that counts from the first unit on.",
                "price",
            )
            return
