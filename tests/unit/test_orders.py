"""The rule by which orders are accepted: a pure function of what the database says under its locks."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from app.domain.budgets import Purse, PurseKind
from app.domain.errors import IdempotencyKeyInUse, IdempotencyKeyReused, InsufficientBalance, TooManyLargeInputs
from app.domain.jobs import Job, NewJob
from app.domain.kinds import GenerationKind
from app.domain.orders import (
    LARGE_INPUTS_BYTES_MAX,
    Accepted,
    FirstUse,
    IdempotencyKey,
    LargeInputs,
    Order,
    OwnedKey,
    Standing,
    decide_orders,
    is_new,
)
from tests.builders import MODEL_IDS, terms_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT, OTHER = UUID(int=1), UUID(int=2)
ASKED, ASKED_ELSE = bytes(32), bytes([1] * 32)


def order(cost_tokens: int, *, account_id: UUID = ACCOUNT, key: str | None = None, fingerprint: bytes = ASKED) -> Order:
    kind = GenerationKind.TEXT_TO_IMAGE
    job = NewJob(
        id=uuid4(),
        account_id=account_id,
        kind=kind,
        model_id=MODEL_IDS[kind],
        parameters={},
        cost_tokens=cost_tokens,
        outputs_requested=1,
        time_limit_seconds=60,
        expected_seconds=10,
        terms=terms_of(cost_tokens),
    )
    return Order(job, None if key is None else IdempotencyKey(key, fingerprint))


def standing(balance_tokens: int = 10) -> Standing:
    balances = {Purse(PurseKind.BALANCE, account_id): balance_tokens for account_id in (ACCOUNT, OTHER)}
    return Standing(accepted_at=NOW, left=balances)


def said(decision: object) -> object:
    return decision.is_replay if isinstance(decision, Accepted) else type(decision)


def test_an_order_is_accepted_as_the_table_will_have_it() -> None:
    asked = order(5)

    (decision,) = decide_orders([asked], standing())

    assert decision == Accepted(Job.accepted(asked.job, NOW), is_replay=False, balance_tokens=5)


def test_a_cheap_order_behind_one_that_does_not_fit_still_goes() -> None:
    orders = [order(7), order(4), order(3), order(1)]

    decisions = decide_orders(orders, standing(10))

    assert [said(decision) for decision in decisions] == [False, InsufficientBalance, False, InsufficientBalance]


def test_one_account_does_not_pay_for_another() -> None:
    decisions = decide_orders([order(10), order(10, account_id=OTHER), order(1)], standing(10))

    assert [said(decision) for decision in decisions] == [False, False, InsufficientBalance]


def test_the_same_key_twice_in_a_batch_is_one_job_and_paid_once() -> None:
    orders = [order(6, key="a"), order(6, key="a"), order(4), order(6, key="a", fingerprint=ASKED_ELSE)]

    decisions = decide_orders(orders, standing(10))

    assert [said(decision) for decision in decisions] == [False, True, False, IdempotencyKeyReused]
    assert [decision.job.id for decision in decisions[:2] if isinstance(decision, Accepted)] == [orders[0].job.id] * 2


def test_a_twin_in_the_batch_is_told_what_the_debit_left() -> None:
    decisions = decide_orders([order(6, key="a"), order(6, key="a"), order(1), order(6, key="a")], standing(10))

    assert [decision.balance_tokens for decision in decisions if isinstance(decision, Accepted)] == [4, 4, 3, 3]


def test_a_replay_is_told_the_balance_that_was_found_with_its_key() -> None:
    known = {OwnedKey(ACCOUNT, "a"): FirstUse(ASKED, Job.accepted(order(5).job, NOW))}
    found = Standing(accepted_at=None, left={Purse(PurseKind.BALANCE, ACCOUNT): 3}, first_uses=known)

    (decision,) = decide_orders([order(5, key="a")], found)

    assert decision == Accepted(known[OwnedKey(ACCOUNT, "a")].job, is_replay=True, balance_tokens=3)


def test_the_key_of_an_order_that_was_refused_is_free() -> None:
    decisions = decide_orders([order(11, key="a"), order(5, key="a", fingerprint=ASKED_ELSE)], standing(10))

    assert [said(decision) for decision in decisions] == [InsufficientBalance, False]


def test_a_key_is_the_accounts_own() -> None:
    decisions = decide_orders([order(5, key="a"), order(5, account_id=OTHER, key="a")], standing())

    assert [said(decision) for decision in decisions] == [False, False]


@pytest.mark.parametrize(
    ("fingerprint", "expected"), [(ASKED, True), (ASKED_ELSE, IdempotencyKeyReused)], ids=["same", "other"]
)
def test_a_known_key_answers_without_looking_at_the_balance(fingerprint: bytes, expected: object) -> None:
    first = Job.accepted(order(5).job, NOW)
    known = {OwnedKey(ACCOUNT, "a"): FirstUse(ASKED, first)}
    empty = Standing(accepted_at=None, left={}, first_uses=known)

    (decision,) = decide_orders([order(5, key="a", fingerprint=fingerprint)], empty)

    assert said(decision) == expected


def test_a_key_that_another_request_holds_is_not_waited_for() -> None:
    busy = replace(standing(), keys_in_use={OwnedKey(ACCOUNT, "a")})

    decisions = decide_orders([order(5, key="a"), order(10)], busy)

    assert [said(decision) for decision in decisions] == [IdempotencyKeyInUse, False]


def test_what_an_earlier_try_wrote_is_answered_and_not_written_again() -> None:
    written, new = order(10, key="a"), order(10)
    repeated = replace(standing(10), written={written.job.id: Job.accepted(written.job, NOW)})

    decisions = decide_orders([written, new], repeated)

    assert [said(decision) for decision in decisions] == [False, False]
    assert [is_new(one, said, repeated) for one, said in zip((written, new), decisions, strict=True)] == [False, True]


def test_of_large_inputs_those_that_fit_are_accepted() -> None:
    size_bytes = LARGE_INPUTS_BYTES_MAX // 5
    orders = [replace(order(1), input_bytes=size_bytes) for _ in range(6)]
    others = [order(1), replace(order(1, account_id=OTHER), input_bytes=size_bytes)]

    decisions = decide_orders([*orders, *others], standing(100))

    assert [said(decision) for decision in decisions] == [*[False] * 5, TooManyLargeInputs, False, False]


def test_what_was_brought_along_lately_counts() -> None:
    recent = {ACCOUNT: LargeInputs(size_bytes=LARGE_INPUTS_BYTES_MAX - 10, age_seconds=20.2)}
    orders = [replace(order(1), input_bytes=size_bytes) for size_bytes in (11, 10, 1)]

    decisions = decide_orders(orders, replace(standing(), large_inputs=recent))

    assert [said(decision) for decision in decisions] == [TooManyLargeInputs, False, TooManyLargeInputs]
    assert isinstance(decisions[0], TooManyLargeInputs)
    assert decisions[0].retry_after_seconds == 40


@pytest.mark.parametrize(("age_seconds", "wait_seconds"), [(-0.3, 60), (0.0, 60), (20.2, 40), (59.5, 1), (60.0, 1)])
def test_nobody_waits_longer_for_large_inputs_than_they_count(age_seconds: float, wait_seconds: int) -> None:
    """The clock of a transaction that waited for a lock is behind that of whom it waited for."""
    assert LargeInputs(size_bytes=1, age_seconds=age_seconds).seconds_to_wait == wait_seconds
