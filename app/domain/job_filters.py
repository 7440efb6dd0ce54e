"""Which of its jobs an account asks for."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.domain.jobs import Job, PublicStatus
from app.domain.kinds import GenerationKind

# So many jobs are looked at for one page: an account may have a million of which none fits, and ask again and again.
LOOKED_AT_MAX = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """A job fits if it has one of each that is named."""

    statuses: Collection[PublicStatus] = ()
    kinds: Collection[GenerationKind] = ()
    model_id: str | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.statuses or self.kinds or self.model_id is not None)


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """Those that fit among the jobs that were looked at. There may be none although older ones fit."""

    jobs: Sequence[Job]
    next_after: UUID | None
    """The last job that was looked at, where there are older ones."""
