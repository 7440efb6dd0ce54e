"""What is known of a database that was restored from a backup, and of its jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from app.application.ports.provider import ProviderRequest
from app.domain.jobs import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldJob:
    """A job that the backup has as QUEUED: it may have been submitted since the backup was made."""

    id: UUID
    account_id: UUID
    model_id: str
    parameters: Mapping[str, Any]
    created_at: datetime


class RestoreNotice(Protocol):
    async def notice(self) -> int:
        """Hold what is QUEUED if this database is not the one that the service last ran on. How many jobs are held.

        Not atomic: if it was cut off, the next one holds the rest. Once it was done it holds nothing, and returns 0.
        """
        ...


class RestoredJobs(RestoreNotice, Protocol):
    async def hold(self) -> int:
        """Hold what is QUEUED now, and return how many jobs are held. May be repeated if it was cut off."""
        ...

    async def held(self, *, after: UUID | None, limit: int) -> Sequence[HeldJob]:
        """In the order of their ids."""
        ...

    async def adopt(self, job_id: UUID, request: ProviderRequest) -> bool:
        """Give the held job the request of fal that it has led to. False: it is not held any more."""
        ...

    async def end(self, outcome: Outcome, *, limit: int) -> int:
        """End some of the held jobs, with their refund, and return how many those were. Atomic.

        Locks the job rows, then the account rows.
        """
        ...

    async def release(self, job_ids: Sequence[UUID]) -> int:
        """Let the held jobs be submitted, and return how many those are. May be repeated if it was cut off."""
        ...
