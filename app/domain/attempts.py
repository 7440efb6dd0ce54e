from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class AttemptOutcome(StrEnum):
    """What came of the POST of an attempt. Not of its run: a request that fal seemed to refuse may run all the same."""

    ACCEPTED = "accepted"
    NOT_QUEUED = "not_queued"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """What a job's attempts send, but for a seed that marks each of them."""

    parameters: Mapping[str, Any]
    """In fal's spelling."""
    takes_seed: bool = True

    @property
    def can_be_marked(self) -> bool:
        return self.takes_seed and "seed" not in self.parameters
