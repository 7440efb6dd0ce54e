"""What is done with media by those who have a link, and by those whose media they are."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import structlog

from app.application.ports.media import MediaDeletion, MediaLinks, OutputReader, ProviderAnswer, ProviderMedia
from app.application.ports.media_store import MediaStore, ObjectMissing, StoreUnavailable
from app.domain.jobs import Job
from app.domain.media_errors import LinkExpired, LinkNotValid, MediaDeleted, MediaNotFound, MediaUnavailable
from app.domain.outputs import DeletedBecause, Output, OutputId

log = structlog.get_logger(__name__)

REDIRECT_SECONDS = 60
# Of them and no more, each with a connection of its own, so that none waits for a connection that another one holds.
PASSED_AT_ONCE_MAX = 192
# A moment has one spelling, as everything in a link has.
EXPIRES = re.compile(r"[1-9]\d{0,11}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Linked:
    """What a link leads to, whose it is, and when this link or the output itself is over, whichever comes first."""

    account_id: UUID
    output: Output
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class OpenMedia:
    links: MediaLinks
    outputs: OutputReader
    provider: ProviderMedia
    store: MediaStore | None
    is_handed_over: bool = False
    """Whether the store itself serves what it has, where it can."""

    async def find(self, media_id: str, expires: str, signature: str) -> Linked:
        """Raises LinkNotValid, LinkExpired, MediaNotFound, MediaDeleted."""
        output_id = OutputId.parse(media_id)
        if output_id is None or not EXPIRES.fullmatch(expires):
            raise LinkNotValid
        if not self.links.is_signed(media_id, int(expires), signature):
            raise LinkNotValid
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
        if now.timestamp() >= int(expires):
            raise LinkExpired
        ends_at_seconds = min(int(expires), kept.expires_at.timestamp())
        return Linked(account_id, output, datetime.fromtimestamp(ends_at_seconds, UTC))

    async def store_url(self, output: Output, disposition: str, content_type: str) -> str | None:
        """Where the store itself serves a stored output, if it is to. Raises MediaUnavailable."""
        if self.store is None or not self.is_handed_over:
            return None
        try:
            return await self.store.presigned_url(
                output.id.store_key, content_type=content_type, disposition=disposition, seconds=REDIRECT_SECONDS
            )
        except StoreUnavailable as error:
            raise MediaUnavailable from error

    async def read(self, output: Output, start: int, end: int) -> AsyncIterator[bytes]:
        """Of a stored output. Raises MediaUnavailable, ObjectMissing."""
        if self.store is None:
            # MEDIA_URL was changed to none. fal may still have it.
            raise ObjectMissing
        try:
            async for chunk in self.store.read(output.id.store_key, start, end):
                yield chunk
        except ObjectMissing:
            # Nothing brings it back by itself, so the operator has to hear of it.
            log.error("media_missing", output=str(output.id))
            raise
        except StoreUnavailable as error:
            raise MediaUnavailable from error

    def pass_through(self, output: Output, byte_range: str | None) -> AbstractAsyncContextManager[ProviderAnswer]:
        """Of an output that is not stored. Raises MediaUnavailable, and MediaNotReached from the context."""
        if output.provider_url is None:
            raise MediaUnavailable
        return self.provider.open(output.provider_url, byte_range=byte_range)


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
