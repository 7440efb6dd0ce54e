"""What is done with media by those who have a link, and by those whose media they are."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID

import structlog

from app.application.ports.files import FileRecords
from app.application.ports.media import (
    MediaDeletion,
    MediaId,
    MediaLinks,
    OutputReader,
    ProviderAnswer,
    ProviderMedia,
)
from app.application.ports.media_store import MediaStore, ObjectMissing, StoreUnavailable
from app.domain.files import FileId, KeptFile
from app.domain.jobs import Job
from app.domain.media_errors import LinkExpired, LinkNotValid, MediaDeleted, MediaNotFound, MediaUnavailable
from app.domain.media_types import UNKNOWN_TYPE
from app.domain.outputs import DeletedBecause, Output, OutputId

log = structlog.get_logger(__name__)

REDIRECT_SECONDS = 60
# Of them and no more, each with a connection of its own, so that none waits for a connection that another one holds.
PASSED_AT_ONCE_MAX = 192
# Before the id, in links for fal alone: what fal fetches waits behind no customer's downloads.
FOR_PROVIDER = "fal-"
# A moment has one spelling, as everything in a link has.
EXPIRES = re.compile(r"[1-9]\d{0,11}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """An output or a file, as it is downloaded. What is stored has a type, a size and a digest."""

    id: MediaId
    name: str
    content_type: str | None
    size_bytes: int | None
    sha256: str | None
    is_stored: bool
    provider_url: str | None = None
    """Where fal has it, of an output."""

    @classmethod
    def of_output(cls, output: Output) -> "Medium":
        return cls(
            id=output.id,
            name=output.name,
            content_type=output.content_type,
            size_bytes=output.kept.size_bytes,
            sha256=output.kept.sha256,
            is_stored=output.kept.is_stored,
            provider_url=output.provider_url,
        )

    @classmethod
    def of_file(cls, file: KeptFile) -> "Medium":
        return cls(
            id=FileId(file.id),
            name=file.name,
            content_type=file.content_type,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            is_stored=file.is_stored,
        )


@dataclass(frozen=True, slots=True)
class Linked:
    """What a link leads to, whose it is, and when this link or the output itself is over, whichever comes first."""

    account_id: UUID
    medium: Medium
    ends_at: datetime
    is_for_provider: bool = False


@dataclass(frozen=True, slots=True)
class OpenMedia:
    links: MediaLinks
    outputs: OutputReader
    files: FileRecords
    provider: ProviderMedia
    store: MediaStore | None
    is_handed_over: bool = False
    """Whether the store itself serves what it has, where it can."""

    async def find(self, media_id: str, expires: str, signature: str) -> Linked:
        """Raises LinkNotValid, LinkExpired, MediaNotFound, MediaDeleted."""
        named = media_id.removeprefix(FOR_PROVIDER)
        output_id, file_id = OutputId.parse(named), FileId.parse(named)
        if (output_id is None and file_id is None) or not EXPIRES.fullmatch(expires):
            raise LinkNotValid
        if not self.links.is_signed(media_id, int(expires), signature):
            raise LinkNotValid
        if output_id is not None:
            found = await self._output(output_id, int(expires))
        else:
            assert file_id is not None
            found = await self._file(file_id, int(expires))
        return replace(found, is_for_provider=named != media_id)

    async def _output(self, output_id: OutputId, expires: int) -> Linked:
        found = await self.outputs.find(output_id)
        if found is None:
            raise MediaNotFound
        account_id, output = found
        kept = output.kept
        if kept.deleted_at is not None:
            raise MediaDeleted(kept.deleted_at, kept.deleted_because or "")
        now = datetime.now(UTC)
        if now >= kept.expires_at:
            # Nobody has deleted it yet, and nobody gets it any more.
            raise MediaDeleted(kept.expires_at, DeletedBecause.EXPIRED)
        if now.timestamp() >= expires:
            raise LinkExpired
        ends_at = datetime.fromtimestamp(min(expires, kept.expires_at.timestamp()), UTC)
        return Linked(account_id, Medium.of_output(output), ends_at)

    async def _file(self, file_id: FileId, expires: int) -> Linked:
        file = await self.files.find(file_id.id)
        if file is None or (file.deleted_at is None and not file.is_stored):
            raise MediaNotFound
        if file.deleted_at is not None:
            raise MediaDeleted(file.deleted_at, file.deleted_because or "")
        # Not by the file's own time: fal may fetch it until its job has ended.
        if datetime.now(UTC).timestamp() >= expires:
            raise LinkExpired
        return Linked(file.account_id, Medium.of_file(file), datetime.fromtimestamp(expires, UTC))

    async def store_url(self, medium: Medium, disposition: str, content_type: str) -> str | None:
        """Where the store itself serves what is stored, if it is to. Raises MediaUnavailable."""
        return await self._handed_over(medium.id.store_key, disposition, content_type)

    async def store_origin(self) -> str | None:
        """From where the store itself serves what is stored, if it is to. Raises MediaUnavailable."""
        # All of its URLs are alike to their first slash. Nothing has this key, and nobody is given the URL.
        url = await self._handed_over("origin", "attachment", UNKNOWN_TYPE)
        if url is None:
            return None
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}"

    async def _handed_over(self, key: str, disposition: str, content_type: str) -> str | None:
        if self.store is None or not self.is_handed_over:
            return None
        try:
            return await self.store.presigned_url(
                key, content_type=content_type, disposition=disposition, seconds=REDIRECT_SECONDS
            )
        except StoreUnavailable as error:
            raise MediaUnavailable from error

    async def read(self, medium: Medium, start: int, end: int) -> AsyncIterator[bytes]:
        """Of what is stored. Raises MediaUnavailable, ObjectMissing."""
        if self.store is None:
            # MEDIA_URL was changed to none. fal may still have it.
            raise ObjectMissing
        try:
            async for chunk in self.store.read(medium.id.store_key, start, end):
                yield chunk
        except ObjectMissing:
            # Nothing brings it back by itself, so the operator has to hear of it.
            log.error("media_missing", media=str(medium.id))
            raise
        except StoreUnavailable as error:
            raise MediaUnavailable from error

    def pass_through(self, medium: Medium, byte_range: str | None) -> AbstractAsyncContextManager[ProviderAnswer]:
        """Of what is not stored. Raises MediaUnavailable, and MediaNotReached from the context."""
        if medium.provider_url is None:
            raise MediaUnavailable
        return self.provider.open(medium.provider_url, byte_range=byte_range)


@dataclass(frozen=True, slots=True)
class DeleteMedia:
    deletion: MediaDeletion

    async def __call__(self, account_id: UUID, job_id: UUID) -> Job:
        """Raises JobNotFound, JobUnfinished."""
        return await self.deletion.delete(account_id, job_id, DeletedBecause.REQUESTED)


@dataclass(frozen=True, slots=True)
class CustomerMedia:
    links: MediaLinks
    open: OpenMedia
    delete: DeleteMedia
