"""Which values a parameter takes, and which of them are enough to know all prices."""

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from app.domain.parameters import Parameter, ParameterType
from app.domain.pricing import MEGAPIXEL_PIXELS

# So many values of a range are gone through one by one.
RANGE_VALUES_MAX = 64


def problem_of(parameter: Parameter, value: Any) -> str | None:
    """What is wrong with a value, as the end of a sentence; None if the model takes it. URLs are not looked at."""
    return _PROBLEMS[parameter.type](parameter, value)


def _boolean_problem(_parameter: Parameter, value: Any) -> str | None:
    return None if type(value) is bool else "must be true or false"


def _choice_problem(parameter: Parameter, value: Any) -> str | None:
    is_known = isinstance(value, str) and value in parameter.values
    return None if is_known else f"must be one of {', '.join(map(str, parameter.values))}"


def _url_problem(_parameter: Parameter, value: Any) -> str | None:
    return None if isinstance(value, str) and value else "must be a URL"


def _text_problem(parameter: Parameter, value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    if not parameter.length_min <= len(value) <= (parameter.length_max or len(value)):
        return f"must have {parameter.length_min} to {parameter.length_max} characters"
    return None


def _number_problem(parameter: Parameter, value: Any) -> str | None:
    is_integer = parameter.type is ParameterType.INTEGER
    if type(value) is not int and (is_integer or type(value) is not float):
        return "must be a whole number" if is_integer else "must be a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a number"
    if parameter.values:
        return None if value in parameter.values else f"must be one of {', '.join(map(str, parameter.values))}"
    if parameter.minimum is not None and value < parameter.minimum:
        return f"must be at least {parameter.minimum}"
    if parameter.maximum is not None and value > parameter.maximum:
        return f"must be at most {parameter.maximum}"
    return None


def _size_problem(parameter: Parameter, value: Any) -> str | None:
    if isinstance(value, str):
        return None if value in parameter.presets else f"must be one of {', '.join(parameter.presets)}"
    if parameter.size_limits is None:
        return f"must be one of {', '.join(parameter.presets)}"
    if not isinstance(value, Mapping) or set(value) != {"width", "height"}:
        return "must be a preset, or have width and height"
    if any(type(side) is not int for side in value.values()):
        return "must have whole numbers as width and height"
    return (
        None if parameter.size_limits.allows(value["width"], value["height"]) else "is not a size that the model takes"
    )


def _images_problem(parameter: Parameter, value: Any) -> str | None:
    if not isinstance(value, list) or not all(isinstance(url, str) and url for url in value):
        return "must be a list of URLs"
    if not parameter.count_min <= len(value) <= (parameter.count_max or len(value)):
        return f"must have {parameter.count_min} to {parameter.count_max} URLs"
    return None


_PROBLEMS: Mapping[ParameterType, Callable[[Parameter, Any], str | None]] = {
    ParameterType.TEXT: _text_problem,
    ParameterType.INTEGER: _number_problem,
    ParameterType.NUMBER: _number_problem,
    ParameterType.BOOLEAN: _boolean_problem,
    ParameterType.CHOICE: _choice_problem,
    ParameterType.SIZE: _size_problem,
    ParameterType.IMAGE: _url_problem,
    ParameterType.AUDIO: _url_problem,
    ParameterType.IMAGES: _images_problem,
}


def values_to_try(
    parameter: Parameter, named: Collection[Any] = (), turns: Collection[int] = ()
) -> Sequence[Hashable | Mapping[str, int]]:
    """All values, or of a long range those between which nothing of a price changes its course.

    `named` are those that a constraint names, and `turns` those from which on a line counts. A price never falls while
    what it counts grows, so that the cheapest and the dearest request are among the ends and the neighbours of these.
    """
    if parameter.type is ParameterType.SIZE:
        return _sizes_to_try(parameter, turns)
    if parameter.choices is not None:
        return parameter.choices if parameter.is_always_there else (None, *parameter.choices)
    least, most = parameter.minimum, parameter.maximum
    if least is None or most is None:
        return (parameter.filled_in, *named)
    if parameter.type is ParameterType.NUMBER:
        # Prices count whole things alone: a value of each kind is enough, those named and one between each two.
        steps = sorted({least, most, *named})
        return (*steps, *((low + high) / 2 for low, high in pairwise(steps)))
    if most - least < RANGE_VALUES_MAX:
        return range(int(least), int(most) + 1)
    near = {value + step for value in (*named, *turns) for step in (-1, 0, 1)}
    return sorted({int(least), int(most), *(value for value in near if least <= value <= most)})


def _sizes_to_try(parameter: Parameter, turns: Collection[int]) -> Sequence[Any]:
    """Each preset; of sizes in numbers the smallest and the largest picture, or a little larger ones, and those where a
    line begins to count.
    """
    limits = parameter.size_limits
    if limits is None:
        return tuple(parameter.presets)
    sides = {math.ceil(math.sqrt(pixels)) for pixels in (limits.smallest_pixels, limits.largest_pixels)}
    around = {math.isqrt(megapixels * MEGAPIXEL_PIXELS) + step for megapixels in turns for step in (0, 1)}
    sides |= {side for side in around if limits.allows(side, side)}
    return (*parameter.presets, *({"width": side, "height": side} for side in sorted(sides)))
