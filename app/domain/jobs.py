"""A job: its states, what it may become, and how it ends.

    QUEUED ──▶ SUBMITTING ──▶ SUBMITTED ──▶ IN_QUEUE ⇄ IN_PROGRESS ──▶ COMPLETED | FAILED | CANCELED
      ▲            │
      └────────────┘ only where the attempt provably never reached fal

QUEUED becomes SUBMITTED if fal ran an attempt that it had answered with a refusal, and says so in a signed event.

The last three are final: nothing leaves them. The database enforces the same table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from app.domain.job_errors import CANCELED, NO_OUTPUT, QUEUE_TIMEOUT
from app.domain.kinds import GenerationKind
from app.domain.newer_words import known
from app.domain.outputs import Output
from app.domain.pricing import PriceLine
from app.domain.terms import Terms

# Characters. Up to here a fingerprint takes less time than a thread would cost; and no prompt is that long.
LARGE_TEXTS = 64 * 1024


def is_large(parameters: Mapping[str, Any]) -> bool:
    """Whether there are whole pictures in its texts and lists of texts."""
    values = (value if isinstance(value, list) else [value] for value in parameters.values())
    return sum(len(text) for texts in values for text in texts if isinstance(text, str)) > LARGE_TEXTS


class JobStatus(StrEnum):
    QUEUED = "QUEUED"
    SUBMITTING = "SUBMITTING"
    SUBMITTED = "SUBMITTED"
    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


_ENDS = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED})
_AT_FAL = frozenset({JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS})
_HANDED_OVER = frozenset({JobStatus.SUBMITTING, JobStatus.SUBMITTED, JobStatus.IN_QUEUE})

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.SUBMITTING, JobStatus.SUBMITTED, JobStatus.FAILED, JobStatus.CANCELED}),
    JobStatus.SUBMITTING: frozenset({JobStatus.QUEUED, JobStatus.SUBMITTED}) | _AT_FAL | _ENDS,
    JobStatus.SUBMITTED: _AT_FAL | _ENDS,
    JobStatus.IN_QUEUE: frozenset({JobStatus.IN_PROGRESS}) | _ENDS,
    JobStatus.IN_PROGRESS: frozenset({JobStatus.IN_QUEUE}) | _ENDS,
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELED: frozenset(),
}


class PublicStatus(StrEnum):
    """What the user sees. SUBMITTING shows as QUEUED: not provably at fal yet."""

    QUEUED = "QUEUED"
    SUBMITTED = "SUBMITTED"
    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    CANCELING = "CANCELING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class WaitingFor(StrEnum):
    """What a job waits for that neither runs nor has ended."""

    YOUR_LIMIT = "your_limit"
    """The account's own submissions are as many as it may have under way, or fail and pause."""
    FAIR_SHARE = "fair_share"
    """Its turn, or a free place."""
    PROVIDER = "provider"
    PROVIDER_LOCKED = "provider_locked"
    """fal refuses the operator's key or account."""


class BillingOutcome(StrEnum):
    CHARGED = "charged"
    PARTIALLY_CHARGED = "partially_charged"
    NOT_CHARGED = "not_charged"


