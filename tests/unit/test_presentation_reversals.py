from typing import Any
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from app.domain.payments import TOPUP_TOKENS_MAX
from tests.unit.presentation_stand_ins import SOURCE_SECRET, WEBHOOK_SECRET, World, problem_of

SECRET = {"X-Webhook-Secret": WEBHOOK_SECRET}
REVERSAL = {"payment_event_id": "pay_1", "amount": 60}


async def top_up(world: World, path: str = "") -> None:
    secret = {"X-Webhook-Secret": SOURCE_SECRET if path else WEBHOOK_SECRET, "X-Event-Id": "pay_1"}
    body = {"external_user_id": str(uuid4()), "amount": 100}
    assert (await world.client().post(f"/webhook/topup{path}", json=body, headers=secret)).status_code == 200


async def reverse(world: World, body: object, event_id: str | None = "refund_1", path: str = "") -> httpx.Response:
    headers = {"X-Webhook-Secret": SOURCE_SECRET if path else WEBHOOK_SECRET}
    named = headers if event_id is None else {**headers, "X-Event-Id": event_id}
    return await world.client().post(f"/webhook/reversal{path}", json=body, headers=named)


@pytest.mark.parametrize("path", ["", "/x"])
async def test_says_what_is_reversed_by_now_and_what_is_left(path: str) -> None:
    world = World()
    await top_up(world, path)

    answers = [await reverse(world, REVERSAL, path=path) for _ in range(2)]
    won = await reverse(world, {"payment_event_id": "pay_1", "withdraws": "refund_1"}, "won_1", path)

    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"ok": True, "reversed_tokens": 60, "balance_tokens": 40})
    ] * 2
    assert (won.status_code, won.json()) == (200, {"ok": True, "reversed_tokens": 0, "balance_tokens": 100})


async def test_a_source_does_not_reach_the_payments_of_another_one() -> None:
    world = World()
    await top_up(world)

    answer = await reverse(world, REVERSAL, path="/x")

    assert (answer.status_code, answer.json()) == (202, {"ok": True, "pending": True})


async def test_what_waits_is_a_warning_in_the_log() -> None:
    with capture_logs() as logs:
        answer = await reverse(World(), REVERSAL)

    assert answer.status_code == 202
    (told,) = [log for log in logs if log["event"] == "reversal_pending"]
    assert (told["log_level"], told["payment_event_id"], told["amount"]) == ("warning", "pay_1", 60)


async def test_the_same_id_with_another_content_is_refused() -> None:
    world = World()
    await top_up(world)
    await reverse(world, REVERSAL)

    answer = await reverse(world, REVERSAL | {"amount": 61})

    assert answer.status_code == 409
    assert problem_of(answer)["code"] == "reversal_event_conflict"


async def test_needs_the_id_of_the_event() -> None:
    answer = await reverse(World(), REVERSAL, None)

    assert answer.status_code == 400
    assert problem_of(answer)["code"] == "reversal_event_id_required"


async def test_what_lacks_an_amount_may_lack_the_reversal_that_it_withdraws() -> None:
    answer = await reverse(World(), {"payment_event_id": "pay_1"})

    (error,) = problem_of(answer)["errors"]
    assert "or in its place withdraws" in error["detail"]


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"/payment_event_id": "required", "/amount": "required"}),
        ({"payment_event_id": "pay_1"}, {"/amount": "required"}),
        ({"payment_event_id": "pay_1 ", "amount": 1}, {"/payment_event_id": "invalid_characters"}),
        (REVERSAL | {"amount": 0}, {"/amount": "too_small"}),
        (REVERSAL | {"amount": -1}, {"/amount": "too_small"}),
        (REVERSAL | {"amount": TOPUP_TOKENS_MAX + 1}, {"/amount": "too_large"}),
        (REVERSAL | {"amount": 5.0}, {"/amount": "not_an_integer"}),
        (REVERSAL | {"amount": True}, {"/amount": "not_an_integer"}),
        (REVERSAL | {"amount": None}, {"/amount": "not_an_integer"}),
        (REVERSAL | {"payment_event_id": ""}, {"/payment_event_id": "too_short"}),
        (REVERSAL | {"payment_event_id": "x" * 256}, {"/payment_event_id": "too_long"}),
        (REVERSAL | {"payment_event_id": "ä"}, {"/payment_event_id": "invalid_characters"}),
        (REVERSAL | {"payment_event_id": "a\0"}, {"/payment_event_id": "invalid_characters"}),
        (REVERSAL | {"withdraws": "refund_1"}, {"/amount": "unknown_field"}),
        ({"withdraws": "refund_1"}, {"/payment_event_id": "required"}),
        ({"payment_event_id": "pay_1", "withdraws": None}, {"/withdraws": "not_a_string"}),
        ({"payment_event_id": "pay_1", "withdraws": ""}, {"/withdraws": "too_short"}),
        (REVERSAL | {"external_user_id": "x"}, {"/external_user_id": "unknown_field"}),
        ([REVERSAL], {"": "not_an_object"}),
    ],
)
async def test_refuses_what_is_neither_a_reversal_nor_a_withdrawal(body: Any, errors: dict[str, str]) -> None:
    world = World()
    await top_up(world)

    answer = await reverse(world, body)

    assert answer.status_code == 422
    assert {error["pointer"]: error["code"] for error in problem_of(answer)["errors"]} == errors
    assert not world.reversals.events


@pytest.mark.parametrize("secret", [None, "", "wrong", SOURCE_SECRET])
@pytest.mark.parametrize("body", [b"{}", b"{", b"\xff", b"", b" " * 1_000_000])
async def test_answers_401_to_a_wrong_secret_whatever_the_body_is(secret: str | None, body: bytes) -> None:
    headers = {} if secret is None else {"X-Webhook-Secret": secret}

    answer = await World().client().post("/webhook/reversal", content=body, headers=headers)

    assert answer.status_code == 401
    assert problem_of(answer)["code"] == "invalid_webhook_secret"


@pytest.mark.parametrize("event_id", ["", "a" * 256, "ä"])
async def test_refuses_an_odd_id(event_id: str) -> None:
    headers: Any = SECRET | {"X-Event-Id": event_id.encode()}

    answer = await World().client().post("/webhook/reversal", json=REVERSAL, headers=headers)

    assert answer.status_code == 422
    assert [error["pointer"] for error in problem_of(answer)["errors"]] == ["/X-Event-Id"]
