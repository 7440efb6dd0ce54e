"""Whatever a provider sends in whatever order, between whatever a user spends: the books are a function of the set.

- REVERSAL_SETS: how many sets are made up (100,000 for a long run);
- REVERSAL_SEED: other ones, a whole number; a failure says which set it was.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import InsufficientBalance, PaymentEventConflict, ReversalEventConflict
from app.domain.ledger import Violation
from app.domain.payments import PaymentEvent
from app.domain.reversals import ReversalEvent
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.reversals import PostgresReversals
from tests.builders import Connection, Customer, PostgresJobs, connect, database_copy, new_job
from tests.property.reversal_sets import Spending, Step, balance_by_formula, contents_by_id, steps_of
from tests.torture_report import report

SETS = int(os.environ.get("REVERSAL_SETS", "300"))
SEED = int(os.environ.get("REVERSAL_SEED", "1"))
SETS_AT_ONCE = 48
SETS_OF_A_CHUNK = 960
CONFLICTS = (PaymentEventConflict, ReversalEventConflict, InsufficientBalance)
ADD_ACCOUNT = "INSERT INTO accounts (id, external_user_id) VALUES ($1, $1)"
BALANCES = "SELECT external_user_id, balance_tokens FROM accounts WHERE external_user_id = ANY($1)"


class Sender:
    """Two processes, as far as the database can tell: each sends a part."""

    def __init__(self, engines: list[AsyncEngine]) -> None:
        self.payments = [PostgresPayments(engine) for engine in engines]
        self.reversals = [PostgresReversals(engine) for engine in engines]
        self.jobs = [PostgresJobs(engine) for engine in engines]

    async def send(self, process: int, customer: Customer, step: Step) -> bool:
        """False: refused, so that it is outside of the set."""
        try:
            if isinstance(step, PaymentEvent):
                await self.payments[process].credit(step)
            elif isinstance(step, ReversalEvent):
                await self.reversals[process].record(step)
            else:
                await self.jobs[process].accept(new_job(customer, cost_tokens=step.cost_tokens))
        except CONFLICTS:
            return False
        return True


async def balance_of_set(sender: Sender, number: int, customer: Customer, held: Counter[str]) -> int:
    """What the set comes to, once all of it was sent."""
    numbers = Random(f"{SEED}/{number}")
    steps = steps_of(numbers, f"{SEED}-{number}", customer.external_user_id)
    processes = [numbers.randrange(2) for _ in steps]
    sending = [sender.send(process, customer, step) for process, step in zip(processes, steps, strict=True)]
    if numbers.random() < 0.5:
        taken = await asyncio.gather(*sending)
    else:
        taken = [await one for one in sending]
    counted = [step for step, is_taken in zip(steps, taken, strict=True) if is_taken]
    for name, contents in contents_by_id(steps).items():
        assert len(contents & set(counted)) == 1, f"set {number}: of {name} not one content counted"
    events = {step for step in counted if isinstance(step, ReversalEvent)}
    held += Counter(
        {
            "sets": 1,
            "events": len(steps),
            "refused": len(steps) - len(counted),
            "reversal_events": len(events),
        }
    )
    spent = sum(step.cost_tokens for step in counted if isinstance(step, Spending))
    balance = balance_by_formula({step for step in counted if isinstance(step, PaymentEvent)}, events, spent)
    held["debts"] += balance < 0
    return balance


async def check_chunk(sender: Sender, sql: Connection, first: int, size: int, held: Counter[str]) -> None:
    customers = [Customer(user, user, "") for user in (uuid4() for _ in range(size))]
    await sql.executemany(ADD_ACCOUNT, [(customer.account_id,) for customer in customers])
    expected: dict[UUID, int] = {}
    waiting = iter(enumerate(customers, first))

    async def one_of_many() -> None:
        for number, customer in waiting:
            expected[customer.external_user_id] = await balance_of_set(sender, number, customer, held)

    await asyncio.gather(*(one_of_many() for _ in range(SETS_AT_ONCE)))
    found = {row[0]: row[1] for row in await sql.fetch(BALANCES, list(expected))}
    wrong = [
        first + place
        for place, one in enumerate(customers)
        if found[one.external_user_id] != expected[one.external_user_id]
    ]
    assert not wrong, f"sets that came to another balance: {wrong}"


async def check_all(database: str, held: Counter[str]) -> Sequence[Violation]:
    async with open_engine(database) as one, open_engine(database) as other, connect(database) as sql:
        sender = Sender([one, other])
        for first in range(0, SETS, SETS_OF_A_CHUNK):
            await check_chunk(sender, sql, first, min(SETS_OF_A_CHUNK, SETS - first), held)
        return await PostgresLedger(one).violations()


@pytest.fixture
def database_of_all(postgres_dsn: str, template_database: str) -> Iterator[str]:
    with database_copy(postgres_dsn, template_database) as database:
        yield database


@pytest.mark.timeout(max(300, SETS // 10))
def test_the_books_are_a_function_of_the_set(database_of_all: str) -> None:
    began, held = time.monotonic(), Counter[str]()
    try:
        violations = asyncio.run(check_all(database_of_all, held))
    finally:
        report("reversals", {**held, "seconds": round(time.monotonic() - began, 1), "seed": SEED})
    assert violations == []
    assert held["sets"] == SETS
    assert held["debts"], held
    assert held["refused"], held
