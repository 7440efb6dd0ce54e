"""Copies what fal delivered into our store. No failure of it changes a job."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from app.application.execution.pacing import Spread
from app.application.execution.places import Places
from app.application.execution.steps import COPIES, RetryLater
from app.application.fault_points import reach
from app.application.ports.media import (
    MediaDeletion,
    MediaNotReached,
    OutputCopies,
    OutputToCopy,
    ProviderMedia,
    StoredCopy,
)
from app.application.ports.media_store import MediaStore, ObjectMissing, StoreUnavailable
from app.domain.media_types import SNIFFED_BYTES, UNKNOWN_TYPE, sniff
from app.domain.outputs import DeletedBecause

log = structlog.get_logger(__name__)

RETRY_SECONDS_MIN = 2.0
RETRY_SECONDS_MAX = 3600.0
# What could not be copied for so long stays at fal, which keeps it for some days more.
GIVE_UP_SECONDS = 24 * 3600.0
# fal's storage may be behind its queue for a while, or a part of it away.
LOST_SECONDS = 6 * 3600.0
# While the store is away one copy in so many seconds tries it.
STORE_PAUSE_SECONDS = 10.0
BUSY_SECONDS = 1.0


@dataclass(slots=True)
class StorePause:
    """While the store is away no copy is fetched that it could not take."""

    now_seconds: Callable[[], float] = time.monotonic
    _until_seconds: float = field(default=0.0, init=False)
    is_away: bool = field(default=False, init=False)

    @property
    def is_on(self) -> bool:
        return self.now_seconds() < self._until_seconds

    def begin(self, reason: str) -> None:
        if not self.is_away:
            log.warning("media_store_away", reason=reason)
        self.is_away = True
        self._until_seconds = self.now_seconds() + STORE_PAUSE_SECONDS

    def try_one(self) -> None:
        """Let nobody else try before this try has told."""
        if self.is_away:
            self._until_seconds = self.now_seconds() + STORE_PAUSE_SECONDS

    def end(self) -> None:
        if self.is_away:
            log.info("media_store_back")
        self.is_away, self._until_seconds = False, 0.0


@dataclass(slots=True)
class CopyOutputs:
    """Take a job's outputs into the store, each whole or not at all."""

    outputs: OutputCopies
    deletion: MediaDeletion
    provider: ProviderMedia
    store: MediaStore | None
    """None: fal keeps them for as long as we promise."""
    pause: StorePause = field(default_factory=StorePause)
    places: Places = field(default_factory=lambda: Places(COPIES.concurrent_steps_max))
    _spread: Spread = field(default_factory=Spread, init=False)
    _began_at_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self._began_at_seconds = self.pause.now_seconds()

    async def __call__(self, job_id: UUID) -> None:
        wanted = await self.outputs.to_copy(job_id)
        if not wanted:
            return
        if self.store is None:
            for output in wanted:
                # fal was asked to keep for so long what was submitted since this process runs, and not before with
                # certainty.
                is_kept = output.seconds_since_accept < self.pause.now_seconds() - self._began_at_seconds
                await self.outputs.give_up(output.id, is_kept_at_provider=is_kept)
            return
        account_id = wanted[0].account_id
        if self.pause.is_on:
            raise RetryLater(self._spread.delay_seconds(account_id, STORE_PAUSE_SECONDS))
        place = self.places.take(account_id)
        if place is None:
            raise RetryLater(self._spread.delay_seconds(account_id, BUSY_SECONDS))
        with place:
            are_left = [output for output in wanted if not await self._copy_or_say(self.store, output)]
        if are_left:
            raise RetryLater(self._spread.delay_seconds(account_id, _retry_seconds(are_left[0].seconds_waiting)))

    async def _copy_or_say(self, store: MediaStore, output: OutputToCopy) -> bool:
        """Whether nothing is left to do for it."""
        try:
            await self._copy(store, output)
        except MediaNotReached as error:
            log.info("output_copy_failed", output=str(output.id), reason=error.reason)
            if error.is_gone and output.seconds_since_end >= LOST_SECONDS:
                if await self._adopt(store, output):
                    return True
                log.error("output_lost", output=str(output.id), reason=error.reason)
                await self.deletion.delete(None, output.id.job_id, DeletedBecause.LOST, output.id.number)
                return True
        except StoreUnavailable as error:
            self.pause.begin(str(error))
            log.info("output_copy_failed", output=str(output.id), reason=str(error))
        else:
            return True
        if output.seconds_waiting < GIVE_UP_SECONDS:
            return False
        log.error("output_copy_given_up", output=str(output.id))
        await self.outputs.give_up(output.id, is_kept_at_provider=False)
        return True

    async def _copy(self, store: MediaStore, output: OutputToCopy) -> None:
        """Raises MediaNotReached, StoreUnavailable."""
        if output.url is None:
            raise MediaNotReached("fal named no URL.", is_gone=True)
        self.pause.try_one()
        async with self.provider.open(output.url) as answer:
            checked = Checked(answer.chunks)
            reach("copy.before_put")
            await store.put(output.id.store_key, checked.chunks())
            reach("copy.after_put")
        self.pause.end()
        if not await self.outputs.record_stored(output.id, checked.as_stored()):
            # Deleted or given up meanwhile.
            await store.delete(output.id.store_key)
            return
        log.info("output_stored", output=str(output.id), size_bytes=checked.size_bytes)

    async def _adopt(self, store: MediaStore, output: OutputToCopy) -> bool:
        """Whether the store has it all the same: a database may have been restored from before the copy was made."""
        key = output.id.store_key
        try:
            async for found in store.each(key.rpartition("/")[0]):
                if found.key == key:
                    checked = Checked(store.read(key, 0, found.size_bytes))
                    async for _ in checked.chunks():
                        pass
                    return await self.outputs.record_stored(output.id, checked.as_stored())
        except (ObjectMissing, MediaNotReached):
            return False
        except StoreUnavailable as error:
            self.pause.begin(str(error))
            raise RetryLater(STORE_PAUSE_SECONDS) from error
        return False


class Checked:
    """Looks at bytes as they flow: what they are, how many, and their digest."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self._first = b""
        self.size_bytes = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            if len(self._first) < SNIFFED_BYTES:
                self._first += chunk[: SNIFFED_BYTES - len(self._first)]
            self._digest.update(chunk)
            self.size_bytes += len(chunk)
            yield chunk
        if not self.size_bytes:
            raise MediaNotReached("The file is empty.")

    def as_stored(self) -> StoredCopy:
        media_type = sniff(self._first)
        content_type = UNKNOWN_TYPE if media_type is None else media_type.content_type
        return StoredCopy(content_type=content_type, size_bytes=self.size_bytes, sha256=self._digest.digest())


def _retry_seconds(seconds_waiting: float) -> float:
    return min(RETRY_SECONDS_MAX, max(RETRY_SECONDS_MIN, seconds_waiting / 4))
