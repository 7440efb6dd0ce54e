"""Which values a parameter takes."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from app.domain.parameters import Parameter, ParameterType


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
