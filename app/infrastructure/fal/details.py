"""Reads without trust what fal's `detail` says of an input: which error, in which parameter, and with what limits."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.domain.errors_of_fal import ERRORS, INVALID_INPUT
from app.domain.job_errors import PARAMETERS, JobError

TYPE_PATTERN = re.compile(r"[a-z0-9_.]{1,64}", re.ASCII)
NUMBER_MAX = 10**12
WORDS_MAX = 30
INDEX_MAX = 99

_PLAIN_WORD = re.compile(r"\.?[A-Za-z0-9][A-Za-z0-9_:+./-]{0,31}", re.ASCII)
# pydantic lists what it expects as 'a', 'b' or 'c'.
_LISTED = re.compile(r"'([^']*)'")
_BYTES_PER_MEBIBYTE = 2**20
_SIDES = frozenset({"width", "height"})


@dataclass(frozen=True, slots=True)
class Detail:
    """One entry of `detail`. `parameter` is in our name, with the place in it as `image_urls/1`."""

    type: str
    parameter: str | None = None
    limits: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "Detail":
        given = item.get("type")
        type_ = given if isinstance(given, str) and TYPE_PATTERN.fullmatch(given) else ""
        given_limits = item.get("ctx")
        context = given_limits if isinstance(given_limits, dict) else {}
        shown = ERRORS[type_].limit_names if type_ in ERRORS else ()
        texts = {name: _text(name, context.get(name)) for name in shown}
        return cls(type_, _parameter(item.get("loc")), {name: text for name, text in texts.items() if text is not None})

    @property
    def code(self) -> str:
        return self._error.code

    @property
    def sentence(self) -> str:
        return self._error.sentence(self.parameter, self.limits)

    @property
    def _error(self) -> JobError:
        return ERRORS.get(self.type, INVALID_INPUT)


def details_in(detail: object) -> Sequence[Detail]:
    return [Detail.of(item) for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []


def _text(name: str, value: object) -> str | None:
    """None for whatever is neither a bounded number nor a list of plain words: it may be fal's words, or the input."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = _number(value)
        return _size(text, value) if text is not None and name == "max_size" else text
    if isinstance(value, str):
        value = _LISTED.findall(value)
    if isinstance(value, list) and 0 < len(value) <= WORDS_MAX:
        words = [word if isinstance(word, str) else _number(word) for word in value]
        if all(word is not None and _PLAIN_WORD.fullmatch(word) for word in words):
            return ", ".join(word for word in words if word is not None)
    return None


def _size(text: str, size_bytes: float) -> str:
    shown = f"{text} bytes"
    return f"{shown} ({size_bytes / _BYTES_PER_MEBIBYTE:.3g} MiB)" if size_bytes >= _BYTES_PER_MEBIBYTE else shown


def _number(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or abs(value) > NUMBER_MAX:
        return None
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _parameter(loc: object) -> str | None:
    if not isinstance(loc, list):
        return None
    for position, part in enumerate(loc):
        if isinstance(part, str) and part in PARAMETERS:
            return "/".join([part, *(str(inner) for inner in loc[position + 1 : position + 4] if _is_place(inner))])
    return None


def _is_place(part: object) -> bool:
    # Between a parameter and its part pydantic may name a class.
    if isinstance(part, str):
        return part in _SIDES
    return type(part) is int and 0 <= part <= INDEX_MAX
