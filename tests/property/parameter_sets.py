"""What a request may ask of a model of the catalogue, made up: as often at an end of a range as within it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from app.domain.models import Model
from app.domain.parameters import Parameter, ParameterType, SizeLimits
from app.infrastructure.catalogue.reading import read_catalogue

CATALOGUE = read_catalogue()
URL = "https://example.com/1.jpg"
TRIES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class ParameterSet:
    model: Model
    given: Mapping[str, Any]
    completed: Mapping[str, Any]


def parameter_set(numbers: Random, model: Model) -> ParameterSet:
    """One that the model takes."""
    for _ in range(TRIES_MAX):
        given = {
            name: value_of(numbers, parameter)
            for name, parameter in model.parameters.items()
            if parameter.is_required or numbers.random() < 0.5
        }
        completed = model.completed(given)
        if model.violated(completed) is None:
            return ParameterSet(model, given, completed)
    raise AssertionError(f"{model.id} takes nothing")


def value_of(numbers: Random, parameter: Parameter) -> Any:
    if parameter.choices is not None:
        return numbers.choice(parameter.choices)
    return _VALUES[parameter.type](numbers, parameter)


def _text(numbers: Random, parameter: Parameter) -> str:
    return "a" * _between(numbers, max(1, parameter.length_min), parameter.length_max or 5000)


def _integer(numbers: Random, parameter: Parameter) -> int:
    return _between(numbers, int(parameter.minimum or 0), int(parameter.maximum or 0))


def _number(numbers: Random, parameter: Parameter) -> float:
    low, high = float(parameter.minimum or 0), float(parameter.maximum or 0)
    return numbers.choice((low, high, round(numbers.uniform(low, high), 2)))


def _images(numbers: Random, parameter: Parameter) -> list[str]:
    return [URL] * _between(numbers, parameter.count_min, parameter.count_max or 4)


def _size(numbers: Random, parameter: Parameter) -> Any:
    assert parameter.size_limits is not None
    if numbers.random() < 0.3:
        return numbers.choice(list(parameter.presets))
    return _pixels(numbers, parameter.size_limits) or numbers.choice(list(parameter.presets))


def _pixels(numbers: Random, limits: SizeLimits) -> Mapping[str, int] | None:
    """None: no height goes with the width that was drawn."""
    width = _between(numbers, limits.side_min, limits.side_max)
    ratio = limits.ratio_max or limits.side_max
    low = max(limits.side_min, -(-limits.pixels_min // width), -(-width // ratio))
    high = min(limits.side_max, limits.largest_pixels // width, width * ratio)
    return {"width": width, "height": _between(numbers, low, high)} if low <= high else None


def _between(numbers: Random, low: int, high: int) -> int:
    return numbers.choice((low, high, numbers.randint(low, high)))


_VALUES: Mapping[ParameterType, Callable[[Random, Parameter], Any]] = {
    ParameterType.TEXT: _text,
    ParameterType.INTEGER: _integer,
    ParameterType.NUMBER: _number,
    ParameterType.SIZE: _size,
    ParameterType.IMAGE: lambda _numbers, _parameter: URL,
    ParameterType.AUDIO: lambda _numbers, _parameter: "https://example.com/1.mp3",
    ParameterType.IMAGES: _images,
}
