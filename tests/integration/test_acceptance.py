"""Many orders in one transaction: each is decided at its turn, and a lost answer to the COMMIT is cleared up by id."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.fault_points import reach
from app.application.keys import new_key
from app.domain.errors import (
    BalanceLimitExceeded,
    CommitUnknown,
    IdempotencyKeyReused,
    InsufficientBalance,
    PaymentEventConflict,
)
from app.domain.jobs import JobStatus
from app.domain.keys import digest_of, stored_form
from app.domain.ledger import BALANCE_TOKENS_MAX
from app.domain.orders import Accepted, IdempotencyKey
from app.domain.payments import PaymentEvent
from app.infrastructure.postgres import database as database_module
from app.infrastructure.postgres import payments
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.database import DriverConnection, driver_connection
from app.infrastructure.postgres.jobs import acceptance
from app.infrastructure.postgres.jobs.acceptance import accept_all
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments, credit_all
from tests.builders import (
    Connection,
    Customer,
    accept_job,
    balance_of,
    blocked,
    jobs_of,
    new_job,
    open_account,
    open_crowd,
    payment,
    queue_items,
)

REACH = f"{database_module.__name__}.reach"


def order(customer: Customer, cost_tokens: int, key: str | None = None, fingerprint: str = "a") -> StorableOrder:
    named = None if key is None else IdempotencyKey(key, fingerprint.encode().ljust(32))
    return StorableOrder.of(new_job(customer, cost_tokens=cost_tokens), named)


async def accepted(engine: AsyncEngine, orders: Sequence[StorableOrder]) -> list[Any]:
    """True, the error's type, or the place of the order whose job is replayed; all of one batch."""
    batcher: Batcher[StorableOrder, Accepted] = Batcher(engine, accept_all)
    decisions = await asyncio.gather(*(batcher(order) for order in orders), return_exceptions=True)
    places = {order.order.job.id: place for place, order in enumerate(orders)}
    return [
        type(decision)
        if isinstance(decision, BaseException)
        else places[decision.job.id]
        if decision.is_replay
        else decision.job.id == order.order.job.id
        for order, decision in zip(orders, decisions, strict=True)
    ]


async def credited(engine: AsyncEngine, events: Sequence[PaymentEvent]) -> list[Any]:
    """In one transaction."""
    async with driver_connection(engine) as driver:
        return list(await credit_all(driver, events))


async def test_cheap_orders_behind_one_that_does_not_fit_are_accepted(engine: AsyncEngine, sql: Connection) -> None:
    rich, poor = await open_account(engine, 1000), await open_account(engine, 10)
    orders = [order(poor, 4), order(poor, 7), order(rich, 900), order(poor, 6), order(rich, 200), order(poor, 1)]

    decisions = await accepted(engine, orders)

    assert decisions == [True, InsufficientBalance, True, True, InsufficientBalance, InsufficientBalance]
    assert [await balance_of(engine, customer) for customer in (rich, poor)] == [100, 0]
    assert {job_id for _, job_id in await queue_items(sql)} == {orders[place].order.job.id for place in (0, 2, 3)}
    assert await PostgresLedger(engine).violations() == []


async def test_a_key_that_comes_twice_in_a_batch_names_one_job(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 10)
    other = await open_account(engine, 10)
    orders = [
        order(customer, 4, "key"),
        order(customer, 4, "key"),
        order(customer, 4, "key", "b"),
        order(other, 4, "key"),
        order(customer, 4),
    ]

    assert await accepted(engine, orders) == [True, 0, IdempotencyKeyReused, True, True]
    assert [await balance_of(engine, whose) for whose in (customer, other)] == [2, 6]
    assert await PostgresLedger(engine).violations() == []


async def test_a_key_that_is_refused_for_the_balance_stays_free_for_the_next_in_the_batch(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 10)

    decisions = await accepted(engine, [order(customer, 11, "key"), order(customer, 5, "key", "b")])

    assert decisions == [InsufficientBalance, True]
    assert await balance_of(engine, customer) == 5


async def test_many_requests_at_once_share_transactions(engine: AsyncEngine, sql: Connection) -> None:
    customers = [await open_account(engine, 10) for _ in range(20)]
    jobs = jobs_of(engine)

    await asyncio.gather(*(jobs.accept(new_job(customer)) for customer in customers))

    assert await sql.fetchval("SELECT count(*) FROM jobs") == 20
    assert await sql.fetchval("SELECT count(DISTINCT created_at) FROM jobs") <= 3


