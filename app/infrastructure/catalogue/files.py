"""Reads the files and says what is wrong with them: where it stands, and what to change."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from app.infrastructure.catalogue import positions
from app.infrastructure.catalogue.tables import Table

_TableT = TypeVar("_TableT", bound=Table)
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PLACE = re.compile(r"at line (\d+),")
_TYPES = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "tuple_type": "a list of width and height",
}
_LISTS = ("list_type", "sequence_type", "sequence_str", "is_instance_of")

_SENTENCES = {
    "missing": "`{name}` is missing: add it.",
    "enum": "`{name}` must be {expected}.",
    "literal_error": "`{name}` must be {expected}.",
    "greater_than_equal": "`{name}` must be at least {ge}.",
    "less_than_equal": "`{name}` must be at most {le}.",
    "too_short": "`{name}` must not be empty.",
    "string_too_long": "`{name}` must have at most {max_length} characters.",
}


@dataclass(frozen=True)
class File:
    name: str
    """As it is told to the operator."""
    text: str
    document: Mapping[str, Any]

    @cached_property
    def _lines(self) -> Mapping[positions.Path, int]:
        return positions.lines_by_path(self.text)

    def place(self, path: positions.Path) -> str:
        return f"{self.name}, line {positions.line_of(self._lines, path)}"


@dataclass(frozen=True)
class Spot:
    """A table in a file, whose problems are told with their lines."""

    file: File
    path: positions.Path
    problems: list[str]
    """Shared by everything that is read together."""
    about: str = ""
    elsewhere: Mapping[str | int, "Spot"] = field(default_factory=dict)
    """Keys whose values another table has replaced, with that table."""

    def with_parts_of(self, other: "Spot", keys: Iterable[str]) -> "Spot":
        return replace(self, elsewhere={**self.elsewhere, **dict.fromkeys(keys, other)})

    def inside(self, *path: str | int) -> "Spot":
        spot = self.elsewhere.get(path[0], self)
        return replace(spot, path=(*spot.path, *path), elsewhere={})

    def say(self, sentence: str, *path: str | int) -> None:
        if path and path[0] in self.elsewhere:
            self.elsewhere[path[0]].say(sentence, *path)
            return
        about = f"{self.about}: " if self.about else ""
        self.problems.append(f"{self.file.place((*self.path, *path))}: {about}{sentence}")

    def read(self, table: type[_TableT], value: object) -> _TableT | None:
        """None if it is not of the form; then that is said."""
        try:
            return table.model_validate(value)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                self.say(*_told(details, table, self))
            return None


def read_file(path: Path, name: str, problems: list[str]) -> File | None:
    """None if it cannot be read; then that is said."""
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        return File(name, text, tomllib.loads(text))
    except OSError:
        problems.append(f"{name}: cannot be read. Give the service the right to read it, or take it away.")
    except UnicodeDecodeError:
        problems.append(f"{name}: is not UTF-8 text. Save it as UTF-8.")
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.search(str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        problems.append(
            f"{name}, line {line}: is not valid TOML here. Look for a missing quote, bracket or =, or a key twice."
        )
    except ValueError:
        problems.append(f"{name}: has a number of thousands of digits. No number in it needs more than a few.")
    except RecursionError:
        problems.append(f"{name}: is nested too deep. Nothing in it needs more than a few levels.")
    return None


def closest(name: str, known: Sequence[str]) -> str:
    """What was probably meant, as the end of a sentence; else all there is."""
    found = difflib.get_close_matches(name, known, 1)
    return f"did you mean `{found[0]}`?" if found else f"there are {', '.join(known)}."


def _told(details: ErrorDetails, table: type[Table], spot: Spot) -> tuple[Any, ...]:
    """The sentence, and the path that it is about."""
    path = tuple(step for step in details["loc"] if step != "[key]")
    name = ".".join(map(str, path))
    bounds = details.get("ctx", {})
    kind = details["type"]
    if kind in _SENTENCES:
        return (_SENTENCES[kind].format(name=name, **bounds), *path)
    if kind == "extra_forbidden":
        return (
            f"there is no key `{name}`: {closest(str(path[-1]), list(map(str, _fields_beside(table, path))))}",
            *path,
        )
    if kind == "form":
        return (f"`{name}` {details['msg']}.", *path)
    if kind in _LISTS:
        is_of_tables = isinstance(details["input"], Mapping) and _holds_tables(
            _fields_beside(table, path).get(path[-1])
        )
        return (_about_a_list(name, spot.inside(*path).path if is_of_tables else None), *path)
    return (f"`{name}` must be {_TYPES.get(kind, 'of another form')}.", *path)


def _about_a_list(name: str, of_tables_at: positions.Path | None) -> str:
    if of_tables_at is None:
        return f"`{name}` must be a list: put square brackets around what it has."
    steps = (step for step in of_tables_at if isinstance(step, str))
    header = ".".join(step if _BARE.fullmatch(step) else f'"{step}"' for step in steps)
    return f"`{name}` must be a list of tables: write [[{header}]] above each of them, in two pairs of brackets."


def _fields_beside(table: type[Table], path: positions.Path) -> Mapping[str | int, FieldInfo]:
    """The keys that there are where the last step of the path is."""
    for step in path[:-1]:
        known = _fields(table)
        table = (_table_in(known[step].annotation) if step in known else None) or table
    return _fields(table)


def _fields(table: type[Table]) -> Mapping[str | int, FieldInfo]:
    return {info.alias or name: info for name, info in table.model_fields.items()}


def _table_in(annotation: object) -> type[Table] | None:
    """The form of what a key holds, alone, in a list or under names of any kind; None if it holds no tables."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return next((found for part in get_args(annotation) if (found := _table_in(part)) is not None), None)


def _holds_tables(info: FieldInfo | None) -> bool:
    parts = () if info is None else get_args(info.annotation)
    return any(get_origin(part) is Mapping or _table_in(part) is not None for part in parts)
