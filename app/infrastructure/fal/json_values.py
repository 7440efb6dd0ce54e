"""Makes JSON from outside safe to keep: bounded, and without anything that PostgreSQL's jsonb refuses."""

import json
import math
import re
from typing import Any

DEPTH_MAX = 64
# Most JSON readers use a double, which holds no larger number: beyond it they read Infinity or fail.
INTEGER_DIGITS_MAX = 308

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class NotJson(ValueError):
    """The body is broken JSON or none: an HTML page, or an answer cut short."""


class TooDeep(ValueError):
    """The JSON is nested beyond what the parser can follow."""


def parse(body: bytes) -> Any:
    """Parse, with null for numbers that jsonb or common readers cannot hold. Raises NotJson, TooDeep."""
    try:
        return json.loads(body, parse_int=_integer, parse_float=_number, parse_constant=lambda _: None)
    except RecursionError as error:
        raise TooDeep("the JSON is nested too deeply") from error
    except ValueError as error:
        raise NotJson("the body is not JSON") from error


def storable(value: Any, depth: int = 1) -> Any:
    """Return the value without NUL characters, lone surrogates and whatever is nested deeper than DEPTH_MAX."""
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
