"""What one webhook says: fal's payload, headers and signature, and the flaws that a prompt can ask for."""

from dataclasses import dataclass
from typing import Any

import uuid_utils

from simulator.answers import Answer
from simulator.faults import WEBHOOK, FaultyCall, content_of
from simulator.requests import Outcome, QueueRequest
from simulator.signing import SigningKey

FOREIGN_USER_ID = "another-user"
# Twice what a receiver may accept.
STALE_SECONDS = 600
PAYLOAD_ERROR = (
    "Response payload is not JSON serializable. Either return a JSON serializable object or use the queue endpoint "
    "to retrieve the response."
)


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    body: bytes
    headers: dict[str, str]


class WebhookSigner:
    def __init__(self, key: SigningKey) -> None:
        self._key = key
        # Of no key set: what somebody else would sign with.
        self._unknown_key = SigningKey()

    @property
    def key_set(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": [self._key.jwk]}

    def message(self, request: QueueRequest, outcome: Outcome, user_id: str, now: float) -> WebhookMessage:
        behaviour = request.behaviour
        request_id = str(uuid_utils.uuid7()) if behaviour.webhook_names_wrong_request else request.request_id
        if behaviour.webhook_names_foreign_user:
            user_id = FOREIGN_USER_ID
        timestamp = str(int(now) - (STALE_SECONDS if behaviour.webhook_is_stale else 0))
        body = _body(request, _fields(request_id, request, outcome))
        key = self._unknown_key if behaviour.webhook_has_unknown_key else self._key
        # A forger has a signature, but of something else.
        signed_body = b"{}" if behaviour.webhook_is_forged else body
        return WebhookMessage(
            body,
            {
                "content-type": "application/json",
                "x-fal-webhook-request-id": request_id,
                "x-fal-webhook-user-id": user_id,
                "x-fal-webhook-timestamp": timestamp,
                "x-fal-webhook-signature": key.signature(request_id, user_id, timestamp, signed_body),
            },
        )


def _fields(request_id: str, request: QueueRequest, outcome: Outcome) -> dict[str, Any]:
    fields: dict[str, Any] = {"request_id": request_id, "gateway_request_id": request_id, "status": "OK"}
    if "error" in outcome.error_fields:
        fields |= {"status": "ERROR", "error": outcome.error_fields["error"]}
    if request.behaviour.webhook_has_null_payload:
        return fields | {"payload": None, "payload_error": PAYLOAD_ERROR}
    return fields | {"payload": outcome.answer.body}


def _body(request: QueueRequest, fields: dict[str, Any]) -> bytes:
    """Faults of the result are faults of the payload; what breaks the JSON breaks all of it."""
    faults = FaultyCall(tuple(fault for fault in request.behaviour.faults if fault.operation == WEBHOOK))
    answer = Answer(200, fields)
    if isinstance(fields["payload"], dict):
        payload = faults.edited(Answer(200, fields["payload"])).body
        answer = Answer(200, payload if isinstance(payload, str) else fields | {"payload": payload})
    return faults.truncated(content_of(answer))
