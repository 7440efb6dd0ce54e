"""What is written and read of kept files. Every operation may raise DatabaseUnavailable."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from uuid import UUID

from app.domain.files import FileId, KeptFile, NewFile
from app.domain.jobs import Outcome
from app.domain.outputs import DeletedBecause, OutputId


class Spool(Protocol):
    """Where files wait on this machine until they were looked at."""

    def new(self) -> AbstractAsyncContextManager[Path]:
        """The name of a file that nobody else has, and that is gone after it."""
        ...


@dataclass(frozen=True, slots=True)
class FilesPage:
    """`used_bytes` of `bytes_max`, over all files of the account."""

    files: Sequence[KeptFile]
    used_bytes: int


class FileRecords(Protocol):
    async def admit(self, account_id: UUID, size_bytes: int, bytes_max: int) -> None:
        """Before a byte of an upload is read: whoever has nothing to spend on a generation needs no file for one.

        What is kept of `size_bytes` may be less, so that only a full account is refused. Counts as a write, whatever
        becomes of the upload. Raises InsufficientBalance, FilesFull, TooManyWrites.
        """
        ...

    async def reserve(self, file: NewFile, bytes_max: int) -> KeptFile:
        """Count the file's bytes, before they are stored. Raises FilesFull, and of a data: URI TooManyWrites.

        Locks the account row.
        """
        ...

    async def record_stored(self, file_id: UUID) -> KeptFile | None:
        """Say that the store has it, from which moment on it can be used. None: it was deleted meanwhile."""
        ...

    async def find(self, file_id: UUID) -> KeptFile | None:
        """Whoever's it is, also a deleted one."""
        ...

    async def list(self, account_id: UUID, *, limit: int, before: UUID | None) -> FilesPage:
        """Those that are kept, the newest first; `before` is one of them. An unknown one has none before it."""
        ...

    async def delete(self, file_id: UUID, because: DeletedBecause) -> KeptFile | None:
        """From now on it leads nowhere and counts no more; a step erases the object. Of a deleted one it changes
        nothing. None: there is none.
        """
        ...

    async def take_back(self, account_id: UUID, file_ids: Sequence[UUID]) -> None:
        """Delete files of data: URIs whose job was not accepted. Counts as a write, as the job would have."""
        ...


class FileEnds(Protocol):
    """What becomes of files whose time is over."""

    async def delete_over(self) -> int:
        """Some of those whose time is over, whose bytes never came, or whose job ended a day ago; returns how many."""
        ...

    async def forget_erased(self) -> int:
        """Drop rows of files that were erased a month ago and that no unfinished job names; returns how many."""
        ...

    async def is_to_erase(self, file_id: UUID) -> bool:
        """Whether it was deleted, and may still be in the store."""
        ...

    async def record_erased(self, file_id: UUID) -> bool:
        """The store has it no more. False: it may still be on its way there, so look again later."""
        ...


class OwnOutputs(Protocol):
    async def as_file(self, account_id: UUID, output_id: OutputId) -> KeptFile | None:
        """The file that stands for an output of the account, made at its first use. None: there is no such output.

        Raises MediaDeleted.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileToSend:
    file: KeptFile
    now: datetime
    """By the database's clock, by which claims judge URLs."""
    output_id: OutputId | None = None
    """Of an output that is used again."""
    provider_url: str | None = None
    """Where fal still has that output itself, for long enough."""
    provider_url_until: datetime | None = None

    @property
    def media_id(self) -> FileId | OutputId:
        """What names the bytes, in links and in the store."""
        return self.output_id or FileId(self.file.id)


class FilesToSend(Protocol):
    """For a job that waits to be submitted: fal gets a URL for each file, once for all jobs that use it."""

    async def of_job(self, job_id: UUID) -> Sequence[FileToSend]:
        """Those of its files that have no URL for fal, or one that ends soon; also deleted ones."""
        ...

    async def begin(self, file_id: UUID, seconds_max: float) -> bool:
        """Be the one who hands it over, for so long. False: somebody else is at it, or has done it."""
        ...

    async def record_sent(self, file_id: UUID, url: str, until: datetime) -> None:
        """Nothing is written of a file that was deleted meanwhile. `until`: the URL is good."""
        ...

    async def give_back(self, file_id: UUID) -> None:
        """Let the next one try at once."""
        ...

    async def end_queued(self, job_id: UUID, outcome: Outcome) -> bool:
        """End the job, unless somebody has claimed it since. False: then nothing was done."""
        ...


class OwnFiles(Protocol):
    async def of_account(self, account_id: UUID, file_ids: Sequence[UUID]) -> Mapping[UUID, KeptFile]:
        """Those of them that are its own, also deleted ones."""
        ...

    async def keep_on(self, file_id: UUID) -> None:
        """For a job that uses it, so long as one may wait and run."""
        ...

    async def balance_tokens(self, account_id: UUID) -> int:
        """As it is, without a lock."""
        ...
