"""A payment provider that delivers each event fifty times, fifty deliveries at once."""

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from torture.callers import SECRET, Book, Callers, calling
from torture.evidence import ledger_violations
from torture.fleet import running_fleet
from torture.report import Check, Outcome, Plan

EVENTS = 200
DELIVERIES_EACH = 50
AT_ONCE = 50
EVENTS_EACH_USER = 2

# The service itself gives tokens to a demonstration user at its start.
CREDITS = "SELECT payment_event_id, amount FROM ledger_entries WHERE kind = 'CREDIT' AND payment_source = 'webhook'"


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    user_id: str
    amount: int


async def topups(plan: Plan) -> Outcome:
    rng = random.Random(f"{plan.seed}/topups")
    events = events_of(rng, plan.count(EVENTS))
    directory = plan.directory / "topups"
    directory.mkdir()
    began = time.monotonic()
    async with running_fleet(directory, workers=0) as fleet, calling(fleet.url, connections=AT_ONCE) as callers:
        await _deliver(callers, deliveries_of(rng, events))
        delivered = callers.answers.total()
        counts = {"events": len(events), "deliveries": delivered, "answers": dict(callers.answers)}
        balances = {user_id: await _balance(callers, user_id) for user_id in {event.user_id for event in events}}
        connection = await asyncpg.connect(fleet.postgres.dsn)
        try:
            credited = [tuple(row) for row in await connection.fetch(CREDITS)]
        finally:
            await connection.close()
        checks = [
            Check("every delivery is answered 200", delivered, callers.not_served),
            credited_once(events, credited),
            balances_are_right(events, balances),
            Check("the ledger has no violation", len(credited), await ledger_violations(fleet.postgres.dsn)),
        ]
    return Outcome("topups", checks, counts, seconds=time.monotonic() - began)


def events_of(rng: random.Random, count: int) -> list[Event]:
    """The users are new: their accounts come into being with a first event, which races the second one."""
    users = [str(uuid.uuid4()) for _ in range(max(1, count // EVENTS_EACH_USER))]
    return [Event(f"event-{number}", users[number % len(users)], rng.randint(1, 1000)) for number in range(count)]


def deliveries_of(rng: random.Random, events: Sequence[Event]) -> list[Event]:
    """Half of them in a row, so that first deliveries meet; the rest in any order, as retries come."""
    first = [event for event in events for _ in range(DELIVERIES_EACH // 2)]
    later = [event for event in events for _ in range(DELIVERIES_EACH - DELIVERIES_EACH // 2)]
    rng.shuffle(later)
    return first + later


async def _deliver(callers: Callers, deliveries: Sequence[Event]) -> None:
    waiting = iter(deliveries)

    async def one_of_many() -> None:
        for event in waiting:
            body = {"external_user_id": event.user_id, "amount": event.amount}
            headers = SECRET | {"X-Event-Id": event.id}
            await callers.ask("POST", "/webhook/topup", frozenset({200}), headers=headers, json=body)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(one_of_many())


async def _balance(callers: Callers, user_id: str) -> int:
    body = {"external_user_id": user_id}
    answer = await callers.insist("POST", "/auth", frozenset({201}), headers={}, json=body)
    return await callers.balance_tokens(Book(user_id, answer.body["api_key"]))


def credited_once(events: Sequence[Event], credited: Sequence[tuple[str, int]]) -> Check:
    expected, found = sorted((event.id, event.amount) for event in events), sorted(credited)
    violations = [] if found == expected else [f"credited were {len(found)}, different: {set(found) ^ set(expected)}"]
    return Check("every event is credited once", len(found), violations)


def balances_are_right(events: Sequence[Event], balances: dict[str, int]) -> Check:
    violations = []
    for user_id, balance in balances.items():
        expected = sum(event.amount for event in events if event.user_id == user_id)
        if balance != expected:
            violations.append(f"{user_id} has {balance}, paid {expected}")
    return Check("a balance is what was paid", len(balances), violations)
