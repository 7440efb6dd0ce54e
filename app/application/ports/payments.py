from typing import Protocol

from app.domain.payments import PaymentEvent


class Payments(Protocol):
    async def credit(self, event: PaymentEvent) -> bool:
        """Record the event and credit its amount, creating the account where needed. Atomic.

        False: the same event was credited before; nothing is written.
        Raises PaymentEventConflict, BalanceLimitExceeded. Locks the account row.
        """
        ...
