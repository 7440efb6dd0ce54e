"""Compares the store of media with the rows of outputs and files, both ways."""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import TypeVar

import structlog

from app.application.ports.media import FilesMiscounted, MediaId, MediaRecords, Standing
from app.application.ports.media_store import MediaStore, ObjectMissing, StoredObject, StoreUnavailable
from app.domain import files, outputs
from app.domain.files import FileId
from app.domain.outputs import OutputId

log = structlog.get_logger(__name__)

# Whatever is written now is left alone: its row may come.
ORPHAN_AGE = timedelta(days=1)
AT_ONCE = 500
# A portion each minute: over a million objects a day.
PORTION = 1_000
WALK_AGAIN_SECONDS = 24 * 3600.0
Id = TypeVar("Id")
_LEFTOVER = re.compile(r"(.+)\.[0-9a-f]{16}\.part")


class Verdict(StrEnum):
    SOUND = "sound"
    ORPHAN = "orphan"
    """It was deleted, or its copy was given up, or a process died while it was written."""
    UNKNOWN = "unknown"
    """Of no row of this database. Rows outlive their objects, so it is somebody else's, or of a later state of this."""
    DAMAGED = "damaged"
    """Its size is not that of the output or file."""


@dataclass(frozen=True, slots=True)
class Judged:
    object: StoredObject
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class MediaAudit:
    records: MediaRecords
    store: MediaStore

    async def objects(self) -> AsyncIterator[Judged]:
        """Every object of outputs and files. Raises StoreUnavailable."""
        batch: list[StoredObject] = []
        for prefix in (outputs.STORE_PREFIX, files.STORE_PREFIX):
            async for found in self.store.each(prefix):
                batch.append(found)
                if len(batch) == AT_ONCE:
                    for judged in await self._judge(batch):
                        yield judged
                    batch = []
        for judged in await self._judge(batch):
            yield judged

    async def missing(self) -> AsyncIterator[tuple[MediaId, bool]]:
        """Every stored output and file, and whether the store has nothing of it. Raises StoreUnavailable."""
        async for output_id in _all(self.records.outputs_after):
            yield output_id, await self._is_missing(output_id)
        async for file_id in _all(self.records.files_after):
            yield file_id, await self._is_missing(file_id)

    async def miscounted(self) -> Sequence[FilesMiscounted]:
        """Accounts that may keep more, or less, than they should."""
        return await self.records.files_miscounted()

    async def remove(self, orphan: Judged) -> None:
        """Raises StoreUnavailable."""
        await self.store.delete(orphan.object.key)
        log.info("media_orphan_removed", key=orphan.object.key, size_bytes=orphan.object.size_bytes)

    async def _judge(self, batch: Sequence[StoredObject]) -> Sequence[Judged]:
        ids = {each.key: _id_of(each.key) for each in batch}
        known = [media_id for media_id in ids.values() if media_id is not None]
        standings = await self.records.standings(known) if known else {}
        return [Judged(each, _verdict(each, ids[each.key], standings)) for each in batch]

    async def _is_missing(self, media_id: MediaId) -> bool:
        try:
            async for _ in self.store.read(media_id.store_key, 0, 1):
                return False
        except ObjectMissing:
            return True
        return False


async def _all(page_after: Callable[[Id | None, int], Awaitable[Sequence[Id]]]) -> AsyncIterator[Id]:
    after: Id | None = None
    for _ in count():
        page = await page_after(after, AT_ONCE)
        for media_id in page:
            yield media_id
        if len(page) < AT_ONCE:
            return
        after = page[-1]


def _id_of(key: str) -> MediaId | None:
    """None for the key of nothing of ours."""
    return FileId.of_store_key(key) if key.startswith(f"{files.STORE_PREFIX}/") else OutputId.of_store_key(key)


def _verdict(
    found: StoredObject, media_id: MediaId | None, standings: Mapping[MediaId, tuple[Standing, int | None]]
) -> Verdict:
    is_old = found.modified_at < datetime.now(UTC) - ORPHAN_AGE
    if media_id is None:
        # In a shared bucket it may be anybody's, but for what a folder calls a file that is being written.
        is_leftover = _is_leftover(found.key)
        return Verdict.ORPHAN if is_leftover and is_old else Verdict.SOUND if is_leftover else Verdict.UNKNOWN
    if media_id not in standings:
        return Verdict.UNKNOWN
    standing, size_bytes = standings[media_id]
    if standing is Standing.OVER:
        return Verdict.ORPHAN if is_old else Verdict.SOUND
    is_whole = standing is Standing.WANTED or size_bytes == found.size_bytes
    return Verdict.SOUND if is_whole else Verdict.DAMAGED


def _is_leftover(key: str) -> bool:
    leftover = _LEFTOVER.fullmatch(key)
    return leftover is not None and _id_of(leftover[1]) is not None


@dataclass(slots=True)
class RemoveOrphans:
    """Goes through the store, a portion at a time, and takes out what no row stands for any more."""

    audit: MediaAudit
    now_seconds: Callable[[], float] = time.monotonic
    _walk: AsyncIterator[Judged] | None = field(default=None, init=False)
    _not_before_seconds: float = field(default=float("-inf"), init=False)

    async def __call__(self) -> int:
        """Returns how many were removed."""
        if self.now_seconds() < self._not_before_seconds:
            return 0
        walk = self._walk = self._walk or self.audit.objects()
        removed = 0
        try:
            for _ in range(PORTION):
                judged = await anext(walk, None)
                if judged is None:
                    self._end()
                    break
                if judged.verdict is Verdict.ORPHAN:
                    await self.audit.remove(judged)
                    removed += 1
        except StoreUnavailable as error:
            log.info("media_walk_postponed", reason=str(error))
            self._end(within_seconds=600)
        except BaseException:
            self._walk = None
            raise
        return removed

    def _end(self, within_seconds: float = WALK_AGAIN_SECONDS) -> None:
        self._walk = None
        self._not_before_seconds = self.now_seconds() + within_seconds
