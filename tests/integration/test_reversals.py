"""Tokens taken back: of a payment that was refunded or disputed, whatever comes when, from whichever process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.application.ports.health import Level
from app.bootstrap import doctor
from app.domain.errors import BalanceLimitExceeded, InsufficientBalance, ReversalEventConflict
from app.domain.ledger import BALANCE_TOKENS_MAX
from app.domain.payments import EventName
from app.domain.reversals import ReversalEvent, Reversed
from app.infrastructure.postgres import reversals as reversals_module
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.reversals import PostgresPendingReversals, PostgresReversals
from app.infrastructure.settings import load_settings
from tests.builders import (
    Connection,
    Customer,
    accept_job,
    balance_of,
    blocked,
    connect,
    contents,
    jobs_of,
    new_job,
    open_account,
    payment,
    until,
)
from tests.integration.api_on_postgres import SECRETS_BY_SOURCE, WEBHOOK_SECRET, Api, open_api
from tests.integration.test_payment_names import former_credit, recorded_before

PAID = 100


def reversal(event_id: str, amount: int, *, of: str = "pay_1", source: str = "webhook") -> ReversalEvent:
    return ReversalEvent(source=source, event_id=event_id, payment_event_id=of, amount=amount)


def withdrawal(event_id: str, withdraws: str, *, of: str = "pay_1", source: str = "webhook") -> ReversalEvent:
    return ReversalEvent(source=source, event_id=event_id, payment_event_id=of, withdraws=withdraws)


async def pay(engine: AsyncEngine, customer: Customer, amount: int = PAID, event_id: str = "pay_1") -> None:
    event = payment(customer.external_user_id, amount, event_id=event_id)
    assert await PostgresPayments(engine).credit(event)


async def send(api: Api, body: dict[str, Any], event_id: str | None, *, source: str | None = None) -> httpx.Response:
    secret = WEBHOOK_SECRET if source is None else SECRETS_BY_SOURCE[source][0]
    named = {"X-Webhook-Secret": secret, **({} if event_id is None else {"X-Event-Id": event_id})}
    path = "/webhook/reversal" if source is None else f"/webhook/reversal/{source}"
    return await api.http.post(path, json=body, headers=named)


async def assert_books(engine: AsyncEngine, customer: Customer, tokens: int) -> None:
    assert await balance_of(engine, customer) == tokens
    assert await PostgresLedger(engine).violations() == []


async def kinds(engine: AsyncEngine, customer: Customer) -> list[tuple[str, int, int]]:
    """What was booked, the oldest first."""
    entries = await PostgresLedger(engine).entries(customer.external_user_id, limit=100)
    return [(str(entry.kind), entry.amount, entry.balance_after) for entry in reversed(entries)]


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine)


@pytest.fixture
async def other_api(crowd: AsyncEngine) -> AsyncIterator[Api]:
    """Another process, as far as the database can tell."""
    async with open_api(crowd) as api:
        yield api


async def test_a_payment_is_taken_back_once_and_given_again(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    await pay(engine, customer)
    body = {"payment_event_id": "pay_1", "amount": 60}

    answers = [await send(api, body, "refund_1") for _ in range(3)]
    more = await send(api, {"payment_event_id": "pay_1", "amount": 70}, "dispute_1")
    won = await send(api, {"payment_event_id": "pay_1", "withdraws": "dispute_1"}, "won_1")

    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"ok": True, "reversed_tokens": 60, "balance_tokens": 40})
    ] * 3
    assert (more.status_code, more.json()) == (200, {"ok": True, "reversed_tokens": 100, "balance_tokens": 0})
    assert (won.status_code, won.json()) == (200, {"ok": True, "reversed_tokens": 60, "balance_tokens": 40})
    assert await kinds(engine, customer) == [
        ("CREDIT", 100, 100),
        ("REVERSAL", 60, 40),
        ("REVERSAL", 40, 0),
        ("REINSTATEMENT", 40, 40),
    ]
    assert await PostgresLedger(engine).violations() == []


async def test_shows_what_was_taken_back_of_which_payment(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    await pay(engine, customer)
    await send(api, {"payment_event_id": "pay_1", "amount": 60}, "refund_1")
    await send(api, {"payment_event_id": "pay_1", "withdraws": "refund_1"}, "won_1")

    items = (await api.ledger(customer))["items"]

    assert [(item["kind"], item["amount"], item["payment_event_id"], item["job_id"]) for item in items] == [
        ("REINSTATEMENT", 60, "pay_1", None),
        ("REVERSAL", 60, "pay_1", None),
        ("CREDIT", 100, "pay_1", None),
    ]


async def test_spent_tokens_leave_a_debt_that_credits_and_refunds_pay_back(
    engine: AsyncEngine, api: Api, customer: Customer
) -> None:
    await pay(engine, customer)
    job_id = await accept_job(engine, customer, cost_tokens=30)
    answer = await send(api, {"payment_event_id": "pay_1", "amount": 100}, "refund_1")
    assert answer.json()["balance_tokens"] == -30

    balance = await api.get(customer, "/balance")
    refused = await api.start(customer, None)
    quoted = await api.http.post("/quotes", json={"type": "TEXT_TO_IMAGE"}, headers={"X-API-Key": customer.api_key})
    await jobs_of(engine).request_cancel(customer.account_id, job_id)
    assert await balance_of(engine, customer) == 0
    await pay(engine, customer, 5, "pay_2")

    assert balance.json()["balance_tokens"] == -30
    assert refused.status_code == 402
    figures = {name: refused.json()[name] for name in ("required_tokens", "balance_tokens", "missing_tokens")}
    assert figures == {"required_tokens": 5, "balance_tokens": -30, "missing_tokens": 35}
    assert (quoted.json()["balance_tokens"], quoted.json()["is_affordable"]) == (-30, False)
    assert (await api.start(customer, None)).status_code == 202
    await assert_books(engine, customer, 0)


async def test_whatever_comes_first_the_end_is_the_same(engine: AsyncEngine) -> None:
    """120 orders of a payment, two reversals, a withdrawal and a reversal that is larger than the payment."""
    reversals = PostgresReversals(engine)
    for number, order in enumerate(permutations(range(5))):
        customer, of = await open_account(engine), f"pay_{number}"
        events = [
            reversal(f"a{number}", 30, of=of),
            reversal(f"b{number}", 50, of=of),
            withdrawal(f"w{number}", f"b{number}", of=of),
            reversal(f"c{number}", 40, of=of),
        ]
        for step in order:
            if step < len(events):
                await reversals.record(events[step])
            else:
                await pay(engine, customer, event_id=of)
        assert await balance_of(engine, customer) == PAID - 70, order
    assert await PostgresLedger(engine).violations() == []
    assert await PostgresPendingReversals(engine).newest(limit=10) == []


async def test_what_comes_before_its_payment_waits_and_is_booked_with_it(
    engine: AsyncEngine, api: Api, customer: Customer
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "refund_1": {"payment_event_id": "pay_1", "amount": 30},
        "won_1": {"payment_event_id": "pay_1", "withdraws": "refund_1"},
        "refund_2": {"payment_event_id": "pay_1", "amount": 80},
    }

    early = [await send(api, body, event_id) for event_id, body in bodies.items() for _ in range(2)]
    waiting = await PostgresPendingReversals(engine).newest(limit=10)
    assert await kinds(engine, customer) == []
    await pay(engine, customer)

    assert {(answer.status_code, answer.text) for answer in early} == {(202, '{"ok":true,"pending":true}')}
    assert {one.event.event_id for one in waiting} == set(bodies)
    assert await kinds(engine, customer) == [("CREDIT", 100, 100), ("REVERSAL", 80, 20)]
    assert await PostgresPendingReversals(engine).newest(limit=10) == []
    again = await send(api, bodies["refund_1"], "refund_1")
    assert again.json() == {"ok": True, "reversed_tokens": 80, "balance_tokens": 20}
    await assert_books(engine, customer, 20)


async def test_doctor_says_whose_reversals_have_waited_for_long(
    engine: AsyncEngine, customer: Customer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path, database_url=database)
    events = [reversal("refund_1", 30), reversal("refund_2", 30, of="pay_2"), withdrawal("won_3", "refund_3")]
    for event in (*events, replace(events[0], source="stripe")):
        await PostgresReversals(engine).record(event)
    early = await doctor._reversals(settings)
    # As if a day had passed: the events themselves cannot be changed.
    monkeypatch.setattr(reversals_module, "OVERDUE_HOURS", 0)
    late = await doctor._reversals(settings)
    await pay(engine, customer)
    after_payment = await PostgresPendingReversals(engine).overdue()

    assert [(finding.level, finding.text) for finding in early] == [(Level.OK, "none waits for long")]
    assert [finding.level for finding in late] == [Level.WARNING]
    assert late[0].text.startswith("1 of stripe, 3 of webhook have waited for their payment for more than")
    assert "tokens pending" in late[0].text
    assert after_payment == {"stripe": 1, "webhook": 2}


async def test_a_withdrawal_that_comes_before_its_reversal_waits(
    engine: AsyncEngine, api: Api, customer: Customer
) -> None:
    await pay(engine, customer)

    early = await send(api, {"payment_event_id": "pay_1", "withdraws": "dispute_1"}, "won_1")
    late = await send(api, {"payment_event_id": "pay_1", "amount": 100}, "dispute_1")

    assert (early.status_code, early.json()) == (202, {"ok": True, "pending": True})
    assert (late.status_code, late.json()) == (200, {"ok": True, "reversed_tokens": 0, "balance_tokens": 100})
    assert await kinds(engine, customer) == [("CREDIT", 100, 100)]


@pytest.mark.parametrize(
    "event",
    [withdrawal("won_1", "refund_1", of="pay_2"), withdrawal("won_1", "won_0"), withdrawal("won_1", "won_1")],
    ids=["a reversal of another payment", "a withdrawal", "itself"],
)
async def test_a_withdrawal_of_something_else_changes_nothing_and_is_listed(
    engine: AsyncEngine, customer: Customer, event: ReversalEvent
) -> None:
    await pay(engine, customer)
    await pay(engine, customer, event_id="pay_2")
    reversals = PostgresReversals(engine)
    await reversals.record(reversal("refund_1", 60))
    await reversals.record(reversal("refund_0", 10))
    await reversals.record(withdrawal("won_0", "refund_0"))

    assert await reversals.record(event) is None
    assert [one.event for one in await PostgresPendingReversals(engine).newest(limit=10)] == [event]
    await assert_books(engine, customer, 140)


@pytest.mark.parametrize(
    "other",
    [
        {"payment_event_id": "pay_1", "amount": 61},
        {"payment_event_id": "pay_2", "amount": 60},
        {"payment_event_id": "pay_1", "withdraws": "refund_1"},
    ],
    ids=["amount", "payment", "sort"],
)
@pytest.mark.parametrize("is_early", [True, False], ids=["early", "late"])
async def test_an_id_with_another_content_is_refused_and_changes_nothing(
    engine: AsyncEngine, api: Api, customer: Customer, sql: Connection, *, other: dict[str, Any], is_early: bool
) -> None:
    if not is_early:
        await pay(engine, customer)
    await send(api, {"payment_event_id": "pay_1", "amount": 60}, "refund_1")
    before = await contents(sql)

    with capture_logs() as logs:
        answer = await send(api, other, "refund_1")

    assert (answer.status_code, answer.json()["code"]) == (409, "reversal_event_conflict")
    assert [log["event"] for log in logs if log["log_level"] == "error"] == ["reversal_refused"]
    assert await contents(sql) == before
    if is_early:
        await pay(engine, customer)
    await assert_books(engine, customer, 40)


async def test_a_source_reaches_its_own_payments_only(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    body = {"external_user_id": str(customer.external_user_id), "amount": PAID}
    for source in ("stripe", "yookassa"):
        secret = {"X-Webhook-Secret": SECRETS_BY_SOURCE[source][0], "X-Event-Id": "pay_1"}
        assert (await api.http.post(f"/webhook/topup/{source}", json=body, headers=secret)).status_code == 200
    taken = {"payment_event_id": "pay_1", "amount": 60}

    plain = await send(api, taken, "refund_1")
    stripe = await send(api, taken, "refund_1", source="stripe")
    foreign = await send(api, {"payment_event_id": "pay_1", "withdraws": "refund_1"}, "won_1", source="yookassa")

    assert [answer.status_code for answer in (plain, stripe, foreign)] == [202, 200, 202]
    await assert_books(engine, customer, 140)
    sources = [
        entry.payment_source for entry in await PostgresLedger(engine).entries(customer.external_user_id, limit=1)
    ]
    assert sources == ["webhook:stripe"]


@pytest.mark.parametrize("path", ["", "/stripe", "/unknown"])
async def test_a_wrong_secret_reverses_nothing(engine: AsyncEngine, api: Api, customer: Customer, path: str) -> None:
    await pay(engine, customer)

    answer = await api.http.post(
        f"/webhook/reversal{path}",
        json={"payment_event_id": "pay_1", "amount": 1},
        headers={"X-Webhook-Secret": SECRETS_BY_SOURCE["yookassa"][0], "X-Event-Id": "refund_1"},
    )

    assert answer.status_code == 401
    await assert_books(engine, customer, PAID)


async def test_the_ids_of_refunds_are_apart_from_those_of_payments(
    engine: AsyncEngine, api: Api, customer: Customer
) -> None:
    """A provider may name the refund of a whole payment by the id of the payment."""
    await pay(engine, customer)

    answer = await send(api, {"payment_event_id": "pay_1", "amount": 100}, "pay_1")

    assert answer.json() == {"ok": True, "reversed_tokens": 100, "balance_tokens": 0}


@pytest.mark.parametrize("source", ["webhook", "idempotency-key"])
async def test_a_payment_is_reached_under_whichever_header_named_it(
    engine: AsyncEngine, api: Api, customer: Customer, sql: Connection, source: str
) -> None:
    await recorded_before(sql, customer, source, "pay_1")

    answer = await send(api, {"payment_event_id": "pay_1", "amount": 3}, "refund_1")

    assert answer.json() == {"ok": True, "reversed_tokens": 3, "balance_tokens": 4}
    await assert_books(engine, customer, 4)


async def test_of_an_id_that_named_two_payments_that_of_the_event_id_is_meant(
    engine: AsyncEngine, api: Api, sql: Connection
) -> None:
    customers = [await open_account(engine) for _ in range(2)]
    for customer, source in zip(customers, ("idempotency-key", "webhook"), strict=True):
        await recorded_before(sql, customer, source, "pay_1")

    assert (await send(api, {"payment_event_id": "pay_1", "amount": 3}, "refund_1")).status_code == 200

    assert [await balance_of(engine, customer) for customer in customers] == [7, 4]
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize("source", ["webhook", "idempotency-key", "webhook:stripe", "unidentified"])
async def test_a_process_of_the_release_before_books_what_came_before_its_credit(
    engine: AsyncEngine, customer: Customer, sql: Connection, source: str
) -> None:
    of_source = "webhook" if source == "idempotency-key" else source
    assert await PostgresReversals(engine).record(reversal("refund_1", 5, source=of_source)) is None

    assert await former_credit(sql, customer, source, "pay_1")

    await assert_books(engine, customer, 2)


async def test_a_role_that_knows_nothing_of_the_new_tables_goes_on_crediting(
    engine: AsyncEngine, customer: Customer, sql: Connection
) -> None:
    """As that of a process of the release before, where another role migrates."""
    role = f"role_{uuid4().hex}"
    old = "accounts, payment_events, ledger_entries"
    assert await PostgresReversals(engine).record(reversal("refund_1", 5)) is None
    await sql.execute(f"CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE ON {old} TO {role}; SET ROLE {role}")

    assert await former_credit(sql, customer, "webhook", "pay_1")

    await sql.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    await assert_books(engine, customer, 2)


async def test_a_role_runs_nothing_of_its_own_as_the_owner(
    engine: AsyncEngine, customer: Customer, sql: Connection
) -> None:
    """A temporary view comes before any table, unless the function says otherwise."""
    role = f"role_{uuid4().hex}"
    old = "accounts, payment_events, ledger_entries"
    await sql.execute(f"CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE ON {old} TO {role}; SET ROLE {role}")
    await sql.execute("""
        CREATE TEMPORARY VIEW reversal_events AS
            SELECT 'webhook' AS source, 'pay_1' AS payment_event_id
             WHERE set_config('test.ran_as', current_user, false) > '';
        GRANT SELECT ON reversal_events TO PUBLIC
    """)

    assert await former_credit(sql, customer, "webhook", "pay_1")

    assert await sql.fetchval("SELECT current_setting('test.ran_as', true)") is None
    await sql.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_an_event_needs_an_id(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    await pay(engine, customer)

    answer = await send(api, {"payment_event_id": "pay_1", "amount": 1}, None)

    assert (answer.status_code, answer.json()["code"]) == (400, "reversal_event_id_required")
    await assert_books(engine, customer, PAID)


# Races

COPIES = 6


async def test_events_of_one_payment_that_meet_in_two_processes_count_once_each(
    api: Api, other_api: Api, engine: AsyncEngine, customer: Customer
) -> None:
    await pay(engine, customer)
    bodies: Sequence[tuple[str, dict[str, Any]]] = [
        ("r1", {"payment_event_id": "pay_1", "amount": 30}),
        ("r2", {"payment_event_id": "pay_1", "amount": 25}),
        ("r3", {"payment_event_id": "pay_1", "amount": 99}),
        ("w3", {"payment_event_id": "pay_1", "withdraws": "r3"}),
    ]

    answers = await asyncio.gather(
        *(send(process, body, name) for _ in range(COPIES) for name, body in bodies for process in (api, other_api))
    )

    assert {answer.status_code for answer in answers} <= {200, 202}
    await assert_books(engine, customer, 45)


@pytest.mark.parametrize("round_", range(12))
async def test_a_credit_that_meets_its_reversals_misses_none(
    api: Api, other_api: Api, engine: AsyncEngine, customer: Customer, database: str, *, round_: int
) -> None:
    async def credited() -> None:
        await asyncio.sleep(0.003 * (round_ % 6))
        if round_ % 2:
            await pay(engine, customer)
        else:
            async with connect(database) as sql:
                assert await former_credit(sql, customer, "webhook", "pay_1", pause_seconds=0.004)

    events: Sequence[tuple[str, dict[str, Any]]] = [
        *((f"r{number}", {"payment_event_id": "pay_1", "amount": 1}) for number in range(5)),
        ("w0", {"payment_event_id": "pay_1", "withdraws": "r0"}),
        ("w9", {"payment_event_id": "pay_1", "withdraws": "r9"}),
    ]

    async def sent(process: Api, name: str, body: dict[str, Any], number: int) -> httpx.Response:
        await asyncio.sleep(0.002 * number)
        return await send(process, body, name)

    answers, _ = await asyncio.gather(
        asyncio.gather(
            *(
                sent(process, name, body, number)
                for number, (name, body) in enumerate(events)
                for process in (api, other_api)
            )
        ),
        credited(),
    )

    assert {answer.status_code for answer in answers} <= {200, 202}
    await assert_books(engine, customer, (PAID if round_ % 2 else 7) - 4)


async def test_a_reversal_waits_for_a_credit_that_is_under_way(
    api: Api, engine: AsyncEngine, customer: Customer, sql: Connection, database: str
) -> None:
    async with connect(database) as other:
        transaction = other.transaction()
        await transaction.start()
        assert await former_credit(other, customer, "webhook:stripe", "pay_1")
        answer = asyncio.create_task(send(api, {"payment_event_id": "pay_1", "amount": 5}, "refund_1", source="stripe"))
        await blocked(sql)
        await transaction.commit()

    assert (await answer).json() == {"ok": True, "reversed_tokens": 5, "balance_tokens": 2}
    await assert_books(engine, customer, 2)


async def test_a_statement_past_the_service_waits_for_a_credit_that_is_under_way(
    engine: AsyncEngine, customer: Customer, sql: Connection, database: str
) -> None:
    async with connect(database) as other, connect(database) as past:
        transaction = other.transaction()
        await transaction.start()
        assert await former_credit(other, customer, "webhook:stripe", "pay_1")
        statement = "INSERT INTO reversal_events (source, event_id, payment_event_id, amount) VALUES ($1, $2, $3, 5)"
        inserted = asyncio.create_task(past.execute(statement, "webhook:stripe", "refund_1", "pay_1"))
        await blocked(sql)
        await transaction.commit()
        await inserted

    await assert_books(engine, customer, 2)


async def test_a_reversal_lets_the_name_go_before_it_waits_for_the_account(
    api: Api, engine: AsyncEngine, customer: Customer, sql: Connection, database: str
) -> None:
    """Another delivery of the payment has the account already, and waits for the name."""
    waiting = (
        "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with connect(database) as other, connect(database) as again:
        first, second = other.transaction(), again.transaction()
        await first.start()
        assert await former_credit(other, customer, "webhook:stripe", "pay_1")
        answer = asyncio.create_task(send(api, {"payment_event_id": "pay_1", "amount": 5}, "refund_1", source="stripe"))
        await blocked(sql)
        await second.start()
        lock = "SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE"
        locked = asyncio.create_task(again.execute(lock, customer.account_id))
        await until(lambda: sql.fetchval(waiting))
        await first.commit()
        await locked
        await again.execute("SELECT lock_payment('webhook:stripe', 'pay_1')")
        await second.commit()

    assert (await answer).json() == {"ok": True, "reversed_tokens": 5, "balance_tokens": 2}


async def test_a_credit_waits_for_a_reversal_that_is_under_way(
    engine: AsyncEngine, customer: Customer, sql: Connection, database: str
) -> None:
    async with connect(database) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "INSERT INTO reversal_events (source, event_id, payment_event_id, amount)"
            " VALUES ('webhook', 'refund_1', 'pay_1', 30)"
        )
        credit = asyncio.create_task(pay(engine, customer))
        await blocked(sql)
        await transaction.commit()
        await credit

    assert await kinds(engine, customer) == [("CREDIT", 100, 100), ("REVERSAL", 30, 70)]
    await assert_books(engine, customer, 70)


@pytest.mark.parametrize(
    ("event", "reversed_tokens"),
    [(reversal("r2", 80), PAID), (withdrawal("w1", "r1"), 0)],
    ids=["reversal", "withdrawal"],
)
async def test_an_event_waits_for_another_one_of_its_payment_that_is_under_way(
    engine: AsyncEngine,
    customer: Customer,
    sql: Connection,
    database: str,
    *,
    event: ReversalEvent,
    reversed_tokens: int,
) -> None:
    await pay(engine, customer)
    async with connect(database) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute(
            "INSERT INTO reversal_events (source, event_id, payment_event_id, amount)"
            " VALUES ('webhook', 'r1', 'pay_1', 60)"
        )
        later = asyncio.create_task(PostgresReversals(engine).record(event))
        await blocked(sql)
        await transaction.commit()

    assert await later == Reversed(reversed_tokens=reversed_tokens, balance_tokens=PAID - reversed_tokens)
    await assert_books(engine, customer, PAID - reversed_tokens)


async def test_a_reversal_and_an_accept_that_meet_agree(crowd: AsyncEngine) -> None:
    """The job is accepted before the reversal, or refused after it: never paid with what was taken back."""
    for number in range(20):
        customer = await open_account(crowd)
        await pay(crowd, customer, 10, f"pay_{number}")
        outcomes = await asyncio.gather(
            PostgresReversals(crowd).record(reversal(f"r{number}", 10, of=f"pay_{number}")),
            *(jobs_of(crowd).accept(new_job(customer, cost_tokens=5)) for _ in range(3)),
            return_exceptions=True,
        )
        accepted = sum(not isinstance(outcome, InsufficientBalance) for outcome in outcomes[1:])
        assert isinstance(outcomes[0], Reversed)
        assert await balance_of(crowd, customer) == -5 * accepted
    assert await PostgresLedger(crowd).violations() == []


async def test_statements_past_the_service_are_booked_alike(
    engine: AsyncEngine, customer: Customer, sql: Connection
) -> None:
    """Several events in one statement, and a payment with its reversal in one transaction."""
    insert = "INSERT INTO reversal_events (source, event_id, payment_event_id, amount) VALUES"
    await pay(engine, customer)

    await sql.execute(f"{insert} ('webhook', 'a', 'pay_1', 30), ('webhook', 'b', 'pay_1', 30)")
    async with sql.transaction():
        assert await former_credit(sql, customer, "webhook", "pay_2")
        await sql.execute(f"{insert} ('webhook', 'c', 'pay_2', 5)")

    await assert_books(engine, customer, PAID - 60 + 7 - 5)


# Bounds


async def test_what_would_leave_the_range_is_refused_whole(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine)
    reversals = PostgresReversals(engine)
    await pay(engine, customer, BALANCE_TOKENS_MAX)
    await reversals.record(reversal("r1", 10**12))
    await pay(engine, customer, 5, "pay_2")
    await pay(engine, customer, 10**12 - 5, "pay_3")
    before = await contents(sql)

    with pytest.raises(BalanceLimitExceeded):
        await reversals.record(withdrawal("w1", "r1"))

    assert await contents(sql) == before
    await assert_books(engine, customer, BALANCE_TOKENS_MAX)


async def test_a_conflict_among_many_is_its_own(engine: AsyncEngine, customer: Customer) -> None:
    await pay(engine, customer)
    reversals = PostgresReversals(engine)
    events = [reversal(f"r{number}", 1) for number in range(20)]

    outcomes = await asyncio.gather(
        *(reversals.record(event) for event in (*events, reversal("r7", 2))), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [Reversed] * 20 + [ReversalEventConflict]
    await assert_books(engine, customer, 80)


def test_an_event_names_its_payment() -> None:
    assert reversal("r", 1, source="webhook:stripe").payment == EventName("webhook:stripe", "pay_1")


async def test_events_of_nothing_are_kept_for_an_operator_and_no_account_is_made(
    engine: AsyncEngine, sql: Connection
) -> None:
    before = await sql.fetchval("SELECT count(*) FROM accounts")

    assert await PostgresReversals(engine).record(reversal("r", 1, of=str(uuid4()))) is None

    assert await sql.fetchval("SELECT count(*) FROM accounts") == before
