"""What is sold, as callers see it: each model with its parameters as a JSON Schema that a form can be drawn from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from app.domain.kinds import GenerationKind
from app.domain.media_limits import MediaLimits
from app.domain.models import Constraint, Model
from app.domain.parameters import Parameter, ParameterType
from app.domain.pricing import PriceRule, Unit
from app.presentation.schemas.parameter_words import description_of

Schema = dict[str, Any]


class PriceRuleView(BaseModel):
    line: str
    unit: Unit = Field(description="What is counted.")
    unit_tokens: int = Field(description="For one unit, before the factors.")
    after: int = Field(description="So many units are not counted: of each picture for megapixels, of each film else.")
    when: dict[str, list[Any]] = Field(description="By parameter, the values for which the line counts; empty: always.")
    factors: dict[str, dict[str, str]] = Field(
        description="By parameter and value, an exact fraction that the price of a unit is multiplied by; else 1."
    )


class ModelPrice(BaseModel):
    lines: list[PriceRuleView] = Field(description="Their sum is the cost; each is rounded up once.")
    from_tokens: int = Field(description="The cheapest generation.")
    to_tokens: int = Field(description="The dearest generation.")


class TypicalSeconds(BaseModel):
    from_: int = Field(alias="from")
    to: int


class ModelView(BaseModel):
    model: str = Field(description="The id of the model at fal: the one name everywhere.")
    family: str
    title: str
    description: dict[str, str] = Field(description="By language.")
    type: GenerationKind
    is_default: bool = Field(description="A generation of this type that names no model is made by this one.")
    is_paused: bool = Field(description="Nothing is submitted to it right now: new jobs are accepted, and wait.")
    parameters: dict[str, Any] = Field(
        description="A JSON Schema. `x-group` and the order say how a form shows the fields, `x-label` and "
        "`x-description` what it says of them in each language, `x-media` which of them take a picture or a sound. "
        "`x-limits` says what is taken of a file: `side_min` and `side_max` are pixels of a side, `pixels_min` and "
        "`pixels_max` of width times height, `ratio_max` is the longer side to the shorter one; what is not there has "
        "no bound that is known."
    )
    example: dict[str, Any] = Field(description="A body that works as it is.")
    price: ModelPrice
    typical_seconds: TypicalSeconds = Field(description="How long a run takes as a rule.")


class ModelList(BaseModel):
    items: list[ModelView] = Field(description="By type, the default of each first.")


def model_view(model: Model, *, is_paused: bool) -> ModelView:
    first, last = model.typical_seconds
    named = {} if model.is_default else {"model": model.id}
    return ModelView(
        model=model.id,
        family=model.family,
        title=model.title,
        description=dict(model.description),
        type=model.kind,
        is_default=model.is_default,
        is_paused=is_paused,
        parameters=parameters_schema(model),
        example={**named, **model.example},
        price=ModelPrice(
            lines=[_rule_view(rule) for rule in model.prices],
            from_tokens=model.from_tokens,
            to_tokens=model.to_tokens,
        ),
        typical_seconds=TypicalSeconds(**{"from": first, "to": last}),
    )


def _rule_view(rule: PriceRule) -> PriceRuleView:
    return PriceRuleView(
        line=rule.line,
        unit=rule.unit,
        unit_tokens=rule.tokens,
        after=rule.after,
        when={name: sorted(values) for name, values in rule.when.items()},
        factors={
            name: {_written(value): str(factor) for value, factor in factors.items()}
            for name, factors in rule.factors.items()
        },
    )


def parameters_schema(model: Model) -> Schema:
    schema: Schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "title": model.title,
        "description": model.description["en"],
        "properties": {
            parameter.name: _property(parameter, number) for number, parameter in enumerate(model.parameters.values())
        },
        "required": [parameter.name for parameter in model.parameters.values() if parameter.is_required],
        "additionalProperties": False,
        "examples": [dict(model.example)],
    }
    if model.constraints:
        schema["allOf"] = [_conditional(constraint, model.parameters) for constraint in model.constraints]
    return schema


def _property(parameter: Parameter, number: int) -> Schema:
    about: Schema = {
        **_TYPES[parameter.type](parameter),
        "title": parameter.label["en"],
        "description": description_of(parameter),
        "x-order": number,
        "x-group": parameter.group,
        "x-label": dict(parameter.label),
        "x-description": {language: description_of(parameter, language) for language in parameter.description},
    }
    if parameter.media is not None:
        about["x-media"] = _MEDIA[parameter.type]
        about["x-limits"] = _media_limits(parameter.media)
    if parameter.filled_in is not None:
        about["default"] = parameter.filled_in
    return about


_MEDIA: Mapping[ParameterType, str] = {
    ParameterType.IMAGE: "image",
    ParameterType.IMAGES: "image",
    ParameterType.AUDIO: "audio",
}


def _text(parameter: Parameter) -> Schema:
    return _told(type="string", minLength=parameter.length_min or None, maxLength=parameter.length_max)


def _number(parameter: Parameter) -> Schema:
    kind = "integer" if parameter.type is ParameterType.INTEGER else "number"
    values = list(parameter.values) or None
    return _told(type=kind, enum=values, minimum=parameter.minimum, maximum=parameter.maximum)


def _size(parameter: Parameter) -> Schema:
    preset = {
        "type": "string",
        "enum": list(parameter.presets),
        "x-sizes": {name: {"width": size[0], "height": size[1]} for name, size in parameter.presets.items()},
    }
    limits = parameter.size_limits
    if limits is None:
        return preset
    side = {"type": "integer", "minimum": limits.side_min, "maximum": limits.side_max}
    dimensions = {
        "type": "object",
        "properties": {"width": side, "height": side},
        "required": ["width", "height"],
        "additionalProperties": False,
        "description": limits.sentence,
        "x-limits": _told(pixels_min=limits.pixels_min, pixels_max=limits.pixels_max, ratio_max=limits.ratio_max),
    }
    return {"oneOf": [preset, dimensions]}


def _media_limits(limits: MediaLimits) -> Schema:
    """Of the file, or of each of several."""
    seconds_min, seconds_max = limits.seconds or (None, None)
    return _told(
        content_types=list(limits.content_types),
        size_bytes_max=limits.size_bytes_max,
        side_min=limits.side_min,
        side_max=limits.side_max,
        pixels_min=limits.pixels_min,
        pixels_max=limits.pixels_max,
        ratio_max=limits.ratio_max,
        seconds_min=seconds_min,
        seconds_max=seconds_max,
    )


def _images(parameter: Parameter) -> Schema:
    return _told(type="array", items=_URL, minItems=parameter.count_min, maxItems=parameter.count_max)


def _told(**keywords: Any) -> Schema:
    return {name: value for name, value in keywords.items() if value is not None}


_URL: Schema = {"type": "string", "format": "uri"}
_TYPES: Mapping[ParameterType, Callable[[Parameter], Schema]] = {
    ParameterType.TEXT: _text,
    ParameterType.INTEGER: _number,
    ParameterType.NUMBER: _number,
    ParameterType.BOOLEAN: lambda _: {"type": "boolean"},
    ParameterType.CHOICE: lambda parameter: {"type": "string", "enum": list(parameter.values)},
    ParameterType.SIZE: _size,
    ParameterType.IMAGE: lambda _: _URL,
    ParameterType.AUDIO: lambda _: _URL,
    ParameterType.IMAGES: _images,
}


def _conditional(constraint: Constraint, parameters: Mapping[str, Parameter]) -> Schema:
    """A parameter that is left out counts as what is filled in for it."""
    then = _values(constraint.require, parameters)
    if constraint.forbid:
        then["not"] = {"anyOf": [{"required": [name]} for name in sorted(constraint.forbid)]}
    return {
        "if": _values(constraint.when, parameters),
        "then": then,
        "description": constraint.message["en"],
        "x-message": dict(constraint.message),
    }


def _values(allowed: Mapping[str, frozenset[Any]], parameters: Mapping[str, Parameter]) -> Schema:
    needed = [name for name, values in allowed.items() if parameters[name].filled_in not in values]
    return {
        "properties": {name: {"enum": _ordered(parameters[name], values)} for name, values in allowed.items()},
        "required": needed,
    }


def _ordered(parameter: Parameter, values: frozenset[Any]) -> Sequence[Any]:
    """As the parameter has them."""
    known = [value for value in parameter.choices or () if value in values]
    return [*known, *sorted(value for value in values if value not in known)]


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
