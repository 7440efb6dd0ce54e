from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.application.ports import Jobs, Tokens
from app.domain.generations import Job
from app.domain.ledger import Violation


@dataclass(frozen=True, slots=True)
class VerifyLedger:
    """Recompute everything from the entries; an empty answer means that every token is accounted for."""

    tokens: Tokens

    async def __call__(self) -> Sequence[Violation]:
        return await self.tokens.violations()


@dataclass(frozen=True, slots=True)
class InspectJobs:
    """The newest jobs of all accounts, for the operator."""

    jobs: Jobs

    async def __call__(
        self, *, unfinished_only: bool = False, unknown_only: bool = False, late_only: bool = False, limit: int
    ) -> Sequence[Job]:
        return await self.jobs.newest(
            unfinished_only=unfinished_only, unknown_only=unknown_only, late_only=late_only, limit=limit
        )


@dataclass(frozen=True, slots=True)
class InspectJob:
    """Everything stored of one job, by column, for the operator. Raises JobNotFound."""

    jobs: Jobs

    async def __call__(self, job_id: UUID) -> Mapping[str, Any]:
        return await self.jobs.inspect(job_id)


@dataclass(frozen=True, slots=True)
class RequeueJob:
    """Give an unfinished job without a queue item a new one. False: it has one, or it is final, or unknown."""

    jobs: Jobs

    async def __call__(self, job_id: UUID) -> bool:
        return bool(await self.jobs.requeue_lost(job_id))
