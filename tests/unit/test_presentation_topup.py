from typing import Any
from uuid import uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from app.domain.ledger import BALANCE_TOKENS_MAX
from app.domain.payments import TOPUP_TOKENS_MAX
from tests.unit.presentation_stand_ins import SOURCE_SECRET, WEBHOOK_SECRET, World, problem_of

SECRET = {"X-Webhook-Secret": WEBHOOK_SECRET}


async def top_up(world: World, user: object, amount: object, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"external_user_id": str(user), "amount": amount}
    return await world.client().post("/webhook/topup", json=body, headers=SECRET | named)


async def test_credits_an_event_once_however_often_it_comes() -> None:
    world, user = World(), uuid4()

    answers = [await top_up(world, user, 100, X_Event_Id="evt-1") for _ in range(3)]

    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"ok": True})] * 3
    assert world.accounts.accounts[user].balance_tokens == 100


async def test_answers_409_when_a_known_event_comes_with_another_amount() -> None:
    world, user = World(), uuid4()
    await top_up(world, user, 100, X_Event_Id="evt-1")

    response = await top_up(world, user, 101, X_Event_Id="evt-1")

    assert response.status_code == 409
    assert problem_of(response)["code"] == "payment_event_conflict"
    assert world.accounts.accounts[user].balance_tokens == 100


async def test_answers_409_when_the_balance_would_become_too_large() -> None:
    world = World()
    account, _ = await world.a_user(tokens=BALANCE_TOKENS_MAX)

    response = await top_up(world, account.external_user_id, 1, X_Event_Id="evt-1")

    assert response.status_code == 409
    assert problem_of(response)["code"] == "balance_limit_exceeded"


@pytest.mark.parametrize(("is_required", "status"), [(False, 200), (True, 400)])
async def test_wants_an_event_id_where_it_is_required(is_required: bool, status: int) -> None:
    world = World(is_event_id_required=is_required)

    response = await top_up(world, uuid4(), 1)

    assert response.status_code == status
    if is_required:
        assert problem_of(response)["code"] == "payment_event_id_required"


@pytest.mark.parametrize("secret", [None, "", "wrong", "gehéim"])
@pytest.mark.parametrize("body", [b"{}", b"{", b"\xff", b"", b"[" * 100_000, b'{"amount": NaN}', b" " * 1_000_000])
async def test_answers_401_to_a_wrong_secret_whatever_the_body_is(secret: str | None, body: bytes) -> None:
    headers = {} if secret is None else {"X-Webhook-Secret": secret.encode()}

    response = await World().client().post("/webhook/topup", content=body, headers=headers)  # type: ignore[arg-type]

    assert response.status_code == 401
    assert problem_of(response)["code"] == "invalid_webhook_secret"


@pytest.mark.parametrize("event_id", ["", "a" * 256, "ä", "a\tb"])
async def test_refuses_an_odd_event_id_and_credits_nothing(event_id: str) -> None:
    world, user = World(), uuid4()
    body = {"external_user_id": str(user), "amount": 1}
    headers: Any = SECRET | {"X-Event-Id": event_id.encode()}

    response = await world.client().post("/webhook/topup", json=body, headers=headers)

    assert response.status_code == 422
    assert [error["pointer"] for error in problem_of(response)["errors"]] == ["/X-Event-Id"]
    assert user not in world.accounts.accounts


async def test_refuses_two_event_ids_and_credits_nothing() -> None:
    world, user = World(), uuid4()
    headers = [*SECRET.items(), ("X-Event-Id", "a"), ("X-Event-Id", "b")]

    response = await world.client().post(
        "/webhook/topup", json={"external_user_id": str(user), "amount": 1}, headers=headers
    )

    assert response.status_code == 422
    assert problem_of(response)["errors"][0]["code"] == "repeated_header"
    assert user not in world.accounts.accounts


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        ("0", "too_small"),
        ("-1", "too_small"),
        ("-0", "too_small"),
        (str(TOPUP_TOKENS_MAX + 1), "too_large"),
        (str(2**63), "too_large"),
        ("9" * 400, "too_large"),
        ("9" * 5000, "not_an_integer"),
        ("true", "not_an_integer"),
        ('"5"', "not_an_integer"),
        ("5.0", "not_an_integer"),
        ("1e3", "not_an_integer"),
        ("1e999", "not_an_integer"),
        ("NaN", "not_an_integer"),
        ("-Infinity", "not_an_integer"),
        ("null", "not_an_integer"),
        ("[5]", "not_an_integer"),
    ],
)
async def test_refuses_an_amount_that_is_no_positive_whole_number_in_range(amount: str, code: str) -> None:
    body = f'{{"external_user_id": "{uuid4()}", "amount": {amount}}}'
    headers = SECRET | {"Content-Type": "application/json"}

    response = await World().client().post("/webhook/topup", content=body, headers=headers)

    assert response.status_code == 422
    assert [(error["pointer"], error["code"]) for error in problem_of(response)["errors"]] == [("/amount", code)]


