"""Which webhooks are taken for fal's, with keys fetched over HTTP from a server of the test."""

import base64
import gzip
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from app.application.ports.provider import Rejected, Succeeded
from app.domain.errors import InvalidProviderEvent, ProviderKeysUnavailable
from app.infrastructure.fal.exchange import HttpLimits
from app.infrastructure.fal.webhooks import KEYS_SECONDS_MAX, LIMITS, REFRESH_SECONDS_MIN, FalWebhooks
from tests.builders import IMAGES_SHAPE
from tests.contract.fal_calls import PATIENT, PLAIN, limits_for
from tests.fal_stub import Behaviour, FalStub, drip, drop, endless, hang, raw, reply, reset, running_stub

JWKS_PATH = "/.well-known/jwks.json"
USER_ID = "auth|user"
REQUEST_ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
RESULT = {"images": [{"url": "https://v3b.fal.media/fox.png"}]}


@dataclass
class Fal:
    """Signs like fal, and serves its keys."""

    stub: FalStub = field(default_factory=FalStub)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    now: float = field(default_factory=time.time)

    @property
    def jwks_url(self) -> str:
        return self.stub.url + JWKS_PATH

    @property
    def fetches(self) -> int:
        return len(self.stub.seen)

    def keys(self) -> dict[str, Any]:
        x = base64.urlsafe_b64encode(self.key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]}

    def change_key(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.stub.otherwise = reply(200, self.keys())

    def signed(
        self,
        body: bytes,
        *,
        request_id: str = REQUEST_ID,
        user_id: str = USER_ID,
        age_seconds: int = 0,
    ) -> dict[str, str]:
        timestamp = str(int(self.now) - age_seconds)
        message = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())).encode()
        return {
            "x-fal-webhook-request-id": request_id,
            "x-fal-webhook-user-id": user_id,
            "x-fal-webhook-timestamp": timestamp,
            "x-fal-webhook-signature": self.key.sign(message).hex(),
        }


def event(**changes: Any) -> bytes:
    document = {"request_id": REQUEST_ID, "gateway_request_id": REQUEST_ID, "status": "OK", "payload": RESULT}
    return json.dumps(document | changes).encode()


@pytest.fixture
def fal(stub: FalStub) -> Fal:
    fal = Fal(stub)
    stub.otherwise = reply(200, fal.keys())
    return fal


@asynccontextmanager
async def webhooks_of(fal: Fal, limits: HttpLimits) -> AsyncIterator[FalWebhooks]:
    bounded = replace(limits, body_bytes_max=LIMITS.body_bytes_max)
    async with FalWebhooks.open(
        jwks_url=fal.jwks_url, user_id=USER_ID, limits=bounded, ssl_context=PLAIN, clock=lambda: fal.now
    ) as opened:
        yield opened


@pytest.fixture
async def webhooks(fal: Fal) -> AsyncIterator[FalWebhooks]:
    async with webhooks_of(fal, PATIENT) as opened:
        yield opened


async def test_takes_what_fal_signed(fal: Fal, webhooks: FalWebhooks) -> None:
    verified = await webhooks.verify(fal.signed(event()), event())

    assert verified.request_id == REQUEST_ID
    assert webhooks.observation(verified, IMAGES_SHAPE) == Succeeded(RESULT)


@pytest.mark.parametrize("age_seconds", [-299, 299])
async def test_takes_a_clock_that_is_five_minutes_off(fal: Fal, webhooks: FalWebhooks, age_seconds: int) -> None:
    verified = await webhooks.verify(fal.signed(event(), age_seconds=age_seconds), event())

    assert verified.payload == RESULT


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda fal: (fal.signed(event()), event(payload={"images": []})), id="another body"),
        pytest.param(lambda fal: (Fal(now=fal.now).signed(event()), event()), id="another key"),
        pytest.param(lambda fal: (fal.signed(event(), age_seconds=301), event()), id="too old"),
        pytest.param(lambda fal: (fal.signed(event(), age_seconds=-302), event()), id="from the future"),
        pytest.param(lambda fal: (fal.signed(event(), user_id="another"), event()), id="another customer"),
        pytest.param(lambda fal: (fal.signed(event(), request_id="another"), event()), id="another request"),
        pytest.param(lambda fal: (fal.signed(b"[]"), b"[]"), id="no object"),
        pytest.param(lambda fal: (fal.signed(b"{"), b"{"), id="no JSON"),
        pytest.param(lambda fal: (fal.signed(event(request_id=None)), event(request_id=None)), id="no request id"),
        pytest.param(lambda fal: ({}, event()), id="no headers"),
        pytest.param(
            lambda fal: (fal.signed(event()) | {"x-fal-webhook-signature": "00" * 64}, event()), id="empty signature"
        ),
        pytest.param(
            lambda fal: (fal.signed(event()) | {"x-fal-webhook-timestamp": "9" * 400}, event()), id="huge timestamp"
        ),
        pytest.param(
            lambda fal: (fal.signed(event()) | {"x-fal-webhook-signature": "zz"}, event()), id="signature in no hex"
        ),
    ],
)
async def test_refuses_what_is_not_fals(
    fal: Fal, webhooks: FalWebhooks, forge: Callable[[Fal], tuple[dict[str, str], bytes]]
) -> None:
    headers, body = forge(fal)

    with pytest.raises(InvalidProviderEvent):
        await webhooks.verify(headers, body)


