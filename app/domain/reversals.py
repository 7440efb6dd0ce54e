"""Payments that were refunded or disputed, and what takes such an event back.

What is reversed of a payment is the smaller of its amount and the sum of its standing reversals, whatever the order in
which the events come. The database books it with each event and each credit, because it has to be right beside
processes of the release before, too.
"""

from dataclasses import dataclass
from datetime import datetime

from app.domain.payments import EventName


@dataclass(frozen=True, slots=True, kw_only=True)
class ReversalEvent:
    """A reversal, with an `amount`, or the withdrawal of the one that `withdraws` names, of the same payment.

    Its id names it for ever, apart from the ids of payments. The source is that of the payment.
    """

    source: str
    event_id: str
    payment_event_id: str
    amount: int | None = None
    withdraws: str | None = None

    @property
    def payment(self) -> EventName:
        return EventName(self.source, self.payment_event_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reversed:
    """What is reversed of the payment by now, and what its account has."""

    reversed_tokens: int
    balance_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingReversal:
    """One whose payment is not known, or a withdrawal whose reversal is not."""

    event: ReversalEvent
    received_at: datetime