async def test_refuses_an_unknown_field() -> None:
    body = {"external_user_id": str(uuid4()), "amount": 1, "currency": "EUR"}

    response = await World().client().post("/webhook/topup", json=body, headers=SECRET)

    assert response.status_code == 422
    assert problem_of(response)["errors"] == [
        {"pointer": "/currency", "detail": "This field is not known here.", "code": "unknown_field"}
    ]


async def test_an_idempotency_key_serves_where_there_is_no_event_id() -> None:
    world = World()
    account, _ = await world.a_user()
    body = {"external_user_id": str(account.external_user_id), "amount": 7}
    headers = {"X-Webhook-Secret": WEBHOOK_SECRET, "Idempotency-Key": "payment-1"}

    answers = [await world.client().post("/webhook/topup", json=body, headers=headers) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert world.accounts.accounts[account.external_user_id].balance_tokens == 7


HEADERS = ("X-Event-Id", "Idempotency-Key")


async def paid(world: World, user: object, amount: int, path: str = "", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"external_user_id": str(user), "amount": amount}
    return await world.client().post(f"/webhook/topup{path}", json=body, headers=named)


@pytest.mark.parametrize("names", [HEADERS, HEADERS[::-1], ("x-event-id", "IDEMPOTENCY-KEY")])
async def test_both_headers_name_one_payment(names: tuple[str, str]) -> None:
    world, user = World(), uuid4()

    answers = [await top_up(world, user, 100, **{name.replace("-", "_"): "pay_1"}) for name in names]
    answers.append(await top_up(world, user, 100, X_Event_Id="pay_1", Idempotency_Key="pay_1"))

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert world.accounts.accounts[user].balance_tokens == 100


async def test_a_payment_of_one_header_conflicts_with_another_one_of_the_other() -> None:
    world, user = World(), uuid4()
    await top_up(world, user, 100, X_Event_Id="pay_1")

    answer = await top_up(world, user, 101, Idempotency_Key="pay_1")

    assert (answer.status_code, problem_of(answer)["code"]) == (409, "payment_event_conflict")


@pytest.mark.parametrize(("event_id", "key"), [("pay_1", "pay_2"), ("pay_1", "PAY_1"), ("pay_1", "pay_1 x")])
@pytest.mark.parametrize("path", ["", "/x"])
async def test_refuses_two_names_for_one_payment(path: str, event_id: str, key: str) -> None:
    world, user = World(), uuid4()
    secret = SOURCE_SECRET if path else WEBHOOK_SECRET

    answer = await paid(world, user, 100, path, X_Webhook_Secret=secret, X_Event_Id=event_id, Idempotency_Key=key)

    assert answer.status_code == 422
    errors = problem_of(answer)["errors"]
    assert [(error["pointer"], error["code"]) for error in errors] == [(f"/{name}", "two_names") for name in HEADERS]
    assert user not in world.accounts.accounts


@pytest.mark.parametrize("key", ["", "a" * 256, "\u00e4"])
async def test_an_odd_name_is_refused_beside_a_good_one(key: str) -> None:
    world, user = World(), uuid4()
    body = {"external_user_id": str(user), "amount": 1}
    headers: Any = SECRET | {"X-Event-Id": "pay_1", "Idempotency-Key": key.encode()}

    answer = await world.client().post("/webhook/topup", json=body, headers=headers)

    assert answer.status_code == 422
    assert user not in world.accounts.accounts


async def test_each_source_names_its_own_payments() -> None:
    world = World(secrets_by_source={"stripe": ["one"], "yookassa": ["two"], "webhook": ["three"]})
    users = [uuid4() for _ in range(4)]

    answers = [
        await paid(world, users[0], 1, "/stripe", X_Webhook_Secret="one", X_Event_Id="1001"),
        await paid(world, users[1], 2, "/yookassa", X_Webhook_Secret="two", Idempotency_Key="1001"),
        await paid(world, users[2], 3, "/webhook", X_Webhook_Secret="three", X_Event_Id="1001"),
        await paid(world, users[3], 4, "", X_Webhook_Secret=WEBHOOK_SECRET, X_Event_Id="1001"),
        await paid(world, users[0], 1, "/stripe", X_Webhook_Secret="one", Idempotency_Key="1001"),
    ]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert [world.accounts.accounts[user].balance_tokens for user in users] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("/yookassa", "one"),
        ("/stripe", "two"),
        ("/stripe", WEBHOOK_SECRET),
        ("", "one"),
        ("/unknown", "one"),
        ("/unknown", WEBHOOK_SECRET),
        ("/unknown", ""),
        ("/unknown", None),
        ("/Stripe", "one"),
        ("/stripe%20", "one"),
        ("/None", WEBHOOK_SECRET),
        (f"/{'s' * 4000}", "one"),
        ("/str%00ipe", "one"),
        ("/stripe", "one,two"),
        ("/stripe", "one,"),
    ],
)
async def test_a_secret_opens_its_own_source_and_all_others_alike(path: str, secret: str | None) -> None:
    world = World(secrets_by_source={"stripe": ["one"], "yookassa": ["two"]})
    headers = {"X_Event_Id": "1"} | ({} if secret is None else {"X_Webhook_Secret": secret})

    answer = await paid(world, uuid4(), 1, path, **headers)

    assert answer.status_code == 401
    problem = problem_of(answer)
    assert (problem["code"], problem["detail"]) == (
        "invalid_webhook_secret",
        "Send the payment provider's secret in the X-Webhook-Secret header.",
    )
    assert world.accounts.accounts == {}


