import asyncio
from uuid import UUID

import structlog

from app.application.execution.follow import FollowJob
from app.application.execution.steps import RetryLater
from app.application.jobs import fingerprint_of
from app.application.ports.jobs import JobCancellation
from app.domain.orders import Accepted, IdempotencyKey

log = structlog.get_logger(__name__)

CANCEL_WAIT_SECONDS = 3.0
CANCEL_LOOK_SECONDS = 0.2


class CancelJob:
    """Cancel at once what was never sent; otherwise ask fal, and wait a moment for its confirmation.

    The refund comes with the confirmation, never before: a run that finishes anyway is delivered and charged.
    The same idempotency key for the same job is one wish, also if the first request with it has ended the job.
    Raises JobNotFound, JobFinished, IdempotencyKeyReused, IdempotencyKeyInUse, TooManyWrites.
    """

    def __init__(self, jobs: JobCancellation, follow: FollowJob) -> None:
        self._jobs = jobs
        self._follow = follow
        self._looks: dict[UUID, asyncio.Task[None]] = {}

    async def __call__(self, account_id: UUID, job_id: UUID, *, idempotency_key: str | None = None) -> Accepted:
        idempotency = None
        if idempotency_key is not None:
            idempotency = IdempotencyKey(idempotency_key, fingerprint_of(["CANCEL", str(job_id)]))
        if idempotency is not None:
            first = await self._jobs.find_by_idempotency_key(account_id, idempotency)
            if first is not None:
                return Accepted(first, is_replay=True)
        job = await self._jobs.request_cancel(account_id, job_id, idempotency)
        log.info("generation_cancel_requested", job_id=str(job_id), status=str(job.status))
        try:
            async with asyncio.timeout(CANCEL_WAIT_SECONDS):
                while not job.is_final:
                    await self._look(job_id)
                    job = await self._jobs.get(account_id, job_id)
        except TimeoutError:
            job = await self._jobs.get(account_id, job_id)
        return Accepted(job, is_replay=False)

    async def _look(self, job_id: UUID) -> None:
        """Share one look among all callers that wait for the job: fal and the database are asked once at a time."""
        look = self._looks.get(job_id)
        if look is None:
            look = self._looks[job_id] = asyncio.create_task(self._look_once(job_id))
            look.add_done_callback(lambda ended: self._forget(job_id, ended))
        await asyncio.shield(look)

    def _forget(self, job_id: UUID, look: asyncio.Task[None]) -> None:
        del self._looks[job_id]
        if not look.cancelled():
            # If every caller has stopped waiting, nobody else retrieves the error, and asyncio would complain of it.
            look.exception()

    async def _look_once(self, job_id: UUID) -> None:
        try:
            await self._follow(job_id)
        except RetryLater:
            await asyncio.sleep(CANCEL_LOOK_SECONDS)
