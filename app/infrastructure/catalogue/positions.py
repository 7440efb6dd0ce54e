"""On which line of a TOML file a key stands. No parser for Python tells: neither tomllib nor tomlkit keeps positions.

Only for files that tomllib has taken, so that nothing is checked here, and only once there is something to say.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping

# A key and the index of an array are steps of a path.
Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|\#[^\n]*)
      | (?P<text>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')
      | (?P<mark>[\[\]{}=,.\n])
      | (?P<bare>[^\s\[\]{}=,.\#"']+)""",
    re.VERBOSE | re.DOTALL,
)


def lines_by_path(text: str) -> Mapping[Path, int]:
    """The line of each table, key and item; line 1 is the first."""
    return _Walk(text).lines


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Of the path, or of the innermost that the file has of what it lies in."""
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), 1)


class _Walk:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._items: dict[Path, int] = {}
        self._tokens = list(_tokens(text))
        self._at = 0
        table: Path = ()
        while self._at < len(self._tokens):
            if self._takes("\n"):
                continue
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _takes(self, mark: str) -> bool:
        is_there = self._peek() == mark
        self._at += is_there
        return is_there

    def _header(self) -> Path:
        line = self._tokens[self._at][1]
        self._at += 1
        is_array = self._takes("[")
        *outer, last = self._key()
        path = (*self._inside(outer, line), last)
        self._note(path, line)
        if is_array:
            self._items[path] = self._items.get(path, -1) + 1
            path = (*path, self._items[path])
        self._note(path, line)
        self._at += 2 if is_array else 1
        return path

    def _inside(self, keys: list[str], line: int) -> Path:
        """An array of tables stands for its last item."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            self._note(path, line)
            if path in self._items:
                path = (*path, self._items[path])
        return path

    def _key(self) -> list[str]:
        keys = [self._word()]
        while self._takes("."):
            keys.append(self._word())
        return keys

    def _word(self) -> str:
        token, _ = self._tokens[self._at]
        self._at += 1
        return str(tomllib.loads(f"key = {token}")["key"]) if token[0] in "\"'" else token

    def _pair(self, table: Path) -> None:
        line = self._tokens[self._at][1]
        path = table
        for key in self._key():
            path = (*path, key)
            self._note(path, line)
        self._takes("=")
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._takes("["):
            self._array(path)
        elif self._takes("{"):
            while not self._takes("}"):
                if not self._takes(",") and not self._takes("\n"):
                    self._pair(path)
        else:
            while self._at < len(self._tokens) and self._peek() not in (",", "]", "}", "\n"):
                self._at += 1

    def _array(self, path: Path) -> None:
        index = 0
        while not self._takes("]"):
            if self._takes(",") or self._takes("\n"):
                continue
            self._note((*path, index), self._tokens[self._at][1])
            self._value((*path, index))
            index += 1

    def _note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Each token with its line."""
    line = 1
    for found in _TOKEN.finditer(text):
        if found.lastgroup != "skip":
            yield found[0], line
        line += found[0].count("\n")
