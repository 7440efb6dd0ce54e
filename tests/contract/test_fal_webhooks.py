"""Which webhooks are taken for fal's, with keys fetched over HTTP from a server of the test."""

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.application.ports.provider import Rejected, Succeeded
from app.domain.catalogue import GenerationKind
from app.domain.errors import InvalidProviderEvent, ProviderKeysUnavailable
from app.infrastructure.fal.webhooks import KEYS_SECONDS_MAX, REFRESH_SECONDS_MIN, FalWebhooks

JWKS_URL = "http://fal.test/.well-known/jwks.json"
USER_ID = "auth|user"
REQUEST_ID = "764cabcf-b745-4b3e-ae38-1200304cf45b"
RESULT = {"images": [{"url": "https://v3b.fal.media/fox.png"}]}


@dataclass
class Fal:
    """Signs like fal, and serves its keys."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    now: float = field(default_factory=time.time)
    answer: Callable[[], Response] | None = None
    fetches: int = 0

    def keys(self) -> dict[str, Any]:
        x = base64.urlsafe_b64encode(self.key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x}]}

    async def serve_keys(self, _: Request) -> Response:
        self.fetches += 1
        return self.answer() if self.answer else JSONResponse(self.keys())

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
def fal() -> Fal:
    return Fal()


@pytest.fixture
async def webhooks(fal: Fal) -> AsyncIterator[FalWebhooks]:
    server = Starlette(routes=[Route("/.well-known/jwks.json", fal.serve_keys)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(server)) as http:
        yield FalWebhooks(http, JWKS_URL, USER_ID, clock=lambda: fal.now)


async def test_takes_what_fal_signed(fal: Fal, webhooks: FalWebhooks) -> None:
    verified = await webhooks.verify(fal.signed(event()), event())

    assert verified.request_id == REQUEST_ID
    assert webhooks.observation(verified, GenerationKind.TEXT_TO_IMAGE) == Succeeded(RESULT)


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
    "changes", [{"payload": None, "payload_error": "x"}, {"status": "ERROR", "payload": {"detail": []}}, {"status": 5}]
)
async def test_leaves_the_end_to_the_queue_where_the_event_has_no_result(
    fal: Fal, webhooks: FalWebhooks, changes: dict[str, Any]
) -> None:
    body = event(**changes)

    verified = await webhooks.verify(fal.signed(body), body)

    assert webhooks.observation(verified, GenerationKind.TEXT_TO_IMAGE) is None


async def test_refuses_a_result_of_another_form(fal: Fal, webhooks: FalWebhooks) -> None:
    body = event(payload={"images": "none"})

    verified = await webhooks.verify(fal.signed(body), body)

    assert isinstance(webhooks.observation(verified, GenerationKind.TEXT_TO_IMAGE), Rejected)


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
    fal.key = Ed25519PrivateKey.generate()
    fal.now += REFRESH_SECONDS_MIN + 1

    verified = await webhooks.verify(fal.signed(event()), event())

    assert verified.payload == RESULT
    for _ in range(5):
        with pytest.raises(InvalidProviderEvent):
            await webhooks.verify(Fal(now=fal.now).signed(event()), event())
    assert fal.fetches == 2


@pytest.mark.parametrize(
    "answer",
    [
        lambda: Response(status_code=503),
        lambda: Response("<html>"),
        lambda: JSONResponse({"keys": []}),
        lambda: JSONResponse({"keys": [{"x": "AA"}, 5, {"x": None}]}),
        lambda: JSONResponse([]),
        lambda: JSONResponse({"keys": {"x": "AA"}}),
    ],
)
async def test_asks_for_another_delivery_where_the_keys_cannot_be_had(
    fal: Fal, webhooks: FalWebhooks, answer: Callable[[], Response]
) -> None:
    fal.answer = answer

    with pytest.raises(ProviderKeysUnavailable):
        await webhooks.verify(fal.signed(event()), event())


async def test_keeps_its_keys_while_fal_gives_no_new_ones(fal: Fal, webhooks: FalWebhooks) -> None:
    await webhooks.verify(fal.signed(event()), event())
    fal.answer = lambda: Response(status_code=503)
    fal.now += KEYS_SECONDS_MAX + 1

    verified = await webhooks.verify(fal.signed(event()), event())

    assert verified.payload == RESULT
