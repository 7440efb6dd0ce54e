from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from uuid import UUID

from app.domain.ledger import Adjustment, LedgerEntry, Recounted, Violation


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

    def recount(self) -> AsyncIterator[Recounted]:
        """Count those counters anew that `violations` names, and tell each that was changed. Moves no token.

        Each account is a transaction of its own, which locks the account and then the windows of its keys.
        """
        ...


class Adjustments(Protocol):
    async def adjust(self, adjustment: Adjustment) -> int:
        """Book it once, whatever that makes of the balance, and return the balance. Atomic.

        Raises AccountNotFound, AdjustmentConflict, BalanceLimitExceeded. Locks the account row.
        """
        ...
