from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from app.domain.ledger import Adjustment, LedgerEntry, Violation


class LedgerReader(Protocol):
    async def entries(
        self, external_user_id: UUID, *, limit: int, before_seq: int | None = None
    ) -> Sequence[LedgerEntry]:
        """Newest first; `before_seq` goes on where an earlier page ended."""
        ...


class LedgerRecords(LedgerReader, Protocol):
    """What the operator may ask besides."""

    async def violations(self) -> Sequence[Violation]:
        """Recompute every balance and every job's money from the entries, and return what does not fit."""
        ...


class Adjustments(Protocol):
    async def adjust(self, adjustment: Adjustment) -> int:
        """Book it once, whatever that makes of the balance, and return the balance. Atomic.

        Raises AccountNotFound, AdjustmentConflict, BalanceLimitExceeded. Locks the account row.
        """
        ...
