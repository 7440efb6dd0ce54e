from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


class HealthChecks(Protocol):
    async def run(self) -> Sequence[Check]: ...
