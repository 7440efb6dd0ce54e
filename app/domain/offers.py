"""What fal offers today, and how it differs from what we sell. What is wrong for us is told from what is only new."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from app.domain.catalogue import Catalogue
from app.domain.kinds import GenerationKind
from app.domain.models import Model
from app.domain.offered_prices import OfferedPrice, price_differences
from app.domain.parameter_values import RANGE_VALUES_MAX
from app.domain.parameters import Parameter, ParameterType

TEXT_LENGTH_MAX = 200
_JSON_TYPES = {
    ParameterType.INTEGER: "integer",
    ParameterType.NUMBER: "number",
    ParameterType.BOOLEAN: "boolean",
    ParameterType.IMAGES: "array",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedParameter:
    """One field of an endpoint's input, in JSON's terms."""

    types: frozenset[str]
    values: Sequence[Any] | None = None
    """None: fal does not enumerate them."""
    minimum: int | float | None = None
    maximum: int | float | None = None
    length_min: int | None = None
    length_max: int | None = None
    count_min: int | None = None
    count_max: int | None = None
    default: Any = None
    is_required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An endpoint of fal."""

    is_withdrawn: bool = False
    kind: GenerationKind | None = None
    parameters: Mapping[str, OfferedParameter] | None = field(default=None)
    """None: fal did not tell them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    model_id: str
    text: str
    is_wrong: bool
    """fal refuses or charges more than we think; else fal merely offers more."""


def differences(
    model: Model, offer: Offer | None, price: OfferedPrice | None, token_usd: Fraction | None
) -> Iterator[Difference]:
    """Between a model and what fal says of it. `offer` is None where fal did not mention it."""
    if offer is None or offer.is_withdrawn:
        yield Difference(model_id=model.id, text="fal has withdrawn it: remove it from the catalogue", is_wrong=True)
        return
    if offer.kind is not None and offer.kind is not model.kind:
        yield Difference(model_id=model.id, text=f"fal lists it as {offer.kind}, and we as {model.kind}", is_wrong=True)
    if offer.parameters is None:
        yield Difference(model_id=model.id, text="fal does not tell its parameters: look at its page", is_wrong=False)
    else:
        for text, is_wrong in _input_differences(model, offer.parameters):
            yield Difference(model_id=model.id, text=text, is_wrong=is_wrong)
    for text, is_wrong in price_differences(model, price, token_usd):
        yield Difference(model_id=model.id, text=text, is_wrong=is_wrong)


def new_models(catalogue: Catalogue, listed: Mapping[str, GenerationKind]) -> Iterator[Difference]:
    """What fal lists in our four types and we do not sell."""
    for model_id, kind in sorted(listed.items()):
        if catalogue.get(model_id) is None:
            yield Difference(
                model_id=model_id, text=f"fal has this model of {kind}, and we do not sell it", is_wrong=False
            )


def _input_differences(model: Model, offered: Mapping[str, OfferedParameter]) -> Iterator[tuple[str, bool]]:
    ours = {parameter.fal.name: parameter for parameter in model.parameters.values()}
    for name, parameter in ours.items():
        if name not in offered:
            yield f"{name}: fal has no such field any more", True
            continue
        for text, is_wrong in _field_differences(parameter, offered[name]):
            yield f"{name}: {text}", is_wrong
    for name, value, when in _sent_besides(model):
        if name not in offered:
            yield f"{name}: fal has no such field any more, and we {when} send it", True
        elif not _takes(offered[name], value):
            yield f"{name}: fal does not take {_shown(value)}, which we {when} send", True
    known = {*ours, *(name for name, *_ in _sent_besides(model))}
    others = {name: each for name, each in offered.items() if name not in known}
    for name, other in others.items():
        if other.is_required:
            yield f"{_shown(name)}: fal requires this field, and we do not send it", True
    optional = [_shown(name) for name, other in others.items() if not other.is_required]
    if optional:
        yield f"fal also has {', '.join(optional)}", False


def _sent_besides(model: Model) -> Iterator[tuple[str, Any, str]]:
    """What is sent that is no parameter: the field, its value, and when."""
    for name, value in model.fixed.items():
        yield name, value, "always"
    if model.safety_switch is not None:
        yield model.safety_switch, True, "with SAFETY_CHECKER=on"


def _field_differences(ours: Parameter, fal: OfferedParameter) -> Iterator[tuple[str, bool]]:
    sent = _sent_values(ours)
    refused = _refused_type(ours, fal) if sent is None else None
    if refused is not None:
        yield f"fal wants {' or '.join(sorted(fal.types))}, and we send {refused}", True
    if sent is not None:
        for value in sent:
            if not _takes(fal, value):
                yield f"fal does not take {_shown(value)}", True
    if fal.values is not None:
        known = {_key(value) for value in sent or ()}
        more = [value for value in fal.values if _key(value) not in known]
        if more:
            yield f"fal also takes {', '.join(map(_shown, more))}", False
    if ours.size_limits is not None and "object" not in fal.types:
        yield "fal takes no width and height any more", True
    yield from _bound_differences(ours, fal, sent)
    if fal.is_required and not ours.is_always_there:
        yield "fal requires it, and we let it be left out", True
    elif ours.is_required and not fal.is_required:
        yield "fal does not require it, and we do", False
    yield from _default_differences(ours, fal)


def _bound_differences(
    ours: Parameter, fal: OfferedParameter, sent: Sequence[Any] | None
) -> Iterator[tuple[str, bool]]:
    bounds = [
        ("characters", ours.length_min, ours.length_max, fal.length_min, fal.length_max),
        ("items", ours.count_min, ours.count_max, fal.count_min, fal.count_max),
    ]
    if ours.minimum is not None or ours.maximum is not None:
        bounds.append(("value", ours.minimum, ours.maximum, fal.minimum, fal.maximum))  # type: ignore[arg-type]
    for what, low, high, fal_low, fal_high in bounds:
        if high is None:
            continue
        # Values that are gone through one by one are told of one by one.
        is_told = what == "value" and sent is not None
        if fal_low is not None and fal_low != low and not (is_told and fal_low > low):
            yield f"fal's least {what} is {fal_low}, and ours {low}", fal_low > low
        if fal_high is not None and fal_high != high and not (is_told and fal_high < high):
            yield f"fal's most {what} is {fal_high}, and ours {high}", fal_high < high


def _default_differences(ours: Parameter, fal: OfferedParameter) -> Iterator[tuple[str, bool]]:
    """What we assume is sent with every request, so that a change at fal changes nothing for our users."""
    if ours.assumed is None or fal.default is None:
        return
    assumed = _unwrapped(ours, ours.assumed)
    if _key(assumed) != _key(fal.default):
        yield f"fal's default is {_shown(fal.default)}, and we assume {_shown(assumed)}", False


def _sent_values(ours: Parameter) -> Sequence[Any] | None:
    """What fal is sent, where that can be enumerated."""
    if ours.type is ParameterType.SIZE:
        values: Iterable[Any] = ours.presets
    elif ours.choices is not None:
        values = ours.choices
    elif _is_short_range(ours):
        assert ours.minimum is not None
        assert ours.maximum is not None
        values = range(int(ours.minimum), int(ours.maximum) + 1)
    else:
        return None
    return [_unwrapped(ours, value) for value in values]


def _is_short_range(ours: Parameter) -> bool:
    if ours.type is not ParameterType.INTEGER or ours.minimum is None or ours.maximum is None:
        return False
    return ours.maximum - ours.minimum < RANGE_VALUES_MAX


def _unwrapped(ours: Parameter, value: Any) -> Any:
    sent = ours.fal.of(value)
    return sent[0] if ours.fal.is_list else sent


def _refused_type(ours: Parameter, fal: OfferedParameter) -> str | None:
    sent = "string" if ours.fal.text is not None else _JSON_TYPES.get(ours.type, "string")
    sent = "array" if ours.fal.is_list else sent
    return None if _is_type_taken(sent, fal.types) else sent


def _takes(fal: OfferedParameter, value: Any) -> bool:
    if fal.values is not None and not isinstance(value, dict | list):
        return any(_key(value) == _key(each) for each in fal.values)
    if "array" in fal.types and not isinstance(value, list):
        return True
    if not _is_type_taken(_type_of(value), fal.types):
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (fal.minimum is None or value >= fal.minimum) and (fal.maximum is None or value <= fal.maximum)
    return True


def _is_type_taken(sent: str, types: frozenset[str]) -> bool:
    """Nothing is said of a field whose types fal does not tell."""
    return not types or sent in types or (sent == "integer" and "number" in types)


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _key(value: Any) -> str:
    """JSON knows one kind of number; and True is no 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    """In ASCII and short: it goes to a terminal."""
    text = value if isinstance(value, str) and value.isascii() and value.isprintable() else json.dumps(value)
    return text if len(text) <= TEXT_LENGTH_MAX else f"{text[:TEXT_LENGTH_MAX]}..."
