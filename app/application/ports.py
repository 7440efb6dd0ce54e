"""What the use cases need from outside. Money moves only inside the operations that say so.

Every operation that talks to the database may raise DatabaseUnavailable; nothing is half done then. Where it is
CommitUnknown, it is done whole or not at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from app.domain.accounts import Account, StoredKey
from app.domain.catalogue import GenerationKind
from app.domain.generations import IdempotencyKey, Job, JobStatus, NewJob, Outcome
from app.domain.ledger import LedgerEntry, PaymentEvent, Violation


class Accounts(Protocol):
    async def find_by_key(self, digest: bytes) -> Account | None: ...

    async def add_first_key(self, external_user_id: UUID, key: StoredKey) -> bool:
        """Store the key if the user never had one, creating the account where needed.

        False: the user has or had a key; nothing is written. Locks the account row.
        """
        ...

    async def replace_key(self, external_user_id: UUID, key: StoredKey, current: bytes | None) -> bool:
        """Revoke the live key and store the new one.

        `current`: the digest that must be the live key's; None where the operator vouches.
        False: the proof does not hold, or there is no such account. Locks the account row.
        """
        ...

    async def revoke_key(self, external_user_id: UUID) -> bool: ...


class Tokens(Protocol):
    async def credit(self, event: PaymentEvent) -> bool:
        """Record the event and credit its amount, creating the account where needed. Atomic.

        False: the same event was credited before; nothing is written.
        Raises PaymentEventConflict, BalanceLimitExceeded. Locks the account row.
        """
        ...

    async def entries(
        self, external_user_id: UUID, *, limit: int, before_seq: int | None = None
    ) -> Sequence[LedgerEntry]:
        """Newest first; `before_seq` goes on where an earlier page ended."""
        ...

    async def violations(self) -> Sequence[Violation]:
        """Recompute every balance and every job's money from the entries; what does not fit."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """A request that fal accepted. The URLs are fal's own, checked against the allowed hosts."""

    id: str
    status_url: str
    response_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to make the one POST of this attempt."""

    kind: GenerationKind
    model_id: str
    parameters: Mapping[str, Any]
    attempt: int
    time_limit_seconds: int


class LargeInput(Exception):
    """The job has pictures or sounds in its parameters."""


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands, by the database's clock."""

    id: UUID
    kind: GenerationKind
    model_id: str
    status: JobStatus
    attempt_token: UUID | None
    request: ProviderRequest | None
    cancel_requested: bool
    cost_tokens: int
    outputs_requested: int
    seconds_since_claim: float
    seconds_since_cancel_sent: float | None
    is_submit_unknown: bool
    seconds_to_deadline: float
    """Infinite before the claim, negative after the deadline."""
    seconds_since_overdue_noticed: float | None

    @property
    def is_overdue(self) -> bool:
        return self.seconds_to_deadline < 0


@dataclass(frozen=True, slots=True)
class Accepted:
    job: Job
    is_replay: bool


class Jobs(Protocol):
    async def accept(self, job: NewJob, idempotency: IdempotencyKey | None = None) -> Accepted:
        """Debit the cost, store the job, its idempotency key and its queue item. Atomic; committed when it returns.

        Raises InsufficientBalance, IdempotencyKeyReused, IdempotencyKeyInUse; nothing is written then.
        Locks the account row.
        """
        ...

    async def get(self, account_id: UUID, job_id: UUID) -> Job:
        """Raises JobNotFound, also for another account's job."""
        ...

    async def list(self, account_id: UUID, *, limit: int, offset: int = 0, after: UUID | None = None) -> Sequence[Job]:
        """Newest first; `after` goes on where a page ended. Raises JobNotFound where that is no job of the account."""
        ...

    async def find_named(self, account_id: UUID, idempotency: IdempotencyKey) -> Job | None:
        """The job that the key led to. Raises IdempotencyKeyReused where it was for another request."""
        ...

    async def request_cancel(self, account_id: UUID, job_id: UUID, idempotency: IdempotencyKey | None = None) -> Job:
        """Cancel and refund at once what was never sent; note the wish otherwise. Stores the key with it. Atomic.

        Raises JobNotFound, JobFinished, IdempotencyKeyInUse. Locks the job row, then the account row.
        """
        ...

    async def claim(self, job_id: UUID, attempt_token: UUID, *, may_be_large: bool = True) -> Claim | None:
        """QUEUED → SUBMITTING, with a new attempt. None: the job is not waiting to be submitted.

        May be repeated with the same token where the answer was lost. Raises LargeInput where the claim would load
        more than a few kilobytes of input and may not: nothing is claimed then.
        """
        ...

    async def record_waiting(self, job_id: UUID, reason: str) -> None:
        """Say in a QUEUED job why it is not submitted yet."""
        ...

    async def release(self, job_id: UUID, attempt_token: UUID, reason: str) -> bool:
        """SUBMITTING → QUEUED, for an attempt that provably never reached fal."""
        ...

    async def record_submission(
        self, job_id: UUID, attempt_token: UUID, request: ProviderRequest, *, look_after_seconds: float = 0
    ) -> bool:
        """SUBMITTING → SUBMITTED, and queue the first look at it, for so much later.

        False: the attempt is not ours any more, or another job has this request; nothing is written.
        Also QUEUED → SUBMITTED, where the attempt was given back and is at fal all the same.
        """
        ...

    async def record_submit_unknown(self, job_id: UUID, attempt_token: UUID, reason: str) -> bool:
        """The POST left and its outcome is not known. The tokens stay debited; queue a later look."""
        ...

    async def count_waiting_looks(self) -> int:
        """How many jobs are at fal, and looked at from time to time."""
        ...

    async def load(self, job_id: UUID) -> JobState | None: ...

    async def load_attempt(self, attempt_token: UUID) -> JobState | None:
        """The job whose current attempt has this token."""
        ...

    async def look_now(self, job_id: UUID) -> None:
        """Bring the next look at the job forward, where one waits."""
        ...

    async def record_late_result(self, job_id: UUID, result: Mapping[str, Any]) -> None:
        """Keep for the operator what fal made of a job that was given up. Never charged, never shown."""
        ...

    async def record_progress(self, job_id: UUID, status: JobStatus) -> bool: ...

    async def record_cancel_sent(self, job_id: UUID) -> None: ...

    async def record_overdue(self, job_id: UUID) -> None:
        """The first look after the deadline: fal's period of grace begins."""
        ...

    async def settle(self, job_id: UUID, outcome: Outcome) -> bool:
        """The one way into a final status, with the refund that belongs to it. Atomic.

        False: the job was final already; nothing is written. Locks the job row, then the account row.
        """
        ...

    async def newest(
        self, *, unfinished_only: bool = False, unknown_only: bool = False, late_only: bool = False, limit: int
    ) -> Sequence[Job]:
        """Of all accounts, for the operator.

        `unknown_only`: it is, or never became, known whether fal got them. `late_only`: fal delivered after the end.
        """
        ...

    async def inspect(self, job_id: UUID) -> Mapping[str, Any]:
        """Everything stored of the job, by column, for the operator. Raises JobNotFound."""
        ...

    async def forget_idempotency_keys(self) -> int:
        """Drop those of final jobs that are older than a day; how many."""
        ...

    async def requeue_lost(self, job_id: UUID | None = None) -> Sequence[UUID]:
        """Give every unfinished job (or this one) without a queue item a new one; which they were."""
        ...


