"""Tokens are whole numbers and only ever move by an appended entry."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

# The largest integer that every JSON reader keeps exactly (RFC 8259, section 6).
BALANCE_TOKENS_MAX = 2**53 - 1


class EntryKind(StrEnum):
    CREDIT = "CREDIT"
    DEBIT = "DEBIT"
    REFUND = "REFUND"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One place where the books do not add up; `subject` names the row."""

    invariant: str
    subject: str
