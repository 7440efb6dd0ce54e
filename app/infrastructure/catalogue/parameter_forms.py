"""Makes a parameter of its table, if everything in it fits together."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from app.domain.media_limits import MEGABYTE_BYTES, MediaLimits
from app.domain.media_types import JPEG, MEDIA_TYPES, MP3, PNG, WAV, WEBP, MediaKind
from app.domain.parameter_values import problem_of
from app.domain.parameters import FalField, Parameter, ParameterType, SizeLimits
from app.infrastructure.catalogue.files import Spot, closest
from app.infrastructure.catalogue.tables import ParameterTable

_SIDES = frozenset({"side_min", "side_max", "pixels_min", "pixels_max", "ratio_max"})
_KEYS_OF_TYPE: Mapping[ParameterType, frozenset[str]] = {
    ParameterType.TEXT: frozenset({"length_min", "length_max"}),
    ParameterType.INTEGER: frozenset({"minimum", "maximum", "values"}),
    ParameterType.NUMBER: frozenset({"minimum", "maximum", "values"}),
    ParameterType.BOOLEAN: frozenset(),
    ParameterType.CHOICE: frozenset({"values"}),
    ParameterType.SIZE: _SIDES | {"presets"},
    ParameterType.IMAGE: _SIDES | {"content_types", "size_mb_max"},
    ParameterType.AUDIO: frozenset({"content_types", "size_mb_max", "seconds_min", "seconds_max"}),
    ParameterType.IMAGES: _SIDES | {"content_types", "size_mb_max", "count_min", "count_max"},
}
_NEEDED: Mapping[ParameterType, frozenset[str]] = {
    ParameterType.TEXT: frozenset({"length_max"}),
    ParameterType.CHOICE: frozenset({"values"}),
    ParameterType.SIZE: frozenset({"presets"}),
    ParameterType.IMAGES: frozenset({"count_max"}),
}
_MEDIA: Mapping[ParameterType, MediaKind] = {
    ParameterType.IMAGE: MediaKind.PICTURE,
    ParameterType.IMAGES: MediaKind.PICTURE,
    ParameterType.AUDIO: MediaKind.SOUND,
}
# What is taken where the table says nothing.
_CONTENT_TYPES: Mapping[MediaKind, Sequence[str]] = {
    MediaKind.PICTURE: (PNG.content_type, JPEG.content_type, WEBP.content_type),
    MediaKind.SOUND: (MP3.content_type, WAV.content_type),
}
_BOUNDS = (
    ("minimum", "maximum"),
    ("length_min", "length_max"),
    ("count_min", "count_max"),
    ("seconds_min", "seconds_max"),
    ("side_min", "side_max"),
    ("pixels_min", "pixels_max"),
)
_WHOLE: Mapping[ParameterType, Sequence[str]] = {
    ParameterType.INTEGER: ("minimum", "maximum"),
    ParameterType.SIZE: ("ratio_max",),
}
_OF_ONE_TYPE = frozenset().union(*_KEYS_OF_TYPE.values())


def key_text(value: object) -> str:
    """A value as it is written where TOML takes texts alone: as a key."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def make_parameter(name: str, table: ParameterTable, spot: Spot) -> Parameter | None:
    """None if something does not fit; then that is said."""
    known = len(spot.problems)
    _check_keys(table, spot)
    _check_bounds(table, spot)
    _check_content_types(table, spot)
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
    if table.type not in _MEDIA:
        return None
    return MediaLimits(
        content_types=tuple(table.content_types or _CONTENT_TYPES[_MEDIA[table.type]]),
        size_bytes_max=None if table.size_mb_max is None else table.size_mb_max * MEGABYTE_BYTES,
        side_min=table.side_min,
        side_max=table.side_max,
        pixels_min=table.pixels_min,
        pixels_max=table.pixels_max,
        ratio_max=table.ratio_max,
        seconds=_seconds(table),
    )


def _seconds(table: ParameterTable) -> tuple[int, int] | None:
    if table.seconds_min is None or table.seconds_max is None:
        return None
    return table.seconds_min, table.seconds_max


def _size_limits(table: ParameterTable) -> SizeLimits | None:
    if table.type is not ParameterType.SIZE or table.side_min is None or table.side_max is None:
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
    if table.type is ParameterType.SIZE and there & _SIDES and not {"side_min", "side_max"} <= there:
        spot.say("takes width and height only with both `side_min` and `side_max`: add them.")


def _check_bounds(table: ParameterTable, spot: Spot) -> None:
    for low, high in _BOUNDS:
        least, most = getattr(table, low), getattr(table, high)
        if least is not None and most is not None and least > most:
            spot.say(f"`{low}` is above `{high}`: correct one of them.", high if low in spot.elsewhere else low)
    for key in _WHOLE.get(table.type, ()):
        if type(getattr(table, key)) not in (int, type(None)):
            spot.say(f"`{key}` must be a whole number, as the type is {table.type}.", key)
    pixels_least = (table.side_min or 1) ** 2
    pixels_most = inf if table.side_max is None else table.side_max**2
    if (table.pixels_min or 1) > pixels_most or (table.pixels_max or inf) < pixels_least:
        spot.say("no width and height have as many pixels as `pixels_min` and `pixels_max` say: correct them.")


def _check_content_types(table: ParameterTable, spot: Spot) -> None:
    if table.type not in _MEDIA:
        return
    possible = [each.content_type for each in MEDIA_TYPES if each.kind is _MEDIA[table.type]]
    for index, content_type in enumerate(table.content_types or ()):
        if content_type not in possible:
            spot.say(
                f"{content_type} is not known as a {_MEDIA[table.type]}: {closest(content_type, possible)}",
                "content_types",
                index,
            )


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