@pytest.mark.parametrize("secret", ["new", "old"])
async def test_two_secrets_are_good_while_senders_change_over(secret: str) -> None:
    world = World(webhook_secrets=["new", "old"], secrets_by_source={"stripe": ["newer", "older"]})

    answers = [
        await paid(world, uuid4(), 1, X_Webhook_Secret=secret, X_Event_Id="1"),
        await paid(
            world, uuid4(), 1, "/stripe", X_Webhook_Secret={"new": "newer", "old": "older"}[secret], X_Event_Id="1"
        ),
    ]

    assert [answer.status_code for answer in answers] == [200, 200]


async def test_what_is_refused_for_good_is_kept_and_raises_one_alarm() -> None:
    world, user = World(), uuid4()
    await top_up(world, user, 100, X_Event_Id="pay_1")

    with capture_logs() as logs:
        answers = [await top_up(world, user, 101, X_Event_Id="pay_1") for _ in range(3)]
        answers.append(await top_up(world, uuid4(), 100, X_Event_Id="pay_1"))

    assert [answer.status_code for answer in answers] == [409] * 4
    refused = [
        (log["log_level"], log["reason"], log["deliveries"]) for log in logs if log["event"] == "payment_refused"
    ]
    assert refused == [
        ("error", "payment_event_conflict", 1),
        ("warning", "payment_event_conflict", 2),
        ("warning", "payment_event_conflict", 3),
        ("error", "payment_event_conflict", 1),
    ]
    assert sorted(world.payments.refusals.values()) == [1, 3]


async def test_a_payment_without_a_name_that_does_not_fit_is_kept_once() -> None:
    world = World()
    account, _ = await world.a_user(tokens=BALANCE_TOKENS_MAX)

    answers = [await top_up(world, account.external_user_id, 1) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [409] * 3
    assert list(world.payments.refusals.values()) == [3]


async def test_nothing_is_kept_of_who_does_not_know_the_secret() -> None:
    world, user = World(), uuid4()
    await top_up(world, user, 100, X_Event_Id="pay_1")

    answer = await paid(world, user, 101, X_Webhook_Secret="wrong", X_Event_Id="pay_1")

    assert answer.status_code == 401
    assert not world.payments.refusals