@pytest.mark.parametrize(
    ("signed", "reason", "facts"),
    [
        ({"age_seconds": 600}, "stale", {"skew_seconds": -600}),
        ({"age_seconds": 301}, "stale", {"skew_seconds": -301}),
        ({"age_seconds": -3600}, "stale", {"skew_seconds": 3600}),
        ({"user_id": "another"}, "foreign_user", {}),
        ({"user_id": ""}, "foreign_user", {}),
        ({"request_id": "another"}, "malformed_body", {}),
    ],
)
async def test_tells_the_operator_why_it_refuses(
    fal: Fal, webhooks: FalWebhooks, signed: dict[str, Any], reason: str, facts: dict[str, int]
) -> None:
    fal.now = round(fal.now)

    with pytest.raises(InvalidProviderEvent) as refused:
        await webhooks.verify(fal.signed(event(), **signed), event())

    assert (refused.value.reason, refused.value.facts) == (reason, facts)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x-fal-webhook-signature": "zz"}, "malformed_headers"),
        ({"x-fal-webhook-timestamp": "now"}, "malformed_headers"),
        ({"x-fal-webhook-signature": "00" * 64}, "bad_signature"),
        ({"x-fal-webhook-request-id": "another"}, "bad_signature"),
    ],
)
async def test_tells_headers_that_are_none_from_a_signature_that_fits_none(
    fal: Fal, webhooks: FalWebhooks, changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(InvalidProviderEvent) as refused:
        await webhooks.verify(fal.signed(event()) | changes, event())

    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "changes", [{"payload": None, "payload_error": "x"}, {"status": "ERROR", "payload": {"detail": []}}, {"status": 5}]
)
async def test_leaves_the_end_to_the_queue_where_the_event_has_no_result(
    fal: Fal, webhooks: FalWebhooks, changes: dict[str, Any]
) -> None:
    body = event(**changes)

    verified = await webhooks.verify(fal.signed(body), body)

    assert webhooks.observation(verified, IMAGES_SHAPE) is None


async def test_refuses_a_result_of_another_form(fal: Fal, webhooks: FalWebhooks) -> None:
    body = event(payload={"images": "none"})

    verified = await webhooks.verify(fal.signed(body), body)

    assert isinstance(webhooks.observation(verified, IMAGES_SHAPE), Rejected)


async def test_fetches_the_keys_once_and_again_after_a_day(fal: Fal, webhooks: FalWebhooks) -> None:
    for _ in range(3):
        await webhooks.verify(fal.signed(event()), event())
    fal.now += KEYS_SECONDS_MAX + 1
    await webhooks.verify(fal.signed(event()), event())

    assert fal.fetches == 2


async def test_learns_of_new_keys_when_a_signature_fails_but_not_at_every_forgery(
    fal: Fal, webhooks: FalWebhooks
) -> None:
    await webhooks.verify(fal.signed(event()), event())
    fal.change_key()
    fal.now += REFRESH_SECONDS_MIN + 1

    verified = await webhooks.verify(fal.signed(event()), event())

    assert verified.payload == RESULT
    for _ in range(5):
        with pytest.raises(InvalidProviderEvent):
            await webhooks.verify(Fal(now=fal.now).signed(event()), event())
    assert fal.fetches == 2


NO_KEYS = [
    pytest.param(reply(503), id="503"),
    pytest.param(reply(404, {"keys": []}), id="404"),
    pytest.param(reply(200, b"<html>"), id="no JSON"),
    pytest.param(reply(200, {"keys": []}), id="no keys"),
    pytest.param(reply(200, {"keys": [{"x": "AA"}, 5, {"x": None}]}), id="no usable key"),
    pytest.param(reply(200, []), id="no object"),
    pytest.param(reply(200, {"keys": {"x": "AA"}}), id="no list"),
    pytest.param(hang, id="no answer"),
    pytest.param(drip, id="no end"),
    pytest.param(endless, id="too much"),
    pytest.param(reset, id="reset"),
    pytest.param(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), id="no HTTP"),
]


