from collections.abc import Sequence
from typing import Protocol

from app.domain.reversals import PendingReversal, ReversalEvent, Reversed


class Reversals(Protocol):
    async def record(self, event: ReversalEvent) -> Reversed | None:
        """Record the event once, and book what it changes. Atomic.

        None: it waits for its payment, or as a withdrawal for its reversal, and is booked with that.
        Raises ReversalEventConflict, BalanceLimitExceeded. Locks the account row, or the payment's name.
        """
        ...


class PendingReversals(Protocol):
    async def newest(self, *, limit: int) -> Sequence[PendingReversal]:
        """Those that wait, the newest first."""
        ...
