"""Payments that top balances up, and the rule by which they are credited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from app.domain.errors import BalanceLimitExceeded, PaymentEventConflict
from app.domain.ledger import BALANCE_TOKENS_MAX

TOPUP_TOKENS_MAX = 10**12
EVENT_ID_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class EventName:
    """What names an event for ever."""

    source: str
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent:
    """An incoming top-up."""

    source: str
    event_id: str
    external_user_id: UUID
    amount: int

    @property
    def name(self) -> EventName:
        return EventName(self.source, self.event_id)


CreditDecision: TypeAlias = bool | PaymentEventConflict | BalanceLimitExceeded
"""Whether this delivery credits: False for an event that was credited before."""


def decide_credits(
    events: Sequence[PaymentEvent], *, known: Mapping[EventName, PaymentEvent], balances_tokens: Mapping[UUID, int]
) -> Sequence[CreditDecision]:
    """Decide each event in its turn. `balances_tokens` is by user; a user who is not in it has none yet."""
    known, balances_tokens = dict(known), dict(balances_tokens)
    decisions: list[CreditDecision] = []
    for event in events:
        first = known.get(event.name)
        balance_tokens = balances_tokens.get(event.external_user_id, 0) + event.amount
        if first is not None:
            decisions.append(PaymentEventConflict() if first != event else False)
        elif balance_tokens > BALANCE_TOKENS_MAX:
            decisions.append(BalanceLimitExceeded())
        else:
            known[event.name] = event
            balances_tokens[event.external_user_id] = balance_tokens
            decisions.append(True)
    return decisions
