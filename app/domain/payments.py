"""Payments that top balances up."""

from dataclasses import dataclass
from uuid import UUID

TOPUP_TOKENS_MAX = 10**12
EVENT_ID_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """An incoming top-up. `source` and `event_id` together name it for ever."""

    source: str
    event_id: str
    external_user_id: UUID
    amount: int
