"""The type of each field of a request, made of what the catalogue says of the parameter."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, create_model
from pydantic_core import PydanticCustomError

from app.domain.models import SAFETY_CHECKER
from app.domain.parameters import Parameter, ParameterType, SizeLimits
from app.presentation.schemas.fields import NOT_BLANK, STORABLE, RequestModel
from app.presentation.schemas.media_urls import ImageUrl, ValidationContext, audio_url, put_right
from app.presentation.schemas.parameter_words import description_of

_MEDIA = (ParameterType.IMAGE, ParameterType.AUDIO)
# Python strips four control characters and U+0085 as blanks, too.
_NOT_BLANK_PATTERN = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"
_STORABLE_PATTERN = r"^[^\u0000]*$"


def field_of(parameter: Parameter, *, is_required: bool) -> tuple[Any, Any]:
    """The annotation and the default, as `create_model` takes them. Left out or null is the same, but for a field with
    a default of our own.
    """
    annotation = _TYPES[parameter.type](parameter)
    if parameter.name == SAFETY_CHECKER:
        annotation = Annotated[annotation, AfterValidator(_checked_as_ordered)]
    described = _described(parameter)
    if is_required:
        return Annotated[annotation, described], ...
    if parameter.default is not None:
        return Annotated[annotation, described], parameter.default
    return Annotated[annotation | None, described], None


def _described(parameter: Parameter) -> Any:
    sentences = [description_of(parameter)]
    if parameter.type is ParameterType.SIZE:
        sentences.append(_about_sizes(parameter))
    if parameter.assumed is not None:
        sentences.append(f"{_shown(parameter.assumed)} where it is left out.")
    return Field(description=" ".join(sentences))


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _about_sizes(parameter: Parameter) -> str:
    presets = ", ".join(f"`{name}` {width} x {height}" for name, (width, height) in parameter.presets.items())
    limits = "" if parameter.size_limits is None else f"{parameter.size_limits.sentence} "
    return f"{limits}The presets: {presets}."


def _text(parameter: Parameter) -> Any:
    is_filled = parameter.length_min > 0
    about = Field(
        min_length=parameter.length_min or None,
        max_length=parameter.length_max,
        json_schema_extra={"pattern": _NOT_BLANK_PATTERN if is_filled else _STORABLE_PATTERN},
    )
    return Annotated[str, about, STORABLE, NOT_BLANK] if is_filled else Annotated[str, about, STORABLE]


def _integer(parameter: Parameter) -> Any:
    if parameter.values:
        return Annotated[_literal(parameter), BeforeValidator(_integer_among(parameter.values))]
    return Annotated[int, _range(parameter)]


def _integer_among(values: Any) -> Callable[[object], object]:
    expected = " or ".join(map(str, values)) if len(values) < 3 else _listed(values)

    def check(value: object) -> object:
        """A Literal would take 5.0 for 5."""
        if type(value) is not int or value not in values:
            raise PydanticCustomError("not_among", "not among them", {"expected": expected})
        return value

    return check


def _listed(values: Any) -> str:
    *first, last = map(str, values)
    return f"{', '.join(first)} or {last}"


def _number(parameter: Parameter) -> Any:
    if parameter.values:
        return _integer(parameter)
    return Annotated[float, _range(parameter)]


def _range(parameter: Parameter) -> Any:
    return Field(ge=parameter.minimum, le=parameter.maximum)


def _literal(parameter: Parameter) -> Any:
    return Literal[tuple(parameter.values)]


def _size(parameter: Parameter) -> Any:
    preset: Any = Literal[tuple(parameter.presets)]
    if parameter.size_limits is None:
        return preset
    limits = parameter.size_limits
    preset = Annotated[preset, BeforeValidator(_preset_among(tuple(parameter.presets)))]
    dimensions: Any = Annotated[_dimensions(limits), AfterValidator(_is_possible(limits))]
    # In brackets, so that the tag cannot be taken for a field where an error is located.
    return Annotated[
        Annotated[preset, Tag("(preset)")] | Annotated[dimensions, Tag("(dimensions)")],
        Discriminator(lambda value: "(dimensions)" if isinstance(value, dict | RequestModel) else "(preset)"),
    ]


def _preset_among(presets: Sequence[str]) -> Callable[[object], object]:
    expected = f'{", ".join(map(repr, presets))} or {{"width", "height"}} in pixels'

    def check(value: object) -> object:
        if value not in presets:
            raise PydanticCustomError("not_among", "not among them", {"expected": expected})
        return value

    return check


def _dimensions(limits: SizeLimits) -> type[RequestModel]:
    side = Annotated[int, Field(ge=limits.side_min, le=limits.side_max, description="Pixels.")]
    made: type[RequestModel] = create_model(
        f"ImageDimensions{limits.side_min}To{limits.side_max}",
        __base__=RequestModel,
        width=(side, ...),
        height=(side, ...),
    )
    return made


def _is_possible(limits: SizeLimits) -> Callable[[Any], Any]:
    def check(size: Any) -> Any:
        if not limits.allows(size.width, size.height):
            raise PydanticCustomError("image_size_not_allowed", "size", {"reason": limits.sentence})
        return size

    return check


def _images(parameter: Parameter) -> Any:
    return Annotated[list[ImageUrl], Field(min_length=parameter.count_min, max_length=parameter.count_max)]


def _checked_as_ordered(value: bool | None, info: ValidationInfo) -> bool | None:
    context: ValidationContext | None = info.context
    if value is False and context is not None and context.get("is_safety_checker_required"):
        raise PydanticCustomError("safety_checker_required", "false")
    return value


_TYPES: Mapping[ParameterType, Callable[[Parameter], Any]] = {
    ParameterType.TEXT: _text,
    ParameterType.INTEGER: _integer,
    ParameterType.NUMBER: _number,
    ParameterType.BOOLEAN: lambda _: bool,
    ParameterType.CHOICE: _literal,
    ParameterType.SIZE: _size,
    ParameterType.IMAGE: lambda _: ImageUrl,
    ParameterType.AUDIO: lambda parameter: audio_url(None if parameter.media is None else parameter.media.seconds),
    ParameterType.IMAGES: _images,
}


def as_taken(kind: ParameterType | None, value: Any) -> Any:
    """What the field of such a parameter makes of a value that it takes. Any other value stays as it is."""
    try:
        if kind is ParameterType.NUMBER and type(value) is int:
            return float(value)
        if kind in _MEDIA and isinstance(value, str):
            return put_right(value)
    except (ValueError, OverflowError):
        return value
    if kind is ParameterType.IMAGES and isinstance(value, list):
        return [as_taken(ParameterType.IMAGE, url) for url in value]
    return value
