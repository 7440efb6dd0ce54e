"""Jobs as their owners and the operator see them. Money moves only inside the operations that say so.

Every operation may raise DatabaseUnavailable: nothing is half done then. If it is CommitUnknown, the operation was done
whole or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from app.domain.accounts import ApiKey
from app.domain.files import KeptReference
from app.domain.job_filters import FoundJobs, JobFilter
from app.domain.jobs import Job, NewJob
from app.domain.orders import Accepted, IdempotencyKey
from app.domain.waiting import Outlook


class NamedJobs(Protocol):
    async def find_by_idempotency_key(self, account_id: UUID, idempotency: IdempotencyKey) -> Job | None:
        """The job that the key led to. Raises IdempotencyKeyReused if the key was for another request, and
        IdempotencyKeyInUse if its first request is just being served.
        """
        ...


class JobAcceptance(NamedJobs, Protocol):
    async def accept(
        self, job: NewJob, idempotency: IdempotencyKey | None = None, key: ApiKey | None = None
    ) -> Accepted:
        """Debit the cost, store the job, its idempotency key and its queue item. Atomic; committed when it returns.

        `key` is what the caller came by, as it was then; without one no budget and no scope is asked for.
        Raises InsufficientBalance, BudgetExceeded, TooManyJobs, TooManyWrites, TooManyLargeInputs,
        IdempotencyKeyReused, IdempotencyKeyInUse, InvalidApiKey, ScopeMissing; nothing is written then.
        Locks the account row, then the key's window.
        """
        ...


class JobReader(Protocol):
    async def get(self, account_id: UUID, job_id: UUID, *, keys_version: int | None = None) -> Job:
        """Raises JobNotFound, also for another account's job.

        With a `keys_version` it raises KeyOutdated instead, also if that is no longer the account's.
        """
        ...

    async def page(self, account_id: UUID, *, limit: int, offset: int = 0, after: UUID | None = None) -> Sequence[Job]:
        """The newest first; `after` goes on where a page ended. Raises JobNotFound if that is no job of the account."""
        ...

    async def find(self, account_id: UUID, wanted: JobFilter, *, limit: int, after: UUID | None = None) -> FoundJobs:
        """The newest first, of LOOKED_AT_MAX jobs at most; `after` goes on where that ended.

        Raises JobNotFound if that is no job of the account.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredInput:
    parameters: Mapping[str, Any]
    """In fal's spelling, with marks in place of kept files."""
    references: Mapping[str, KeptReference]
    """By the id of a kept file, what a request names it by. Those that are gone have none."""


class StoredInputs(Protocol):
    async def of_jobs(self, account_id: UUID, job_ids: Sequence[UUID]) -> Mapping[UUID, StoredInput | None]:
        """Of those that are the account's own: of the newest, at least of one, as many as an answer may have.

        None: whole pictures stand in the row.
        """
        ...


class JobOutlooks(Protocol):
    """What is said of jobs that wait. It may be some seconds old, asks for nothing of a final job, and never fails."""

    async def of(self, job: Job) -> Outlook: ...

    async def each_of(self, page: Sequence[Job]) -> Sequence[Outlook]:
        """In their order."""
        ...


class JobCancellation(NamedJobs, JobReader, Protocol):
    """What a cancel needs."""

    async def request_cancel(self, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey | None = None) -> Job:
        """Cancel and refund at once what was never sent; otherwise note the wish. Stores the key with it. Atomic.

        Raises JobNotFound, JobFinished, IdempotencyKeyInUse, TooManyWrites. Locks the job row, then the account row.
        """
        ...


class JobRecords(Protocol):
    """Jobs of all accounts, for the operator."""

    async def newest(
        self,
        *,
        unfinished_only: bool = False,
        unknown_only: bool = False,
        late_only: bool = False,
        orphans_only: bool = False,
        limit: int,
    ) -> Sequence[Job]:
        """Of all accounts, for the operator.

        `unknown_only`: it is, or never became, known whether fal got them. `late_only`: fal delivered after the end.
        `orphans_only`: fal ran an attempt that the job does not follow.
        """
        ...

    async def inspect(self, job_id: UUID) -> Mapping[str, Any]:
        """Everything stored of the job, by column, and `each_attempt`, for the operator. Raises JobNotFound."""
        ...
