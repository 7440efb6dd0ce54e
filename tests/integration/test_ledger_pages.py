"""GET /ledger: what moved a user's balance, page by page, while it goes on moving."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import InsufficientBalance
from app.domain.jobs import Outcome
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import (
    LINE,
    RESULT,
    Customer,
    accept_job,
    balance_of,
    jobs_of,
    new_job,
    open_account,
    payment,
)
from tests.integration.api_on_postgres import Api


async def pay(engine: AsyncEngine, customer: Customer, amount: int, event_id: str | None = None) -> None:
    assert await PostgresPayments(engine).credit(payment(customer.external_user_id, amount, event_id=event_id))


async def pages(api: Api, customer: Customer, **query: object) -> list[list[dict[str, Any]]]:
    """From the newest to the last one."""
    found, page = [], await api.ledger(customer, **query)
    while page["next_cursor"] is not None:
        found.append(page["items"])
        page = await api.ledger(customer, **query, cursor=page["next_cursor"])
    return [*found, page["items"]]


async def test_says_what_moved_the_balance_newest_first(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine)
    await pay(engine, customer, 12, "payment-1")
    job_id = await accept_job(engine, customer, cost_tokens=5)
    await jobs_of(engine).request_cancel(customer.account_id, job_id)

    page = await api.ledger(customer)

    created = [entry.pop("created_at") for entry in page["items"]]
    assert page == {
        "items": [
            {
                "kind": "REFUND",
                "amount": 5,
                "balance_after": 12,
                "job_id": str(job_id),
                "payment_event_id": None,
                "reason": None,
            },
            {
                "kind": "DEBIT",
                "amount": 5,
                "balance_after": 7,
                "job_id": str(job_id),
                "payment_event_id": None,
                "reason": None,
            },
            {
                "kind": "CREDIT",
                "amount": 12,
                "balance_after": 12,
                "job_id": None,
                "payment_event_id": "payment-1",
                "reason": None,
            },
        ],
        "next_cursor": None,
    }
    assert created == sorted(created, reverse=True)


async def test_shows_250_entries_once_each_while_new_ones_arrive(engine: AsyncEngine, api: Api) -> None:
    customer, is_over = await open_account(engine), asyncio.Event()
    for amount in range(1, 251):
        await pay(engine, customer, amount)

    async def go_on_paying() -> int:
        count = 0
        while not is_over.is_set():
            await pay(engine, customer, 1000)
            count += 1
        return count

    first = await api.ledger(customer, limit=20)
    payer = asyncio.create_task(go_on_paying())
    seen, cursor = [entry["amount"] for entry in first["items"]], first["next_cursor"]
    while cursor is not None:
        page = await api.ledger(customer, limit=20, cursor=cursor)
        seen += [entry["amount"] for entry in page["items"]]
        cursor = page["next_cursor"]
    is_over.set()
    arrived = await payer

    assert arrived > 0
    assert seen == list(range(250, 0, -1))


@pytest.mark.parametrize(
    ("count", "limit", "sizes"), [(0, 2, [0]), (1, 1, [1]), (4, 2, [2, 2]), (5, 2, [2, 2, 1]), (100, 100, [100])]
)
async def test_the_last_page_names_no_next_one(
    engine: AsyncEngine, api: Api, count: int, limit: int, sizes: list[int]
) -> None:
    customer = await open_account(engine)
    for _ in range(count):
        await pay(engine, customer, 1)

    found = await pages(api, customer, limit=limit)

    assert [len(page) for page in found] == sizes


async def test_shows_twenty_entries_unless_told_otherwise(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine)
    for _ in range(21):
        await pay(engine, customer, 1)

    page = await api.ledger(customer)

    assert len(page["items"]) == 20
    assert page["next_cursor"] is not None


async def test_never_shows_entries_of_another_account(engine: AsyncEngine, api: Api) -> None:
    mine, others = await open_account(engine), [await open_account(engine) for _ in range(2)]
    for number in range(10):
        for customer in (others[0], mine, others[1]):
            await pay(engine, customer, 1 if customer is mine else 7, f"{customer.account_id}-{number}")
    foreign_cursor = (await api.ledger(others[0], limit=1))["next_cursor"]

    found = await pages(api, mine, limit=3)
    with_foreign_cursor = await api.ledger(mine, cursor=foreign_cursor, limit=100)

    events = [entry["payment_event_id"] for page in found for entry in page]
    assert events == [f"{mine.account_id}-{number}" for number in range(9, -1, -1)]
    assert {entry["amount"] for entry in with_foreign_cursor["items"]} == {1}


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "tgk_unknown"}])
async def test_shows_nothing_without_a_key(api: Api, headers: dict[str, str]) -> None:
    answer = await api.http.get("/ledger", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "cursor", ["", "0", "-1", "01", "1.0", "1e3", " 1", "1 ", "+1", "x", "1\n", "٣", "²", "\0", "9" * 19, "9" * 5000]
)
async def test_refuses_a_cursor_that_no_page_gave(engine: AsyncEngine, api: Api, cursor: str) -> None:
    customer = await open_account(engine, 5)

    answer = await api.get(customer, "/ledger", cursor=cursor)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/cursor", "invalid_cursor")


async def test_a_cursor_beyond_every_entry_is_only_a_place_to_start(engine: AsyncEngine, api: Api) -> None:
    customer = await open_account(engine, 5)

    found = [await api.ledger(customer, cursor=cursor) for cursor in ("9" * 18, "2", "1")]

    assert [len(page["items"]) for page in found] == [1, 1, 0]
    assert [page["next_cursor"] for page in found] == [None] * 3


@pytest.mark.parametrize("limit", ["", "0", "-1", "101", "1.0", "1e1", " 5", "x", "9" * 30, "٣"])
async def test_refuses_a_limit_out_of_range(engine: AsyncEngine, api: Api, limit: str) -> None:
    customer = await open_account(engine, 5)

    answer = await api.get(customer, "/ledger", limit=limit)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/limit"]


async def run_history(
    engine: AsyncEngine, customer: Customer, steps: Sequence[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Do what the steps say, as far as the balance goes; the entries that this must have left, oldest first."""
    jobs, expected = jobs_of(engine), list[tuple[str, int]]()
    waiting: list[tuple[UUID, int]] = []
    for name, amount in steps:
        if name == "pay":
            await pay(engine, customer, amount)
            expected.append(("CREDIT", amount))
        elif name == "start":
            job = new_job(customer, cost_tokens=amount, outputs=amount)
            try:
                await jobs.accept(job)
            except InsufficientBalance:
                continue
            waiting.append((job.id, amount))
            expected.append(("DEBIT", amount))
        elif waiting:
            job_id, cost = waiting.pop()
            await jobs.claim(job_id, uuid4())
            refunded = cost if name == "fail" else amount % cost
            outcome = (
                Outcome.failed("refused", "No.")
                if name == "fail"
                else Outcome.completed(RESULT, {LINE: refunded} if refunded else None)
            )
            assert await jobs.settle(job_id, outcome)
            expected += [("REFUND", refunded)] if refunded else []
    return expected


STEPS = st.lists(
    st.tuples(st.sampled_from(["pay", "start", "start", "fail", "complete"]), st.integers(1, 30)), max_size=12
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, limit=st.integers(1, 5))
async def test_amounts_and_balances_add_up_over_any_history(
    engine: AsyncEngine, api: Api, steps: list[tuple[str, int]], limit: int
) -> None:
    customer = await open_account(engine)
    expected = await run_history(engine, customer, steps)

    found = await pages(api, customer, limit=limit)

    entries = [entry for page in found for entry in page][::-1]
    assert [(entry["kind"], entry["amount"]) for entry in entries] == expected
    balance = 0
    for entry in entries:
        balance += -entry["amount"] if entry["kind"] == "DEBIT" else entry["amount"]
        assert entry["balance_after"] == balance
    assert await balance_of(engine, customer) == balance
