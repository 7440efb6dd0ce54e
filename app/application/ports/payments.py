from collections.abc import Collection, Sequence
from typing import Protocol

from app.domain.payments import PaymentEvent, RefusedPayment


class Payments(Protocol):
    async def credit(self, event: PaymentEvent) -> bool:
        """Record the event and credit its amount, creating the account where needed. Atomic.

        False: the same event was credited before; nothing is written.
        Raises PaymentEventConflict, BalanceLimitExceeded. Locks the account row.
        """
        ...

    async def record_refusal(self, event: PaymentEvent, reason: str) -> int | None:
        """Keep that the event was refused for good, and return how often it was by now.

        None: the list is full, and this refusal is not on it. Atomic.
        """
        ...


class RefusedPayments(Protocol):
    async def newest(self, *, limit: int, with_resolved: bool = False) -> Sequence[RefusedPayment]:
        """Leave out those that were credited after all."""
        ...

    async def resolve(self, ids: Collection[int]) -> Sequence[int]:
        """Mark refusals as dealt with, and return the ids of those that were not yet."""
        ...
