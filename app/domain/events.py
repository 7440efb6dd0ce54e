"""What happened, in an order that never changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.domain.errors import DomainError
from app.domain.jobs import Job, JobStatus
from app.domain.ledger import LedgerEntry

SEQ_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""


class EventsForgotten(DomainError):
    code = "events_forgotten"
    default_detail = (
        "Some of the events after this one are not kept any more. Leave `after` out to begin with the oldest."
    )


class EventType(StrEnum):
    GENERATION_SUBMITTED = "generation.submitted"
    """The job was accepted and paid."""
    GENERATION_STARTED = "generation.started"
    """fal works on it, for the first time that this was seen."""
    GENERATION_COMPLETED = "generation.completed"
    GENERATION_FAILED = "generation.failed"
    GENERATION_CANCELED = "generation.canceled"
    OUTPUT_STORED = "output.stored"
    """Our copy of an output is there: its link no longer leads to fal."""
    BALANCE_CREDITED = "balance.credited"
    BALANCE_REVERSED = "balance.reversed"
    BALANCE_LOW = "balance.low"
    BALANCE_RECOVERED = "balance.recovered"
    KEY_BUDGET_EXCEEDED = "key.budget_exceeded"
    """An order was refused for the budget of its key: once for each key and period."""
    WEBHOOK_TEST = "webhook.test"
    """The account asked for it, and it is delivered to the endpoint that it names alone."""


_UNFINISHED: Mapping[str, JobStatus] = {
    EventType.GENERATION_SUBMITTED: JobStatus.QUEUED,
    EventType.GENERATION_STARTED: JobStatus.IN_PROGRESS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`seq` rises over all accounts, with gaps. A type that only a newer release knows is a plain text."""

    seq: int
    type: EventType | str
    account_id: UUID
    created_at: datetime
    facts: Mapping[str, Any]
    job: Job | None = None
    """As it was then."""
    entry: LedgerEntry | None = None
    """What moved the balance."""

    @property
    def id(self) -> str:
        return f"evt_{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    events: Sequence[Event]
    next_after: int
    """From where to go on."""
    has_more: bool


def job_as_it_was(job: Job, event_type: str, at: datetime, facts: Mapping[str, Any]) -> Job:
    """As the event tells of it, whatever it has become since. Nothing of a final job changes any more."""
    status = _UNFINISHED.get(event_type)
    if status is None:
        return job
    return replace(
        job,
        status=status,
        is_final=False,
        refunded_tokens=0,
        fal_request_id=facts.get("fal_request_id"),
        result=None,
        outputs=(),
        error_code=None,
        error_message=None,
        status_reason=None,
        cancel_requested_at=None,
        updated_at=at,
        refunded_lines=None,
        waiting_for=None,
        provider_position=None,
    )
