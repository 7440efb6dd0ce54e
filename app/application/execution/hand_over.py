"""Gives fal a URL for each kept file of a job, before the job is claimed: between claim and POST nothing takes time."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from app.application.execution.pacing import Spread
from app.application.execution.places import Places
from app.application.execution.settlement import persist
from app.application.execution.steps import RetryLater
from app.application.execution.waits import ProviderWaits, log_queue_timeout
from app.application.fault_points import reach
from app.application.media import FOR_PROVIDER
from app.application.ports.execution import JobSubmission
from app.application.ports.files import FilesToSend, FileToSend
from app.application.ports.media import MediaLinks
from app.application.ports.media_store import MediaStore, ObjectMissing, StoreUnavailable
from app.application.ports.provider import ProviderStorage, ProviderUnavailable
from app.domain.errors import Unavailable
from app.domain.job_errors import INPUT_DELETED
from app.domain.jobs import Outcome, WaitingFor
from app.domain.media_types import UNKNOWN_TYPE

log = structlog.get_logger(__name__)

# Of the places of submissions, of which an account holds two thirds at the most.
HAND_OVERS_MAX = 8
BUSY_SECONDS = 0.5
RETRY_SECONDS = 5.0
# Every job that is submitted within this time finds the URL made.
URL_LIFETIME = timedelta(days=7)
# Whoever takes longer may be joined by another one; neither harms the other.
BYTES_PER_SECOND_MIN = 256 * 1024
SECONDS_MIN = 60.0


INPUT_WAS_DELETED = Outcome.failed(INPUT_DELETED.code, INPUT_DELETED.sentence())


class _InputDeleted(Exception):
    """A file of the job is gone, and the job cannot be submitted any more."""


class _NotHandedOver(Exception):
    """It may be tried again. `reason` is one sentence for whoever looks at the job."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HandOverFiles:
    jobs: JobSubmission
    files: FilesToSend
    store: MediaStore | None
    storage: ProviderStorage
    links: MediaLinks
    public_url: str | None
    """Where fal reaches us, so that it can fetch from here."""
    waits: ProviderWaits
    _places: Places = field(default_factory=lambda: Places(HAND_OVERS_MAX), init=False)
    _spread: Spread = field(default_factory=Spread, init=False)

    async def __call__(self, job_id: UUID, account_id: UUID) -> bool:
        """Whether the QUEUED job can go on: False if it has ended. Raises RetryLater."""
        try:
            await self._hand_over_all(job_id, account_id)
        except _InputDeleted:
            log.info("generation_input_deleted", job_id=str(job_id))
            await persist(lambda: self.files.end_queued(job_id, INPUT_WAS_DELETED))
            return False
        except _NotHandedOver as error:
            state = await self.jobs.load(job_id)
            waited_seconds = None if state is None else state.seconds_waiting_for_provider
            wait = self.waits.wait(error.reason, WaitingFor.PROVIDER, waited_seconds)
            if await self.jobs.record_waiting(job_id, wait):
                log_queue_timeout(job_id)
                return False
            raise RetryLater(self._spread.delay_seconds(account_id, RETRY_SECONDS)) from error
        return True

    async def _hand_over_all(self, job_id: UUID, account_id: UUID) -> None:
        """Raises _InputDeleted, _NotHandedOver, RetryLater."""
        place = self._places.take(account_id)
        if place is None:
            raise RetryLater(self._spread.delay_seconds(account_id, BUSY_SECONDS))
        with place:
            for to_send in await self.files.of_job(job_id):
                await self._hand_over(to_send, account_id)

    async def _hand_over(self, to_send: FileToSend, account_id: UUID) -> None:
        file = to_send.file
        if file.deleted_at is not None:
            raise _InputDeleted
        seconds_max = SECONDS_MIN + (file.size_bytes or 0) / BYTES_PER_SECOND_MIN
        if not await self.files.begin(file.id, seconds_max):
            # Another job with the same file is at it.
            raise RetryLater(self._spread.delay_seconds(account_id, BUSY_SECONDS))
        try:
            url, until = await self._url_of(to_send)
            reach("hand_over.after_url")
            await self.files.record_sent(file.id, url, until)
        except BaseException:
            # If that fails, somebody else may try once the time is over.
            with suppress(Unavailable):
                await self.files.give_back(file.id)
            raise

    async def _url_of(self, to_send: FileToSend) -> tuple[str, datetime]:
        if to_send.provider_url is not None and to_send.provider_url_until is not None:
            return to_send.provider_url, to_send.provider_url_until
        if not to_send.file.is_stored or self.store is None:
            raise _InputDeleted
        until = to_send.now + URL_LIFETIME
        if self.public_url is not None:
            media_id = f"{FOR_PROVIDER}{to_send.media_id}"
            query = self.links.query_for(media_id, until)
            return f"{self.public_url}/media/{media_id}/{to_send.file.name}?{query}", until
        return await self._upload(to_send, self.store), until

    async def _upload(self, to_send: FileToSend, store: MediaStore) -> str:
        file = to_send.file
        assert file.size_bytes is not None, "what is stored was counted"
        try:
            url = await self.storage.upload(
                name=file.name,
                content_type=file.content_type or UNKNOWN_TYPE,
                size_bytes=file.size_bytes,
                chunks=store.read(to_send.media_id.store_key, 0, file.size_bytes),
                lifetime_seconds=int(URL_LIFETIME.total_seconds()),
            )
        except ObjectMissing as error:
            # Nothing brings it back.
            log.error("media_missing", file=str(to_send.media_id))
            raise _InputDeleted from error
        except StoreUnavailable as error:
            log.info("hand_over_failed", file=str(to_send.media_id), reason=error.reason)
            raise _NotHandedOver("The store of files cannot be read right now.") from error
        except ProviderUnavailable as error:
            log.info("hand_over_failed", file=str(to_send.media_id), reason=str(error))
            raise _NotHandedOver("fal takes no files right now.") from error
        log.info("file_handed_over", file=str(to_send.media_id), size_bytes=file.size_bytes)
        return url
