"""A word in square brackets: its row in a table, and how the text after its colon is read."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Turns the text after the colon (None without one) into fields; raises ValueError for text that makes no sense.
Read = Callable[[str | None], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Word:
    """Rows can share a name when their arguments differ."""

    name: str
    usage: str
    meaning: str
    read: Read


def number(argument: str | None) -> int:
    if argument is None or re.fullmatch(r"\d{1,6}", argument) is None:
        raise ValueError(argument)
    return int(argument)


def seconds(argument: str | None) -> float:
    if argument is None or re.fullmatch(r"\d{1,6}(\.\d{1,6})?", argument) is None:
        raise ValueError(argument)
    return float(argument)


def fixed(**fields: Any) -> Read:
    """For a word without an argument."""

    def read(argument: str | None) -> dict[str, Any]:
        if argument is not None:
            raise ValueError(argument)
        return fields

    return read


def option(name: str, read: Read) -> Read:
    """For a name of several rows: the argument begins with what tells this one from the others."""

    def read_option(argument: str | None) -> dict[str, Any]:
        chosen, colon, rest = (argument or "").partition(":")
        if chosen != name:
            raise ValueError(argument)
        return read(rest if colon else None)

    return read_option
