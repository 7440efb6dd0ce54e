from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias
from uuid import UUID

from app.domain.files import FileId
from app.domain.jobs import Job
from app.domain.outputs import DeletedBecause, Output, OutputId


class MediaNotReached(Exception):
    """What fal keeps did not come, or not whole. `reason` is one sentence for the operator."""

    def __init__(self, reason: str, *, is_gone: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_gone = is_gone
        """fal answered, and does not have it."""


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """The headers are case-insensitive. `chunks` raises MediaNotReached where the body does not come to its end."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class ProviderMedia(Protocol):
    """What fal delivered, where fal keeps it."""

    def open(self, url: str, *, byte_range: str | None = None) -> AbstractAsyncContextManager[ProviderAnswer]:
        """Answered with 200, or with 206 or 416 where a range was asked for. Raises MediaNotReached."""
        ...


class MediaLinks(Protocol):
    """Links that nobody else can make."""

    def query_for(self, media_id: str, expires_at: datetime) -> str:
        """What follows the `?` of a link that is good until then."""
        ...

    def is_signed(self, media_id: str, expires: int, signature: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class OutputToCopy:
    id: OutputId
    account_id: UUID
    url: str | None
    seconds_waiting: float
    """Since its copy is wanted."""
    seconds_since_end: float
    """Of its job."""
    seconds_since_accept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCopy:
    content_type: str
    size_bytes: int
    sha256: bytes


class OutputCopies(Protocol):
    async def to_copy(self, job_id: UUID) -> Sequence[OutputToCopy]:
        """Those of the job that wait for their copy."""
        ...

    async def record_stored(self, output_id: OutputId, copy: StoredCopy) -> bool:
        """Say that the store has it, and until when.

        False: it was deleted or given up meanwhile, and the copy must go.
        """
        ...

    async def give_up(self, output_id: OutputId, *, is_kept_at_provider: bool) -> None:
        """Make no more copies of it. `is_kept_at_provider`: fal keeps it for as long as we promise."""
        ...

    async def to_erase(self, job_id: UUID) -> Sequence[OutputId]:
        """Those of the job that were deleted and may still be in the store."""
        ...

    async def record_erased(self, output_id: OutputId) -> bool:
        """The store has it no more. False: a copy of it may still be under way, so look again later."""
        ...


MediaId: TypeAlias = OutputId | FileId


class Standing(StrEnum):
    """What the row of an output or a file says of its object in the store."""

    WANTED = "wanted"
    """A copy is under way, or the object is being erased."""
    STORED = "stored"
    OVER = "over"
    """There must be none: no copy is recorded any more."""


@dataclass(frozen=True, slots=True)
class FilesMiscounted:
    """An account whose files come to another sum than the one that stands in its row."""

    account_id: UUID
    counted_bytes: int
    bytes: int


class MediaRecords(Protocol):
    async def standings(self, ids: Sequence[MediaId]) -> Mapping[MediaId, tuple[Standing, int | None]]:
        """With the size of what is stored. Those that there are not are left out."""
        ...

    async def outputs_after(self, after: OutputId | None, limit: int) -> Sequence[OutputId]:
        """A page of all outputs whose copies are stored, in one order."""
        ...

    async def files_after(self, after: FileId | None, limit: int) -> Sequence[FileId]:
        """The same of files."""
        ...

    async def files_miscounted(self) -> Sequence[FilesMiscounted]:
        """Reads whole tables, as of one moment."""
        ...


class OutputReader(Protocol):
    async def find(self, output_id: OutputId) -> tuple[UUID, Output] | None:
        """The output, and whose it is."""
        ...


class OlderMedia(Protocol):
    async def keep(self) -> int:
        """Have a portion of the jobs that a release before completed keep their outputs; returns how many of these.

        What fal still has is copied, and what is older than media are kept has three days left.
        """
        ...

    async def forget_late_results(self) -> int:
        """Take fal's URLs out of results that came too late, once they are as old as media become."""
        ...


class MediaDeletion(Protocol):
    async def delete(
        self, account_id: UUID | None, job_id: UUID, because: DeletedBecause, number: int | None = None
    ) -> Job:
        """All outputs of the job, or one: from now on no link leads to them, and what fal's were go from the job.

        The objects are erased by a step. Deleting what is deleted changes nothing. Raises JobNotFound,
        JobUnfinished. Locks the job row.
        """
        ...

    async def delete_expired(self) -> int:
        """Some of those whose time is over; returns how many."""
        ...