@dataclass(frozen=True, slots=True, kw_only=True)
class BilledLine:
    line: str
    charged_tokens: int
    refunded_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    charged_tokens: int
    refunded_tokens: int
    outcome: BillingOutcome
    lines: Sequence[BilledLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    id: UUID
    account_id: UUID
    kind: GenerationKind
    model_id: str
    parameters: Mapping[str, Any]
    cost_tokens: int
    outputs_requested: int
    time_limit_seconds: int
    expected_seconds: int
    """How long fal should take for it."""
    terms: Terms
    webhook_url: str | None = None
    """Where its owner wants to hear of its end."""
    file_ids: Sequence[UUID] = ()
    """Of the kept files that its parameters name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is stored. A kind or status that only a newer release knows is a plain text."""

    id: UUID
    account_id: UUID
    kind: GenerationKind | str
    model_id: str
    status: JobStatus | str
    is_final: bool
    cost_tokens: int
    refunded_tokens: int
    fal_request_id: str | None
    result: Mapping[str, Any] | None
    error_code: str | None
    error_message: str | None
    status_reason: str | None
    cancel_requested_at: datetime | None
    created_at: datetime
    updated_at: datetime
    terms: Terms | None = None
    """None: they have a form that only a newer release knows."""
    refunded_lines: Mapping[str, int] | None = None
    """What a completed job gave back, by line. None where the release before settled it."""
    waiting_for: str | None = None
    """What the last try to submit it met; nothing, while it waits for its turn."""
    provider_position: int | None = None
    """How many stood before it in fal's own queue at the last look."""
    fair_tag: int | None = field(default=None, compare=False)
    """The database gives it: a job that was accepted just now does not know it."""
    claimed_at: datetime | None = None
    held_at: datetime | None = None
    outputs: Sequence[Output] = ()
    """Of a completed job."""

    @classmethod
    def accepted(cls, job: NewJob, at: datetime) -> Self:
        """The job as the table's defaults make it when it is written."""
        return cls(
            id=job.id,
            account_id=job.account_id,
            kind=job.kind,
            model_id=job.model_id,
            status=JobStatus.QUEUED,
            is_final=False,
            cost_tokens=job.cost_tokens,
            refunded_tokens=0,
            fal_request_id=None,
            result=None,
            error_code=None,
            error_message=None,
            status_reason=None,
            cancel_requested_at=None,
            created_at=at,
            updated_at=at,
            terms=job.terms,
        )

    @property
    def waits_for(self) -> WaitingFor | str | None:
        """None: it runs, has ended, is held until the operator decides, or is in a status of a newer release."""
        if self.status is JobStatus.QUEUED:
            is_held = self.held_at is not None
            return None if is_held else known(WaitingFor, self.waiting_for or WaitingFor.FAIR_SHARE)
        return WaitingFor.PROVIDER if self.status in _HANDED_OVER else None

    @property
    def price(self) -> Sequence[PriceLine]:
        """Empty if only a newer release can read it."""
        return () if self.terms is None else self.terms.lines

    @property
    def billing(self) -> Billing | None:
        """None until the job is final."""
        if not self.is_final:
            return None
        charged_tokens = self.cost_tokens - self.refunded_tokens
        if charged_tokens == 0:
            outcome = BillingOutcome.NOT_CHARGED
        elif self.refunded_tokens:
            outcome = BillingOutcome.PARTIALLY_CHARGED
        else:
            outcome = BillingOutcome.CHARGED
        return Billing(
            charged_tokens=charged_tokens,
            refunded_tokens=self.refunded_tokens,
            outcome=outcome,
            lines=self._billed_lines(),
        )

    def _billed_lines(self) -> Sequence[BilledLine]:
        """Empty where they do not tell the whole: the release before refunded a job of several lines as if of one."""
        lines = [self._billed(line) for line in self.price]
        return lines if sum(line.refunded_tokens for line in lines) == self.refunded_tokens else ()

    def _billed(self, line: PriceLine) -> BilledLine:
        if self.status is not JobStatus.COMPLETED:
            refunded_tokens = line.tokens
        elif self.refunded_lines is None and len(self.price) == 1:
            # The release before, which settled it, knew no other lines.
            refunded_tokens = self.refunded_tokens
        else:
            refunded_tokens = (self.refunded_lines or {}).get(line.line, 0)
        return BilledLine(line=line.line, charged_tokens=line.tokens - refunded_tokens, refunded_tokens=refunded_tokens)

    @property
    def public_status(self) -> PublicStatus | str:
        if not self.is_final and self.cancel_requested_at is not None:
            return PublicStatus.CANCELING
        if self.status is JobStatus.SUBMITTING:
            return PublicStatus.QUEUED
        return known(PublicStatus, self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ends. A job without a result gives all its tokens back, whatever `refunded_lines` says."""

    status: JobStatus
    result: Mapping[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None
    refunded_lines: Mapping[str, int] | None = None
    """The tokens of each line that a completed job gives back."""

    @property
    def refunded_tokens(self) -> int:
        return sum((self.refunded_lines or {}).values())

    @classmethod
    def completed(cls, result: Mapping[str, Any], refunded_lines: Mapping[str, int] | None = None) -> "Outcome":
        return cls(status=JobStatus.COMPLETED, result=result, refunded_lines=refunded_lines or None)

    @classmethod
    def failed(cls, code: str, reason: str) -> "Outcome":
        return cls(status=JobStatus.FAILED, error_code=code, error_message=f"{reason} Nothing was charged.")

    @classmethod
    def canceled(cls) -> "Outcome":
        return cls(
            status=JobStatus.CANCELED,
            error_code=CANCELED.code,
            error_message=f"{CANCELED.sentence()} Nothing was charged.",
        )


QUEUE_TIMED_OUT = Outcome.failed(QUEUE_TIMEOUT.code, QUEUE_TIMEOUT.sentence())
"""Of a job that has waited for fal for too long."""


def outcome_of_result(result: Mapping[str, Any], terms: Terms) -> Outcome:
    """Charge what was delivered. An output that fal's safety checker blanked, or that is missing, is refunded."""
    refunded_lines = terms.refund_for(result)
    if refunded_lines is None:
        return Outcome.failed(NO_OUTPUT.code, NO_OUTPUT.sentence())
    return Outcome.completed(result, refunded_lines)