@pytest.mark.parametrize("behaviour", NO_KEYS)
async def test_asks_for_another_delivery_where_the_keys_cannot_be_had(fal: Fal, behaviour: Behaviour) -> None:
    fal.stub.otherwise = behaviour

    async with webhooks_of(fal, limits_for(behaviour)) as webhooks:
        with pytest.raises(ProviderKeysUnavailable):
            await webhooks.verify(fal.signed(event()), event())


@pytest.mark.parametrize("behaviour", NO_KEYS)
async def test_keeps_its_keys_while_fal_gives_no_new_ones(fal: Fal, behaviour: Behaviour) -> None:
    async with webhooks_of(fal, limits_for(behaviour)) as webhooks:
        await webhooks.verify(fal.signed(event()), event())
        fal.stub.otherwise = behaviour
        fal.now += KEYS_SECONDS_MAX + 1

        verified = await webhooks.verify(fal.signed(event()), event())

    assert verified.payload == RESULT
    assert fal.fetches >= 2


async def test_follows_no_redirect_to_keys(fal: Fal, webhooks: FalWebhooks) -> None:
    fal.stub.then(reply(302, headers={"Location": "/elsewhere"}))

    with capture_logs() as logs, pytest.raises(ProviderKeysUnavailable):
        await webhooks.verify(fal.signed(event()), event())

    assert fal.stub.calls == [("GET", JWKS_PATH)]
    assert [(line["event"], line["status_code"]) for line in logs] == [("fal_webhook_keys_unusable", 302)]


@pytest.mark.parametrize(("size_bytes", "is_taken"), [(64 * 1024, True), (64 * 1024 + 1, False)])
async def test_takes_keys_of_64_kib_and_no_more(
    fal: Fal, webhooks: FalWebhooks, size_bytes: int, is_taken: bool
) -> None:
    fal.stub.otherwise = reply(200, json.dumps(fal.keys()).encode().ljust(size_bytes))

    if is_taken:
        assert (await webhooks.verify(fal.signed(event()), event())).payload == RESULT
    else:
        with pytest.raises(ProviderKeysUnavailable):
            await webhooks.verify(fal.signed(event()), event())


async def test_unpacks_nothing_so_that_nothing_small_becomes_large(fal: Fal, webhooks: FalWebhooks) -> None:
    packed = gzip.compress(json.dumps(fal.keys()).encode())
    fal.stub.otherwise = reply(200, packed, {"Content-Encoding": "gzip"})

    with pytest.raises(ProviderKeysUnavailable):
        await webhooks.verify(fal.signed(event()), event())

    assert fal.stub.seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (hang, "fal stopped answering"),
        (drip, "no answer from fal within 1 s"),
        (drop, "the connection to fal broke (ServerDisconnectedError)"),
    ],
)
async def test_says_why_the_keys_cannot_be_had(fal: Fal, behaviour: Behaviour, reason: str) -> None:
    fal.stub.otherwise = behaviour

    async with webhooks_of(fal, limits_for(behaviour)) as webhooks:
        with capture_logs() as logs, pytest.raises(ProviderKeysUnavailable):
            await webhooks.verify(fal.signed(event()), event())

    assert logs == [{"event": "fal_webhook_keys_unavailable", "log_level": "warning", "error": reason}]


def test_waits_ten_seconds_for_the_keys_at_most() -> None:
    times = (LIMITS.connect_seconds, LIMITS.pool_seconds, LIMITS.read_seconds, LIMITS.exchange_seconds)

    assert times == (10, 10, 10, 10)


async def test_takes_no_proxy_and_no_password_from_the_environment(
    fal: Fal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with running_stub() as proxy:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with FalWebhooks.open(jwks_url=fal.jwks_url, user_id=USER_ID, ssl_context=PLAIN) as webhooks:
            await webhooks.verify(fal.signed(event()), event())

    assert proxy.seen == []
    assert "authorization" not in fal.stub.seen[0].headers


async def test_asks_for_the_keys_without_ours(fal: Fal, webhooks: FalWebhooks) -> None:
    await webhooks.verify(fal.signed(event()), event())

    headers: Mapping[str, str] = fal.stub.seen[0].headers
    assert {name: headers[name] for name in headers if name not in ("host", "connection")} == {
        "user-agent": "tollgate",
        "accept": "application/json",
        "accept-encoding": "identity",
    }
