"""JSON from outside, made safe to keep: bounded, and of nothing that PostgreSQL's jsonb refuses."""

import json
import math
import re
from typing import Any

DEPTH_MAX = 64
# A double, which most JSON readers use, holds no larger number: beyond it they read Infinity or fail.
INTEGER_DIGITS_MAX = 308

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class NotJson(ValueError):
    """Broken or no JSON: an HTML page, an answer cut short."""


class TooDeep(ValueError):
    """JSON nested beyond what the parser can follow."""


def parse(body: bytes) -> Any:
    """Numbers that jsonb or common readers cannot hold become null. Raises NotJson, TooDeep."""
    try:
        return json.loads(body, parse_int=_integer, parse_float=_number, parse_constant=lambda _: None)
    except RecursionError as error:
        raise TooDeep("the JSON is nested too deeply") from error
    except ValueError as error:
        raise NotJson("the body is not JSON") from error


def storable(value: Any, depth: int = 1) -> Any:
    """The same value without NUL characters, lone surrogates, and anything nested deeper than DEPTH_MAX."""
    if isinstance(value, str):
        return _storable_text(value)
    if not isinstance(value, dict | list):
        return value
    if depth > DEPTH_MAX:
        return None
    if isinstance(value, list):
        return [storable(item, depth + 1) for item in value]
    return {_storable_text(key): storable(item, depth + 1) for key, item in value.items()}


def _storable_text(text: str) -> str:
    if not _UNSTORABLE.search(text):
        return text
    return _SURROGATE.sub(_REPLACEMENT, text.replace("\x00", ""))


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits.removeprefix("-")) <= INTEGER_DIGITS_MAX else None


def _number(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
