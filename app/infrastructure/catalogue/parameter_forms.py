"""Makes a parameter of its table, if everything in it fits together."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.media_limits import MediaLimits
from app.domain.media_types import JPEG, MP3, PNG, WAV, WEBP
from app.domain.parameter_values import problem_of
from app.domain.parameters import FalField, Parameter, ParameterType, SizeLimits
from app.infrastructure.catalogue.files import Spot
from app.infrastructure.catalogue.tables import ParameterTable

_KEYS_OF_TYPE: Mapping[ParameterType, frozenset[str]] = {
    ParameterType.TEXT: frozenset({"length_min", "length_max"}),
    ParameterType.INTEGER: frozenset({"minimum", "maximum", "values"}),
    ParameterType.NUMBER: frozenset({"minimum", "maximum", "values"}),
    ParameterType.BOOLEAN: frozenset(),
    ParameterType.CHOICE: frozenset({"values"}),
    ParameterType.SIZE: frozenset({"presets", "side_min", "side_max", "pixels_min", "pixels_max", "ratio_max"}),
    ParameterType.IMAGE: frozenset(),
    ParameterType.AUDIO: frozenset({"seconds_min", "seconds_max"}),
    ParameterType.IMAGES: frozenset({"count_min", "count_max"}),
}
_NEEDED: Mapping[ParameterType, frozenset[str]] = {
    ParameterType.TEXT: frozenset({"length_max"}),
    ParameterType.CHOICE: frozenset({"values"}),
    ParameterType.SIZE: frozenset({"presets"}),
    ParameterType.IMAGES: frozenset({"count_max"}),
}
_PICTURES = (PNG.content_type, JPEG.content_type, WEBP.content_type)
# What is taken where the table says nothing.
_CONTENT_TYPES: Mapping[ParameterType, Sequence[str]] = {
    ParameterType.IMAGE: _PICTURES,
    ParameterType.IMAGES: _PICTURES,
    ParameterType.AUDIO: (MP3.content_type, WAV.content_type),
}
_BOUNDS = (
    ("minimum", "maximum"),
    ("length_min", "length_max"),
    ("count_min", "count_max"),
    ("seconds_min", "seconds_max"),
    ("side_min", "side_max"),
    ("pixels_min", "pixels_max"),
)
_OF_ONE_TYPE = frozenset().union(*_KEYS_OF_TYPE.values())


def key_text(value: object) -> str:
    """A value as it is written where TOML takes texts alone: as a key."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def make_parameter(name: str, table: ParameterTable, spot: Spot) -> Parameter | None:
    """None if something does not fit; then that is said."""
    known = len(spot.problems)
    _check_keys(table, spot)
    _check_bounds(table, spot)
    if len(spot.problems) > known:
        return None
    parameter = _made(name, table)
    _check_values(parameter, table, spot)
    _check_filled_in(parameter, spot)
    return None if len(spot.problems) > known else parameter


def _made(name: str, table: ParameterTable) -> Parameter:
    choices = {key_text(value): value for value in (*(table.values or ()), *(table.presets or ()), False, True)}
    fal = FalField(
        name=table.fal.name or name,
        text=table.fal.text,
        values={choices.get(key, key): value for key, value in (table.fal.values or {}).items()},
        is_list=table.fal.list,
    )
    return Parameter(
        name=name,
        type=table.type,
        group=table.group,
        label=table.label.words(),
        description=table.description.words(),
        fal=fal,
        is_required=table.required,
        default=table.default,
        assumed=table.assumed,
        values=tuple(table.values or ()),
        minimum=table.minimum,
        maximum=table.maximum,
        length_min=table.length_min or 0,
        length_max=table.length_max,
        count_min=table.count_min or 1,
        count_max=table.count_max,
        media=_media_limits(table),
        presets=table.presets or {},
        size_limits=_size_limits(table),
    )


def _media_limits(table: ParameterTable) -> MediaLimits | None:
    content_types = _CONTENT_TYPES.get(table.type)
    return None if content_types is None else MediaLimits(content_types=content_types, seconds=_seconds(table))


