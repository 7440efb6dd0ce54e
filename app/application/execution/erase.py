"""Takes what was deleted out of the store."""

from dataclasses import dataclass
from uuid import UUID

import structlog

from app.application.execution.steps import RetryLater
from app.application.ports.files import FileEnds
from app.application.ports.media import OutputCopies
from app.application.ports.media_store import MediaStore, StoreUnavailable
from app.domain.files import FileId
from app.domain.outputs import OutputId

log = structlog.get_logger(__name__)

STORE_AWAY_SECONDS = 60.0
# What was never seen to be stored may still be on its way there.
LOOK_AGAIN_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class EraseFile:
    """Take a file that was deleted out of the store."""

    files: FileEnds
    store: MediaStore | None

    async def __call__(self, file_id: UUID) -> None:
        if not await self.files.is_to_erase(file_id):
            return
        if self.store is not None:
            try:
                await self.store.delete(FileId(file_id).store_key)
            except StoreUnavailable as error:
                log.info("file_erase_postponed", file_id=str(file_id), reason=str(error))
                raise RetryLater(STORE_AWAY_SECONDS) from error
        if not await self.files.record_erased(file_id):
            raise RetryLater(LOOK_AGAIN_SECONDS)
        log.info("file_erased", file_id=str(file_id))


@dataclass(frozen=True, slots=True)
class EraseMedia:
    """Take what was deleted out of the store."""

    outputs: OutputCopies
    store: MediaStore | None

    async def __call__(self, job_id: UUID) -> None:
        are_left = [output_id for output_id in await self.outputs.to_erase(job_id) if not await self._erase(output_id)]
        if are_left:
            raise RetryLater(LOOK_AGAIN_SECONDS)

    async def _erase(self, output_id: OutputId) -> bool:
        if self.store is not None:
            try:
                await self.store.delete(output_id.store_key)
            except StoreUnavailable as error:
                log.info("media_erase_postponed", output=str(output_id), reason=str(error))
                raise RetryLater(STORE_AWAY_SECONDS) from error
        if not await self.outputs.record_erased(output_id):
            return False
        log.info("media_erased", output=str(output_id))
        return True
