"""Made-up sets of what a payment provider, a user and a retry send, and what the books come to by the set alone."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeAlias
from uuid import UUID

from app.domain.payments import PaymentEvent
from app.domain.reversals import ReversalEvent

SOURCES = ("webhook", "webhook:stripe")
AMOUNTS = (1, 7, 40, 100)


@dataclass(frozen=True)
class Spending:
    cost_tokens: int


Step: TypeAlias = PaymentEvent | ReversalEvent | Spending


def steps_of(numbers: Random, name: str, user: UUID) -> list[Step]:
    """In any order, with repeats, and with events of which only the first content counts."""
    payments = [
        PaymentEvent(
            source=numbers.choice(SOURCES),
            event_id=f"{name}-p{number}",
            external_user_id=user,
            amount=numbers.choice(AMOUNTS),
        )
        for number in range(numbers.choice((1, 1, 2)))
    ]
    events = [event for payment in payments for event in _events(numbers, payment)]
    steps: list[Step] = [
        *payments,
        *events,
        *(Spending(numbers.choice((1, 5, 30))) for _ in range(numbers.randint(0, 2))),
    ]
    # What is delivered again, what has another content by then, and what another source says.
    steps += [numbers.choice(steps) for _ in range(numbers.randint(0, 2))]
    if events and numbers.random() < 0.4:
        steps.append(_conflicting(numbers, numbers.choice(events)))
    if numbers.random() < 0.1:
        steps.append(replace(payments[0], amount=payments[0].amount + 1))
    if events and numbers.random() < 0.3:
        steps.append(replace(numbers.choice(events), source="webhook:foreign"))
    numbers.shuffle(steps)
    return steps


def _events(numbers: Random, payment: PaymentEvent) -> Iterable[ReversalEvent]:
    ids = [f"{payment.event_id}-r{number}" for number in range(numbers.randint(0, 3))]
    for event_id in ids:
        yield ReversalEvent(
            source=payment.source,
            event_id=event_id,
            payment_event_id=payment.event_id,
            amount=numbers.choice((1, payment.amount, numbers.randint(1, 2 * payment.amount))),
        )
    for number in range(numbers.choice((0, 0, 1, 2))):
        yield ReversalEvent(
            source=payment.source,
            event_id=f"{payment.event_id}-w{number}",
            payment_event_id=payment.event_id,
            withdraws=numbers.choice([*ids, f"{payment.event_id}-unknown", f"{payment.event_id}-w0"]),
        )


def _conflicting(numbers: Random, event: ReversalEvent) -> ReversalEvent:
    if numbers.random() < 0.3:
        return replace(event, payment_event_id=f"{event.payment_event_id}-other")
    if event.amount is None:
        return replace(event, amount=5, withdraws=None)
    return replace(event, amount=event.amount + 1)


def balance_by_formula(payments: Iterable[PaymentEvent], events: Iterable[ReversalEvent], spent_tokens: int) -> int:
    """Paid, less the smaller of each payment and its standing reversals, less what was spent."""
    amounts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    withdrawn: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in events:
        payment = (event.source, event.payment_event_id)
        if event.withdraws is None:
            amounts[payment][event.event_id] = event.amount or 0
        else:
            withdrawn[payment].add(event.withdraws)
    balance = -spent_tokens
    for paid in set(payments):
        name = (paid.source, paid.event_id)
        standing = sum(amount for event_id, amount in amounts[name].items() if event_id not in withdrawn[name])
        balance += paid.amount - min(paid.amount, standing)
    return balance


def contents_by_id(steps: Sequence[Step]) -> dict[tuple[str, str, str], set[Step]]:
    """The sort, the source and the id of each event, and what was said under it."""
    found: dict[tuple[str, str, str], set[Step]] = defaultdict(set)
    for step in steps:
        if not isinstance(step, Spending):
            found[type(step).__name__, step.source, step.event_id].add(step)
    return found