@dataclass(frozen=True, slots=True)
class InQueue:
    position: int | None


@dataclass(frozen=True, slots=True)
class InProgress:
    pass


@dataclass(frozen=True, slots=True)
class Succeeded:
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """fal's verdict that there will be no result. `reason` is our sentence, never fal's words."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """fal confirms that the request was canceled."""


Observation = InQueue | InProgress | Succeeded | Rejected | Stopped


class ProviderError(Exception):
    """Says something about the conversation with fal, never about the job."""


class ProviderUnavailable(ProviderError):
    """No usable answer. Asking again later is safe."""


class NotSubmitted(ProviderError):
    """The attempt provably never entered fal's queue: another one is safe."""

    def __init__(
        self, reason: str, retry_after_seconds: float | None = None, *, is_operators_matter: bool = False
    ) -> None:
        """`is_operators_matter`: the key or the account is refused; no other submission will fare better."""
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds
        self.is_operators_matter = is_operators_matter


class SubmitRefused(ProviderError):
    """fal refused this input for good; nothing was queued."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class SubmitOutcomeUnknown(ProviderError):
    """Bytes may have left and no usable answer came: fal may or may not run it."""


class Provider(Protocol):
    async def submit(
        self, model_id: str, kind: GenerationKind, parameters: Mapping[str, Any], *, webhook_url: str | None = None
    ) -> ProviderRequest:
        """Exactly one POST. Raises NotSubmitted, SubmitRefused, SubmitOutcomeUnknown."""
        ...

    def request_of(self, model_id: str, request_id: str) -> ProviderRequest:
        """The request of which only the id is known."""
        ...

    async def observe(self, request: ProviderRequest, kind: GenerationKind) -> Observation:
        """Ask for the status and, at the end, the result. Raises ProviderUnavailable."""
        ...

    async def cancel(self, request: ProviderRequest) -> None:
        """Ask fal to stop; the end is seen by `observe`. Raises ProviderUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """An incoming webhook that fal signed. `payload` is the result; None where only the queue can tell the end."""

    request_id: str
    payload: Mapping[str, Any] | None


class ProviderEvents(Protocol):
    async def verify(self, headers: Mapping[str, str], body: bytes) -> ProviderEvent:
        """Header names are lower case. Raises InvalidProviderEvent, ProviderKeysUnavailable."""
        ...

    def observation(self, event: ProviderEvent, kind: GenerationKind) -> Observation | None: ...


@dataclass(frozen=True, slots=True)
class LostSubmission:
    """A job whose POST left, or may have left, and what is known of it."""

    job_id: UUID
    model_id: str
    parameters: Mapping[str, Any]
    attempt_token: UUID
    claimed_at: datetime


class LostSubmissions(Protocol):
    async def load(self, job_id: UUID) -> LostSubmission | None:
        """None: fal's request is known, or nothing was lost."""
        ...

    async def known(self, request_ids: Sequence[str]) -> set[str]:
        """Those that belong to a job already."""
        ...

    async def has_rival(self, job_id: UUID, within: timedelta) -> bool:
        """Whether another job without a request has the same input, and was claimed at about the same time."""
        ...


class RequestHistory(Protocol):
    """What fal says of the requests of our account, whoever sent them."""

    async def find(
        self, model_id: str, parameters: Mapping[str, Any], *, sent_from: datetime, sent_until: datetime
    ) -> Sequence[str]:
        """The ids of all requests of the model with this input, sent within the window. fal may have added defaults.

        Raises ProviderUnavailable where fal does not answer, or not to the end.
        """
        ...


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    detail: str


class HealthChecks(Protocol):
    async def run(self) -> Sequence[Check]: ...
