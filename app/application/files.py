"""What people do with files: keep one, look at it, delete it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.application.fault_points import reach
from app.application.ports.files import FileRecords, FilesPage, Spool
from app.application.ports.media_decoder import DecoderBusy, DecoderUnavailable, MediaDecoder, UnreadableMedia
from app.application.ports.media_store import MediaStore, StoreUnavailable
from app.domain.errors import Unavailable
from app.domain.file_errors import FileNotFound, FileNotTaken, FilesNotKept, FilesUnavailable, TooManyUploads
from app.domain.files import FileId, FileOrigin, KeptFile, NewFile
from app.domain.media_errors import MediaDeleted
from app.domain.outputs import DeletedBecause

log = structlog.get_logger(__name__)

CHUNK_BYTES = 1024 * 1024
# 100 MB at a megabyte a second, and some.
PUT_SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class KeepFile:
    """Look at a file, count it, and store what is kept of it: all of it, or nothing that counts.

    Raises FileNotTaken, FilesFull, TooManyUploads, TooManyWrites, FilesNotKept, FilesUnavailable.
    """

    records: FileRecords
    decoder: MediaDecoder
    store: MediaStore | None
    spool: Spool
    bytes_max: int
    """That an account may keep."""

    async def __call__(self, account_id: UUID, source: Path, *, job_id: UUID | None = None) -> KeptFile:
        """`job_id`: the file came as a data: URI of this job."""
        self.check_store()
        async with self.spool.new() as cleaned:
            file = await self._examined(account_id, source, cleaned, job_id)
            await self.records.reserve(file, self.bytes_max)
            reach("keep_file.after_reserve")
            try:
                stored = await self._stored(file, cleaned)
            except BaseException:
                # What cannot be taken back now is over in an hour.
                with suppress(Unavailable):
                    await asyncio.shield(self.records.delete(file.id, DeletedBecause.REQUESTED))
                raise
        log.info("file_kept", file_id=str(file.id), origin=file.origin.value, size_bytes=file.size_bytes)
        return stored

    def check_store(self) -> None:
        """Raises FilesNotKept."""
        if self.store is None:
            raise FilesNotKept

    async def _examined(self, account_id: UUID, source: Path, cleaned: Path, job_id: UUID | None) -> NewFile:
        try:
            found = await self.decoder.examine(source, cleaned, owner=account_id)
        except UnreadableMedia as error:
            raise FileNotTaken(error.reason) from None
        except DecoderBusy:
            raise TooManyUploads from None
        except DecoderUnavailable as error:
            log.error("decoder_unavailable", reason=error.reason)
            raise FilesUnavailable from error
        return NewFile(
            id=uuid7(),
            account_id=account_id,
            origin=FileOrigin.UPLOAD if job_id is None else FileOrigin.DATA,
            content_type=found.content_type,
            size_bytes=found.size_bytes,
            width=found.width,
            height=found.height,
            duration_seconds=found.duration_seconds,
            sha256=found.sha256,
            job_id=job_id,
        )

    async def _stored(self, file: NewFile, cleaned: Path) -> KeptFile:
        assert self.store is not None
        put = asyncio.create_task(self.store.put(FileId(file.id).store_key, _chunks(cleaned)))
        # What comes of it later is of no interest.
        put.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            # A store that hangs lets nobody wait for it, and may not even let go of the task.
            done, _ = await asyncio.wait({put}, timeout=PUT_SECONDS_MAX)
        finally:
            put.cancel()
        try:
            if not done:
                raise StoreUnavailable("The store does not answer in time.")
            put.result()
        except StoreUnavailable as error:
            log.warning("file_not_stored", reason=error.reason)
            raise FilesUnavailable from error
        reach("keep_file.after_put")
        stored = await self.records.record_stored(file.id)
        if stored is None:
            # It took so long that its time to come was over.
            raise FilesUnavailable
        return stored


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


@dataclass(frozen=True, slots=True)
class CustomerFiles:
    keep: KeepFile

    async def admit(self, account_id: UUID, size_bytes: int) -> None:
        """Before a byte of an upload is read. Raises FilesNotKept, InsufficientBalance, FilesFull, TooManyWrites."""
        self.keep.check_store()
        await self.keep.records.admit(account_id, size_bytes, self.keep.bytes_max)

    async def get(self, account_id: UUID, file_id: UUID) -> KeptFile:
        """Raises FileNotFound, MediaDeleted."""
        file = await self.keep.records.find(file_id)
        if file is None or file.account_id != account_id or (file.deleted_at is None and not file.is_stored):
            raise FileNotFound
        if file.deleted_at is not None:
            raise MediaDeleted(file.deleted_at, file.deleted_because or "")
        return file

    async def list(self, account_id: UUID, *, limit: int, before: UUID | None) -> FilesPage:
        return await self.keep.records.list(account_id, limit=limit, before=before)

    async def delete(self, account_id: UUID, file_id: UUID) -> None:
        """Deleting what is deleted changes nothing. Raises FileNotFound."""
        file = await self.keep.records.find(file_id)
        if file is None or file.account_id != account_id:
            raise FileNotFound
        await self.keep.records.delete(file_id, DeletedBecause.REQUESTED)
        log.info("file_deleted", file_id=str(file_id))