async def test_what_the_answer_says_is_what_is_stored(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 10)
    jobs = jobs_of(engine)

    answer = await jobs.accept(new_job(customer))

    stored = await jobs.get(customer.account_id, answer.job.id)
    assert answer == Accepted(stored, is_replay=False, balance_tokens=await balance_of(engine, customer))


def lose_answers(monkeypatch: pytest.MonkeyPatch, operation: str, *, is_committed: bool) -> list[str]:
    """The connection breaks at the next COMMIT of the operation, before or after the server has done it."""
    lost: list[str] = []

    def cut(point: str) -> None:
        moment = "after" if is_committed else "before"
        if point == f"{operation}.{moment}_commit" and not lost:
            lost.append(point)
            raise CommitUnknown
        reach(point)

    monkeypatch.setattr(REACH, cut)
    return lost


both_ends = pytest.mark.parametrize("is_committed", [True, False])


@both_ends
async def test_an_order_whose_commit_was_not_answered_is_accepted_once(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    customer = await open_account(engine, 14)
    lost = lose_answers(monkeypatch, "accept", is_committed=is_committed)
    orders = [order(customer, 5), order(customer, 5, "key"), order(customer, 5), order(customer, 5, "key")]

    assert await accepted(engine, orders) == [True, True, InsufficientBalance, 1]

    assert lost
    assert await balance_of(engine, customer) == 4
    assert await sql.fetchval("SELECT count(*) FROM jobs") == 2
    assert await PostgresLedger(engine).violations() == []


@both_ends
async def test_a_payment_whose_commit_was_not_answered_is_credited_once(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    customer = await open_account(engine)
    event = payment(customer.external_user_id, 7)
    lost = lose_answers(monkeypatch, "credit", is_committed=is_committed)

    await PostgresPayments(engine).credit(event)

    assert lost
    assert await balance_of(engine, customer) == 7


@both_ends
async def test_a_key_whose_commit_was_not_answered_is_not_lost_to_its_user(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    user, first, second = uuid4(), new_key(), new_key()
    accounts = PostgresKeys(engine)
    lost = lose_answers(monkeypatch, "add_first_key", is_committed=is_committed)
    assert await accounts.add_first_key(user, stored_form(first))
    assert lost
    assert await accounts.find_by_key(digest_of(first)) is not None

    lost = lose_answers(monkeypatch, "replace_key", is_committed=is_committed)
    assert await accounts.replace_key(user, stored_form(second), digest_of(first))
    assert lost
    assert await accounts.find_by_key(digest_of(first)) is None
    assert await accounts.find_by_key(digest_of(second)) is not None


@both_ends
async def test_a_cancel_whose_commit_was_not_answered_is_a_cancel(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    customer = await open_account(engine, 10)
    job_id = await accept_job(engine, customer)
    lost = lose_answers(monkeypatch, "request_cancel", is_committed=is_committed)

    job = await jobs_of(engine).request_cancel(customer.account_id, job_id)

    assert lost
    assert job.status is JobStatus.CANCELED
    assert await balance_of(engine, customer) == 10


async def test_what_stays_unknown_is_said_to_be_unknown(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = await open_account(engine, 10)

    def cut(point: str) -> None:
        if point == "accept.after_commit":
            raise CommitUnknown

    monkeypatch.setattr(REACH, cut)
    with pytest.raises(CommitUnknown):
        await jobs_of(engine).accept(new_job(customer))


async def test_repeats_and_conflicts_within_a_batch_of_payments(engine: AsyncEngine, sql: Connection) -> None:
    user, other = uuid4(), uuid4()
    first = payment(user, 5, event_id="1")
    events = [first, payment(other, 5, event_id="1"), first, payment(user, 6, event_id="1"), payment(user, 2)]

    decisions = await credited(engine, events)

    assert [decision if isinstance(decision, bool) else type(decision) for decision in decisions] == [
        True,
        PaymentEventConflict,
        False,
        PaymentEventConflict,
        True,
    ]
    assert [row[0] for row in await sql.fetch("SELECT balance_tokens FROM accounts")] == [7]
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("first_amount", [6, BALANCE_TOKENS_MAX + 1])
async def test_an_event_whose_first_user_cannot_be_credited_counts_for_the_second(
    engine: AsyncEngine, sql: Connection, first_amount: int, is_known: bool
) -> None:
    full = await open_account(engine, BALANCE_TOKENS_MAX - 5)
    other = (await open_account(engine, 7)).external_user_id if is_known else uuid4()
    events = [
        payment(full.external_user_id, first_amount, event_id="one"),
        payment(other, 3, event_id="one"),
    ]

    refused, is_credited = await credited(engine, events)

    assert isinstance(refused, BalanceLimitExceeded)
    assert is_credited is True
    assert await balance_of(engine, full) == BALANCE_TOKENS_MAX - 5
    assert await sql.fetchval("SELECT balance_tokens FROM accounts WHERE external_user_id = $1", other) == (
        10 if is_known else 3
    )
    assert await PostgresLedger(engine).violations() == []


async def test_an_event_that_another_transaction_recorded_first_is_decided_by_it(
    engine: AsyncEngine, sql: Connection
) -> None:
    """The other transaction holds the event while this one decides; this one's other events are credited."""
    ours, theirs = await open_account(engine), await open_account(engine)
    insert = "INSERT INTO payment_events (source, event_id, account_id, amount) VALUES ('webhook', 'x', $1, 9)"
    entry = (
        "INSERT INTO ledger_entries (account_id, kind, amount, payment_source, payment_event_id)"
        " VALUES ($1, 'CREDIT', 9, 'webhook', 'x')"
    )
    events = [
        payment(ours.external_user_id, 9, event_id="x"),
        payment(ours.external_user_id, 3, event_id="y"),
        payment(ours.external_user_id, 9, event_id="x"),
    ]
    async with sql.transaction():
        await sql.execute(insert, theirs.account_id)
        await sql.execute(entry, theirs.account_id)
        deciding = asyncio.create_task(credited(engine, events))
        await blocked(sql)
    decisions = await deciding

    assert [type(decisions[0]), decisions[1], type(decisions[2])] == [PaymentEventConflict, True, PaymentEventConflict]
    assert [await balance_of(engine, customer) for customer in (ours, theirs)] == [3, 9]
    assert await PostgresLedger(engine).violations() == []


async def test_a_batch_that_fits_asks_for_nothing_first(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(acceptance, "_standing")
    rich, exact = await open_account(engine, 100), await open_account(engine, 10)

    decisions = await accepted(engine, [order(exact, 5), order(rich, 5), order(exact, 5)])

    assert decisions == [True] * 3
    assert [await balance_of(engine, customer) for customer in (rich, exact)] == [95, 0]


async def test_batches_of_many_processes_spend_a_balance_once(database: str) -> None:
    async with open_crowd(database, 12) as crowd:
        customers = [await open_account(crowd, 25) for _ in range(4)]

        batches = await asyncio.gather(
            *(accepted(crowd, [order(customer, 5) for customer in customers[::turn]]) for turn in (1, -1) * 6)
        )

        decisions = Counter(decision for batch in batches for decision in batch)
        assert decisions == {True: 20, InsufficientBalance: 28}
        assert [await balance_of(crowd, customer) for customer in customers] == [0] * 4
        assert await PostgresLedger(crowd).violations() == []


async def test_batches_over_the_same_accounts_never_wait_in_a_circle(engine: AsyncEngine) -> None:
    customers = [await open_account(engine, 10_000) for _ in range(12)]

    async def accept(turn: int) -> None:
        chosen = customers if turn % 2 else customers[::-1]
        assert await accepted(engine, [order(customer, 1) for customer in chosen]) == [True] * len(chosen)

    async def credit(turn: int) -> None:
        chosen = customers[::-1] if turn % 2 else customers
        await credited(engine, [payment(customer.external_user_id, 1) for customer in chosen])

    work: list[Callable[[int], Awaitable[None]]] = [accept, credit]
    await asyncio.gather(*(task(turn) for turn in range(8) for task in work))

    assert [await balance_of(engine, customer) for customer in customers] == [10_000] * 12
    assert await PostgresLedger(engine).violations() == []


async def test_a_connection_that_died_in_the_pool_costs_no_request(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    await asyncio.gather(*(balance_of(engine, customer) for _ in range(5)))
    killed = await sql.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tollgate' AND datname = current_database()"
    )
    assert killed
    await asyncio.sleep(0.2)

    assert await balance_of(engine, customer) == 100
    await accept_job(engine, customer)


async def test_a_repeat_waits_for_its_own_first_try_and_tells_what_became_of_it(
    engine: AsyncEngine, sql: Connection
) -> None:
    """The first COMMIT still runs when its answer is given up, and holds the account and the name."""
    customer = await open_account(engine, 10)
    orders = [order(customer, 5, "key")]

    async def repeat() -> Sequence[Accepted | Exception]:
        async with driver_connection(engine) as driver:
            return await accept_all(driver, orders, is_repeated=True)

    async with driver_connection(engine) as driver:
        first = driver.transaction()
        await first.start()
        await acceptance._standing(driver, [one.order for one in orders], is_repeated=False)
        await acceptance._write(driver, orders)
        repeating = asyncio.create_task(repeat())
        await blocked(sql)
        await first.commit()
    (answer,) = await repeating

    assert isinstance(answer, Accepted)
    assert (answer.job.id, answer.is_replay) == (orders[0].order.job.id, False)
    assert await balance_of(engine, customer) == 5


async def test_a_first_try_that_begins_after_its_repeat_writes_nothing(engine: AsyncEngine) -> None:
    """A statement that commits by itself may still lie in a socket when its connection is given up."""
    accepted_again, beside = await open_account(engine, 10), await open_account(engine, 10)
    orders = [order(accepted_again, 5), order(beside, 5)]

    async with driver_connection(engine) as driver:
        answers = await accept_all(driver, orders[:1], is_repeated=True)
        with pytest.raises(asyncpg.UniqueViolationError):
            await accept_all(driver, orders)

    assert isinstance(answers[0], Accepted)
    assert [await balance_of(engine, customer) for customer in (accepted_again, beside)] == [5, 10]
    assert await PostgresLedger(engine).violations() == []


async def test_what_a_repeat_refuses_may_still_be_accepted_by_the_first_try(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 4)
    orders = [order(customer, 5)]

    async with driver_connection(engine) as driver:
        answers = await accept_all(driver, orders, is_repeated=True)
        await PostgresPayments(engine).credit(payment(customer.external_user_id, 1))
        late = await accept_all(driver, orders)

    assert [type(answer) for answer in answers] == [CommitUnknown]
    assert isinstance(late[0], Accepted)
    assert await balance_of(engine, customer) == 0


async def test_what_a_repeat_refuses_of_a_transaction_is_refused(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 4)

    async with driver_connection(engine) as driver:
        answers = await accept_all(driver, [order(customer, 5, "key")], is_repeated=True)

    assert [type(answer) for answer in answers] == [InsufficientBalance]


@pytest.mark.parametrize("has_proof", [True, False])
async def test_a_rotation_that_is_repeated_while_its_first_try_still_runs_gives_the_same_key(
    engine: AsyncEngine, sql: Connection, *, has_proof: bool
) -> None:
    customer, key = await open_account(engine), new_key()
    stored = stored_form(key)
    async with sql.transaction():
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", customer.account_id)
        await sql.execute("UPDATE api_keys SET revoked_at = now() WHERE account_id = $1", customer.account_id)
        await sql.execute(
            "INSERT INTO api_keys (digest, hint, account_id) VALUES ($1, $2, $3)",
            stored.digest,
            stored.hint,
            customer.account_id,
        )
        current = digest_of(customer.api_key) if has_proof else None
        repeating = asyncio.create_task(PostgresKeys(engine).replace_key(customer.external_user_id, stored, current))
        await blocked(sql)

    assert await repeating
    assert await PostgresKeys(engine).find_by_key(digest_of(key)) is not None


async def test_what_was_credited_is_not_called_undone_when_the_rest_of_its_batch_fails(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another transaction recorded one of two events first, and the database goes away before that is decided."""
    ours, theirs = await open_account(engine), await open_account(engine)
    events = [payment(ours.external_user_id, 3, event_id="y"), payment(ours.external_user_id, 9, event_id="x")]
    open_books, opened = payments._open_books, 0

    async def fail_at_the_second(driver: DriverConnection, of: Sequence[PaymentEvent]) -> Any:
        nonlocal opened
        opened += 1
        if opened == 2:
            raise ConnectionResetError
        return await open_books(driver, of)

    monkeypatch.setattr(payments, "_open_books", fail_at_the_second)
    async with sql.transaction():
        await sql.execute(
            "INSERT INTO payment_events (source, event_id, account_id, amount) VALUES ('webhook', 'x', $1, 9)",
            theirs.account_id,
        )
        await sql.execute(
            "INSERT INTO ledger_entries (account_id, kind, amount, payment_source, payment_event_id)"
            " VALUES ($1, 'CREDIT', 9, 'webhook', 'x')",
            theirs.account_id,
        )
        batcher: Batcher[PaymentEvent, bool] = Batcher(engine, credit_all)
        crediting = asyncio.gather(*(batcher(event) for event in events), return_exceptions=True)
        await blocked(sql)
    answers = await crediting

    # The batcher asks again: the first was credited by the try that failed.
    assert [answers[0], type(answers[1])] == [False, PaymentEventConflict]
    assert await balance_of(engine, ours) == 3
