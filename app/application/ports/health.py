from collections.abc import Collection, Sequence
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


# In place of a model's id: submissions of all of them pause.
EVERY_MODEL = "*"


class PausedModels(Protocol):
    async def ids(self) -> Collection[str]:
        """The models whose submissions pause in any process. It may be some seconds old, and never fails."""
        ...


class Admission(Protocol):
    async def is_closed_to(self, model_id: str) -> bool:
        """fal refuses the operator's key or account for the model, and jobs have waited for long because of that.

        It may be some seconds old, and never fails.
        """
        ...


class HealthChecks(Protocol):
    async def run(self) -> Sequence[Check]: ...
