"""What signs our webhooks, held against the library of Standard Webhooks, by which others verify them."""

import base64
import json
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.webhook_signatures import new_secret, sign

EVENT = {
    "id": "evt_1",
    "seq": 1,
    "type": "balance.credited",
    "created_at": "2026-11-23T10:15:41.654321Z",
    "data": {"balance_tokens": 5, "entry": {"reason": "Спасибо \u2028"}},
}


def secret_of(size_bytes: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size_bytes))).decode()


def headers_of(secret: str, body: bytes, *, seconds: int | None = None) -> dict[str, str]:
    timestamp = int(time.time()) if seconds is None else seconds
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign([secret], "evt_1", timestamp, body),
    }


@pytest.mark.parametrize("secret", [new_secret(), secret_of(24), secret_of(64)], ids=["new", "shortest", "longest"])
def test_the_library_verifies_what_is_signed(secret: str) -> None:
    body = json.dumps(EVENT, ensure_ascii=False).encode()

    assert Webhook(secret).verify(body, headers_of(secret, body)) == EVENT


def test_the_library_verifies_either_secret_while_one_is_exchanged() -> None:
    former, new, body = new_secret(), new_secret(), b"{}"
    now = int(time.time())
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(now)}
    headers["webhook-signature"] = sign([new, former], "evt_1", now, body)

    assert Webhook(former).verify(body, headers) == Webhook(new).verify(body, headers) == {}


def test_signs_as_the_standards_own_example() -> None:
    body = b'{"test": 2432232314}'

    signature = sign(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("changed", [b" ", b"{}"])
def test_a_signature_is_of_its_body_alone(changed: bytes) -> None:
    secret, body = new_secret(), json.dumps(EVENT).encode()

    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + changed, headers_of(secret, body))


def test_every_secret_is_another_one() -> None:
    secrets = {new_secret() for _ in range(100)}

    assert len(secrets) == 100
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in secrets)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        secret_of(32).removeprefix("whsec_"),
        secret_of(23),
        secret_of(65),
        "whsec_" + "é" * 32,
        "whsec_" + "-_" * 16,
        secret_of(32) + "\n",
        secret_of(32).rstrip("="),
    ],
)
def test_a_malformed_secret_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match="base64 of 24 to 64 bytes") as caught:
        sign([secret], "evt_1", 1, b"")

    assert not secret.removeprefix("whsec_") or secret not in str(caught.value)