def _seconds(table: ParameterTable) -> tuple[int, int] | None:
    if table.seconds_min is None or table.seconds_max is None:
        return None
    return table.seconds_min, table.seconds_max


def _size_limits(table: ParameterTable) -> SizeLimits | None:
    if table.side_min is None or table.side_max is None:
        return None
    return SizeLimits(
        side_min=table.side_min,
        side_max=table.side_max,
        pixels_min=table.pixels_min or 1,
        pixels_max=table.pixels_max,
        ratio_max=table.ratio_max,
    )


def _check_keys(table: ParameterTable, spot: Spot) -> None:
    there = {key for key in _OF_ONE_TYPE if getattr(table, key) is not None}
    for key in sorted(there - _KEYS_OF_TYPE[table.type]):
        spot.say(f"`{key}` says nothing of the type {table.type}: take it away.", key)
    for key in sorted(_NEEDED.get(table.type, frozenset()) - there):
        spot.say(f"`{key}` is missing: add it.")
    if table.type in (ParameterType.INTEGER, ParameterType.NUMBER):
        if "values" in there and {"minimum", "maximum"} & there:
            spot.say("has `values` and a range: keep one of them.")
        if "values" not in there and not {"minimum", "maximum"} <= there:
            spot.say("needs `minimum` and `maximum`, or `values`: add what is missing.")
    if ("seconds_min" in there) != ("seconds_max" in there):
        spot.say("has one of `seconds_min` and `seconds_max`: add the other one.")
    if ("side_min" in there) != ("side_max" in there) or (
        "side_min" not in there and there & {"pixels_min", "pixels_max", "ratio_max"}
    ):
        spot.say("takes width and height only with both `side_min` and `side_max`: add them.")


def _check_bounds(table: ParameterTable, spot: Spot) -> None:
    for low, high in _BOUNDS:
        least, most = getattr(table, low), getattr(table, high)
        if least is not None and most is not None and least > most:
            spot.say(f"`{low}` is above `{high}`: correct one of them.", high if low in spot.elsewhere else low)
    if table.type is ParameterType.INTEGER:
        for key in ("minimum", "maximum"):
            if type(getattr(table, key)) not in (int, type(None)):
                spot.say(f"`{key}` must be a whole number, as the type is integer.", key)
    if table.type is ParameterType.SIZE and table.side_min is not None and table.side_max is not None:
        pixels_min, pixels_max = table.pixels_min or 1, table.pixels_max or table.side_max**2
        if pixels_min > table.side_max**2 or pixels_max < table.side_min**2:
            spot.say("no width and height have as many pixels as `pixels_min` and `pixels_max` say: correct them.")


def _check_values(parameter: Parameter, table: ParameterTable, spot: Spot) -> None:
    types = {ParameterType.INTEGER: (int,), ParameterType.NUMBER: (int, float), ParameterType.CHOICE: (str,)}
    for index, value in enumerate(parameter.values):
        if type(value) not in types[parameter.type]:
            spot.say(f"`values` must be of the type {parameter.type}.", "values", index)
    choices = {key_text(value) for value in parameter.choices or parameter.presets}
    for key in table.fal.values or {}:
        if key not in choices:
            spot.say(f"`fal.values` names {key}, which is no value of this parameter: take it away.", "fal", "values")


def _check_filled_in(parameter: Parameter, spot: Spot) -> None:
    filled_in: Mapping[str, Any] = {"default": parameter.default, "assumed": parameter.assumed}
    there = [key for key, value in filled_in.items() if value is not None]
    if len(there) > 1:
        spot.say("has `default` and `assumed`: keep the one that says whose it is, ours or fal's.", "assumed")
    if there and parameter.is_required:
        spot.say(f"is required, so that `{there[0]}` is never used: keep one of the two.", there[0])
    for key in there:
        problem = problem_of(parameter, filled_in[key])
        if problem is not None:
            spot.say(f"`{key}` {problem}.", key)
