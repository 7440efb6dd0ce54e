"""A known way to get something wrong, as a change of the source."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PROJECT_DIR = Path(__file__).resolve().parents[2]


def source_of(module: ModuleType) -> str:
    """The file, from the project's folder on: mutants are made in copies of that."""
    assert module.__file__ is not None
    return str(Path(module.__file__).relative_to(PROJECT_DIR))


@dataclass(frozen=True)
class Change:
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    name: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]
    """Arguments of pytest; no `-k`, so that the control can run all of them together."""
