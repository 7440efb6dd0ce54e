"""The line of a key, in every form that TOML lets it be written in."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.infrastructure.catalogue.positions import Path as KeyPath
from app.infrastructure.catalogue.positions import line_of, lines_by_path
from app.infrastructure.catalogue.reading import BUILT_IN_DIR

DOCUMENT = '''# [not.a.table]
title = "a # b = [ { \\" "
"a.b".c = 1
text = """
x = 1
[y]
"""
literal = \'\'\'"quoted"\'\'\'

[[model]]
id = "one"
price = [
    # A comment, with ] and }.
    {line = "a", when = {x = [true,
        2]}},
    {line = "b"}, ]

[model.parameters.size]
side = 1

[[model]]
id = "two"
parameters.size.side = 2

[ other . "table" ]
when=2026-10-10T10:00:00Z
number = -1.5e3
'''


def paths_of(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("a.b", "c"), 3),
        (("text",), 4),
        (("literal",), 8),
        (("model", 0), 10),
        (("model", 0, "price", 0, "when", "x", 1), 15),
        (("model", 0, "price", 1, "line"), 16),
        (("model", 0, "parameters", "size", "side"), 19),
        (("model", 1), 21),
        (("model", 1, "parameters", "size", "side"), 23),
        (("other", "table", "when"), 26),
        (("other", "table", "number"), 27),
        (("model", 1, "parameters", "size", "missing"), 23),
        (("model", 1, "missing", 7), 21),
        (("nowhere",), 1),
    ],
)
def test_knows_the_line_of_a_key_or_of_what_it_lies_in(path: KeyPath, line: int) -> None:
    assert line_of(lines_by_path(DOCUMENT), path) == line


@pytest.mark.parametrize("file", sorted(BUILT_IN_DIR.rglob("*.toml")), ids=lambda file: file.stem)
def test_finds_everything_in_the_files_of_the_service(file: Path) -> None:
    text = file.read_text()
    lines, shown = lines_by_path(text), text.splitlines()

    for path in paths_of(tomllib.loads(text)):
        if path and isinstance(path[-1], str):
            assert path[-1] in shown[lines[path] - 1]


def test_every_key_of_the_document_has_a_line() -> None:
    lines = lines_by_path(DOCUMENT)

    assert [path for path in paths_of(tomllib.loads(DOCUMENT)) if path and path not in lines] == []
