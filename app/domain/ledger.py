"""Tokens are whole numbers and only ever move by an appended entry."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

# The largest integer that every JSON reader keeps exactly (RFC 8259, section 6); its negative is the smallest.
BALANCE_TOKENS_MAX = 2**53 - 1
ADJUSTMENT_TOKENS_MAX = 10**12
REASON_LENGTH_MAX = 500
ACTOR_LENGTH_MAX = 255


class EntryKind(StrEnum):
    CREDIT = "CREDIT"
    DEBIT = "DEBIT"
    REFUND = "REFUND"
    REVERSAL = "REVERSAL"
    """A payment was refunded or disputed. It may take the balance below zero."""
    REINSTATEMENT = "REINSTATEMENT"
    """A reversal was withdrawn."""
    ADJUSTMENT = "ADJUSTMENT"
    """The operator's own entry. Its amount has a sign, and it may take the balance below zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """`seq` numbers the entries of an account from 1, without a gap. A kind that only a newer release knows is a plain
    text.
    """

    seq: int
    kind: EntryKind | str
    amount: int
    balance_after: int
    job_id: UUID | None
    payment_event_id: str | None
    created_at: datetime
    payment_source: str | None = None
    adjustment_id: str | None = None
    reason: str | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """Tokens that the operator gives or takes, once for each id."""

    id: str
    external_user_id: UUID
    amount: int
    reason: str
    """In words that the account's holder may read."""
    actor: str
    """Who did it, for the operator alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One place where the books do not add up; `subject` names the row."""

    invariant: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recounted:
    """A counter that was wrong; `subject` is the account or the key that it is of."""

    counter: str
    subject: UUID
    before: int
    after: int
