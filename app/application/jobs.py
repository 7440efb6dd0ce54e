import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.application.execution.follow import FollowJob
from app.application.execution.steps import RetryLater
from app.application.ports.jobs import JobAcceptance, JobCancellation
from app.domain.accounts import Account
from app.domain.catalogue import MODEL_IDS, GenerationKind, PriceList
from app.domain.errors import InsufficientBalance
from app.domain.jobs import NewJob
from app.domain.orders import Accepted, IdempotencyKey

log = structlog.get_logger(__name__)

SAFETY_CHECKER_ON: Mapping[str, Any] = {"enable_safety_checker": True}
# Characters. Up to here a fingerprint takes less time than a thread would cost.
LARGE_PARAMETERS = 64 * 1024
CANCEL_WAIT_SECONDS = 3.0
CANCEL_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long a job may take from its submission to its end before it is given up and refunded."""

    image_seconds: int = 20 * 60
    video_seconds: int = 60 * 60

    def seconds_for(self, kind: GenerationKind) -> int:
        return self.video_seconds if kind.is_video else self.image_seconds


@dataclass(frozen=True, slots=True)
class StartJob:
    """Price the job, debit the tokens, store and queue it: all or nothing.

    The same idempotency key with the same request leads to the same job, and debits once.
    Raises InsufficientBalance, IdempotencyKeyReused, IdempotencyKeyInUse.
    """

    _jobs: JobAcceptance
    _prices: PriceList
    _time_limits: TimeLimits
    _is_safety_checker_required: bool = False
    """fal is then told in so many words to filter its results, whatever its default is."""

    def check_balance(self, account: Account) -> None:
        """Raises InsufficientBalance if the balance is below the cheapest price: whatever it asks for is refused."""
        if account.balance_tokens < self._prices.cheapest_tokens:
            raise InsufficientBalance

    async def __call__(
        self,
        account_id: UUID,
        kind: GenerationKind,
        parameters: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
    ) -> Accepted:
        terms = self._prices.terms(kind, parameters)
        job = NewJob(
            id=uuid7(),
            account_id=account_id,
            kind=kind,
            model_id=MODEL_IDS[kind],
            # Not what the fingerprint is of: the operator may change it between a request and its repeat.
            parameters={**parameters, **SAFETY_CHECKER_ON} if self._is_safety_checker_required else parameters,
            cost_tokens=terms.cost_tokens,
            outputs_requested=terms.outputs_max,
            time_limit_seconds=self._time_limits.seconds_for(kind),
            terms=terms,
        )
        fingerprint = None if idempotency_key is None else await _fingerprint_of_job(kind, parameters)
        accepted = await self._jobs.accept(job, _idempotency(idempotency_key, fingerprint))
        log.info(
            "generation_replayed" if accepted.is_replay else "generation_accepted",
            job_id=str(accepted.job.id),
            kind=kind.value,
            cost_tokens=accepted.job.cost_tokens,
        )
        return accepted


async def _fingerprint_of_job(kind: GenerationKind, parameters: Mapping[str, Any]) -> bytes:
    """Where there are whole pictures in the parameters, in a thread: 14 MB take 50 ms."""
    if _size(parameters) <= LARGE_PARAMETERS:
        return fingerprint_of(kind, parameters)
    return await asyncio.to_thread(fingerprint_of, kind, parameters)


def _size(parameters: Mapping[str, Any]) -> int:
    """The number of characters in texts and lists of texts."""
    values = (value if isinstance(value, list) else [value] for value in parameters.values())
    return sum(len(text) for texts in values for text in texts if isinstance(text, str))


def fingerprint_of(kind: GenerationKind, parameters: Mapping[str, Any]) -> bytes:
    return _fingerprint([kind.value, parameters])


def _fingerprint(asked_for: Sequence[Any]) -> bytes:
    return hashlib.sha256(json.dumps(asked_for, sort_keys=True).encode()).digest()


def _idempotency(key: str | None, fingerprint: bytes | None) -> IdempotencyKey | None:
    return None if key is None or fingerprint is None else IdempotencyKey(key, fingerprint)


class CancelJob:
    """Cancel at once what was never sent; otherwise ask fal, and wait a moment for its confirmation.

    The refund comes with the confirmation, never before: a run that finishes anyway is delivered and charged.
    The same idempotency key for the same job is one wish, also if the first request with it has ended the job.
    Raises JobNotFound, JobFinished, IdempotencyKeyReused, IdempotencyKeyInUse.
    """

    def __init__(self, jobs: JobCancellation, follow: FollowJob) -> None:
        self._jobs = jobs
        self._follow = follow
        self._looks: dict[UUID, asyncio.Task[None]] = {}

    async def __call__(self, account_id: UUID, job_id: UUID, *, idempotency_key: str | None = None) -> Accepted:
        idempotency = _idempotency(idempotency_key, _fingerprint(["CANCEL", str(job_id)]))
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
