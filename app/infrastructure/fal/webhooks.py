"""Reads fal's webhooks: who signed one, when, and what it says. fal puts one Ed25519 signature under four lines."""

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Self

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.application.ports.provider import Observation, ProviderEvent
from app.domain.errors import InvalidProviderEvent, ProviderKeysUnavailable
from app.domain.terms import ResultShape
from app.infrastructure.egress import Egress
from app.infrastructure.fal import json_values, wire
from app.infrastructure.fal.exchange import Exchange, HttpLimits, Unanswered, open_exchange
from app.infrastructure.fal.wire import Answer

log = structlog.get_logger(__name__)

# fal names both figures: https://docs.fal.ai/model-apis/model-endpoints/webhooks
TIMESTAMP_SECONDS_MAX = 300
KEYS_SECONDS_MAX = 24 * 3600
# A forger must not make us ask fal for its keys with every try.
REFRESH_SECONDS_MIN = 60
KEYS_MAX = 20
LIMITS = HttpLimits(
    connect_seconds=10.0, read_seconds=10.0, exchange_seconds=10.0, body_bytes_max=64 * 1024, connections_max=1
)

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Signed:
    request_id: str
    user_id: str
    timestamp: str
    signature: bytes

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read the headers, whose names are lower case. Raises InvalidProviderEvent."""
        signature = headers.get("x-fal-webhook-signature", "")
        timestamp = headers.get("x-fal-webhook-timestamp", "")
        if not _SIGNATURE.fullmatch(signature) or not _TIMESTAMP.fullmatch(timestamp):
            raise InvalidProviderEvent("malformed_headers")
        return cls(
            request_id=headers.get("x-fal-webhook-request-id", ""),
            user_id=headers.get("x-fal-webhook-user-id", ""),
            timestamp=timestamp,
            signature=bytes.fromhex(signature),
        )

    def message(self, body: bytes) -> bytes:
        digest = hashlib.sha256(body).hexdigest()
        return "\n".join((self.request_id, self.user_id, self.timestamp, digest)).encode()


class FalWebhooks:
    """Callers open one with `FalWebhooks.open`."""

    def __init__(
        self, exchange: Exchange, jwks_url: str, user_id: str | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._exchange = exchange
        self._jwks_url = jwks_url
        self._user_id = user_id
        self._clock = clock
        self._keys: list[Ed25519PublicKey] = []
        self._fetched_at = -float("inf")
        self._asked_at = -float("inf")
        self._fetching = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        jwks_url: str,
        user_id: str | None,
        limits: HttpLimits = LIMITS,
        ssl_context: SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        egress: Egress | None = None,
    ) -> AsyncIterator[Self]:
        """Open connections of its own: fal's keys are public, and our key is not for that host."""
        async with open_exchange(limits=limits, ssl_context=ssl_context, egress=egress) as exchange:
            yield cls(exchange, jwks_url, user_id, clock)

    async def verify(self, headers: Mapping[str, str], body: bytes) -> ProviderEvent:
        """Raises InvalidProviderEvent, and ProviderKeysUnavailable if fal's keys cannot be had."""
        signed = self._signed(headers)
        if not await self._is_signed_by_fal(signed.message(body), signed.signature):
            raise InvalidProviderEvent("bad_signature")
        document = _document(body)
        # fal signed the body, but every customer of fal can have something signed: the id must be the signed one.
        if wire.request_id_in(document) is None or document["request_id"] != signed.request_id:
            raise InvalidProviderEvent("malformed_body")
        payload = document.get("payload")
        is_success = document.get("status") == "OK" and isinstance(payload, dict)
        return ProviderEvent(signed.request_id, payload if is_success else None)

    def check_headers(self, headers: Mapping[str, str]) -> None:
        self._signed(headers)

    def _signed(self, headers: Mapping[str, str]) -> _Signed:
        signed = _Signed.of(headers)
        skew_seconds = int(signed.timestamp) - self._clock()
        if abs(skew_seconds) > TIMESTAMP_SECONDS_MAX:
            # Negative: it is older than our clock allows.
            raise InvalidProviderEvent("stale", skew_seconds=round(skew_seconds))
        if self._user_id is not None and signed.user_id != self._user_id:
            raise InvalidProviderEvent("foreign_user")
        return signed

    def observation(self, event: ProviderEvent, shape: ResultShape) -> Observation | None:
        """Read a successful event. None if it only says that the request is over, and the queue has to tell how."""
        return None if event.payload is None else wire.result_of(event.payload, shape)

    async def _is_signed_by_fal(self, message: bytes, signature: bytes) -> bool:
        if self._clock() - self._fetched_at > KEYS_SECONDS_MAX:
            await self._fetch_keys()
        if not self._keys:
            raise ProviderKeysUnavailable
        if _verifies(self._keys, message, signature):
            return True
        # fal may have new keys.
        return await self._fetch_keys() and _verifies(self._keys, message, signature)

    async def _fetch_keys(self) -> bool:
        """Return whether there are fresh keys. If fal has none to give, the old ones stay."""
        async with self._fetching:
            if self._clock() - self._asked_at < REFRESH_SECONDS_MIN:
                return False
            self._asked_at = self._clock()
            try:
                answer = await self._exchange.get(self._jwks_url)
            except Unanswered as error:
                log.warning("fal_webhook_keys_unavailable", error=str(error))
                return False
            keys = _keys_in(answer) if answer.status == 200 else []
            if not keys:
                log.warning("fal_webhook_keys_unusable", status_code=answer.status)
                return False
            self._keys, self._fetched_at = keys, self._clock()
            return True


def _verifies(keys: list[Ed25519PublicKey], message: bytes, signature: bytes) -> bool:
    for key in keys:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return True
    return False


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = json_values.parse(body)
    except ValueError as error:
        raise InvalidProviderEvent("malformed_body") from error
    if not isinstance(document, dict):
        raise InvalidProviderEvent("malformed_body")
    return document


def _keys_in(answer: Answer) -> list[Ed25519PublicKey]:
    """Read the keys as RFC 8037 has them, with `x` in base64url without padding; leave out keys of other kinds."""
    given = answer.document().get("keys")
    items = given[:KEYS_MAX] if isinstance(given, list) else []
    return [key for item in items if (key := _key(item)) is not None]


def _key(item: object) -> Ed25519PublicKey | None:
    x = item.get("x") if isinstance(item, dict) else None
    try:
        return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(f"{x}==")) if isinstance(x, str) else None
    except ValueError:
        return None
