"""Payments that top balances up, and the rule by which they are credited."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from app.domain.errors import BalanceLimitExceeded, PaymentEventConflict
from app.domain.ledger import BALANCE_TOKENS_MAX

TOPUP_TOKENS_MAX = 10**12
EVENT_ID_LENGTH_MAX = 255

WEBHOOK_SOURCE = "webhook"
# Releases up to 0.1 wrote it where an Idempotency-Key named the payment. Both headers have one name space now, so that
# a payment of this source and one of WEBHOOK_SOURCE with the same id are the same.
KEY_SOURCE = "idempotency-key"
UNIDENTIFIED_SOURCE = "unidentified"
SOURCE_PATTERN = "[a-z0-9_-]{1,32}"


def current_source(stored: str) -> str:
    return WEBHOOK_SOURCE if stored == KEY_SOURCE else stored


def source_of(name: str) -> str:
    """How the source of this name is stored: apart from our own ones, whatever its name is."""
    return f"{WEBHOOK_SOURCE}:{name}"


@dataclass(frozen=True, slots=True)
class EventName:
    """What names an event for ever."""

    source: str
    event_id: str

    @property
    def as_stored(self) -> Sequence["EventName"]:
        """The names under which the event may have been recorded."""
        return (self, replace(self, source=KEY_SOURCE)) if self.source == WEBHOOK_SOURCE else (self,)


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
    events: Sequence[PaymentEvent], *, known: Collection[PaymentEvent], balances_tokens: Mapping[UUID, int]
) -> Sequence[CreditDecision]:
    """Decide each event in its turn. `balances_tokens` is by user; a user who is not in it has none yet."""
    contents: dict[EventName, list[PaymentEvent]] = defaultdict(list)
    for event in known:
        # Before the two headers had one name space, one id may have named a payment under each of them.
        contents[event.name].append(event)
    balances_tokens = dict(balances_tokens)
    decisions: list[CreditDecision] = []
    for event in events:
        recorded = contents[event.name]
        balance_tokens = balances_tokens.get(event.external_user_id, 0) + event.amount
        if recorded:
            decisions.append(False if event in recorded else PaymentEventConflict())
        elif balance_tokens > BALANCE_TOKENS_MAX:
            decisions.append(BalanceLimitExceeded())
        else:
            recorded.append(event)
            balances_tokens[event.external_user_id] = balance_tokens
            decisions.append(True)
    return decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPayment:
    """A payment that was refused for good. Somebody has paid, so a person has to look."""

    id: int
    source: str
    event_id: str
    external_user_id: UUID
    amount: int
    reason: str
    deliveries: int
    first_seen_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None
