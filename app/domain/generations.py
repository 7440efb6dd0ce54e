"""A generation job: its states, what it may become, and how it ends.

    QUEUED ──▶ SUBMITTING ──▶ SUBMITTED ──▶ IN_QUEUE ⇄ IN_PROGRESS ──▶ COMPLETED | FAILED | CANCELED
      ▲            │
      └────────────┘ only where the attempt provably never reached fal

The last three are final: nothing leaves them. The database enforces the same table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.domain.catalogue import GenerationKind


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

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.SUBMITTING, JobStatus.FAILED, JobStatus.CANCELED}),
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


@dataclass(frozen=True, slots=True)
class NewJob:
    id: UUID
    account_id: UUID
    kind: GenerationKind
    model_id: str
    parameters: Mapping[str, Any]
    cost_tokens: int
    time_limit_seconds: int


@dataclass(frozen=True, slots=True)
class Job:
    id: UUID
    kind: GenerationKind
    model_id: str
    status: JobStatus
    cost_tokens: int
    refunded_tokens: int
    fal_request_id: str | None
    result: Mapping[str, Any] | None
    error_code: str | None
    error_message: str | None
    cancel_requested_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def public_status(self) -> PublicStatus:
        if not self.status.is_final and self.cancel_requested_at is not None:
            return PublicStatus.CANCELING
        if self.status is JobStatus.SUBMITTING:
            return PublicStatus.QUEUED
        return PublicStatus(self.status.value)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends. A job without a result gives all its tokens back."""

    status: JobStatus
    result: Mapping[str, Any] | None = None
    error_code: str | None = None
    error_message: str | None = None

    @classmethod
    def completed(cls, result: Mapping[str, Any]) -> "Outcome":
        return cls(JobStatus.COMPLETED, result=result)

    @classmethod
    def failed(cls, code: str, reason: str) -> "Outcome":
        return cls(JobStatus.FAILED, error_code=code, error_message=f"{reason} Nothing was charged.")

    @classmethod
    def canceled(cls) -> "Outcome":
        return cls(
            JobStatus.CANCELED,
            error_code="canceled",
            error_message="The job was canceled. Nothing was charged.",
        )
