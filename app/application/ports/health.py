from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at the installation shows, and what to do about it: a line for the operator."""

    level: Level
    subject: str
    text: str


class HealthChecks(Protocol):
    async def run(self) -> Sequence[Check]: ...
