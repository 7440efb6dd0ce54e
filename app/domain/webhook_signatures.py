"""Signatures of what is sent to customers, by Standard Webhooks 1.0 (github.com/standard-webhooks/standard-webhooks).

A secret is `whsec_` and the base64 of its bytes. Signed is `id.timestamp.body`, with HMAC-SHA256.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(secrets_in_force: Sequence[str], message_id: str, timestamp_seconds: int, body: bytes) -> str:
    """What `webhook-signature` holds: one signature for each secret. Raises ValueError for what is no secret."""
    signed = f"{message_id}.{timestamp_seconds}.".encode() + body
    return " ".join(f"v1,{_signature(secret, signed)}" for secret in secrets_in_force)


def _signature(secret: str, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(_key_of(secret), signed, hashlib.sha256)).decode()


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(PREFIX) or not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(f"a secret is {PREFIX} and the base64 of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")
    return key
