"""The ways in which a request may carry its user's key."""

from collections.abc import Iterable, Sequence
from typing import Any

from app.domain.errors import InvalidApiKey

API_KEY_HEADER = "X-API-Key"
API_KEY_SCHEME = "ApiKey"
AUTHORIZATION_SCHEME = "Authorization"
SECURITY: Sequence[dict[str, list[str]]] = ({API_KEY_SCHEME: []}, {AUTHORIZATION_SCHEME: []})
AUTHORIZATION_DOCUMENT: dict[str, Any] = {
    "type": "http",
    "scheme": "bearer",
    "description": "The same key as `Authorization: Bearer <key>` or `Authorization: Key <key>`.",
}

_SCHEMES = frozenset({b"bearer", b"key"})


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that the request carries; None if it carries none. Header names are lower case.

    Raises InvalidApiKey for two keys that differ, because only the caller knows which of them it means, and for an
    Authorization that holds no key, because whoever sent it would look for the mistake elsewhere.
    """
    found: bytes | None = None
    is_unknown = False
    for name, value in headers:
        if name == b"x-api-key":
            key: bytes | None = value
        elif name == b"authorization":
            key = _authorized(value)
            is_unknown = is_unknown or key is None
        else:
            continue
        if key is None:
            continue
        if found is not None and key != found:
            raise InvalidApiKey("The request carries two different keys. Send one.")
        found = key
    if found is None and is_unknown:
        raise InvalidApiKey(
            "The Authorization header must be `Bearer <key>` or `Key <key>`; X-API-Key will do as well."
        )
    return None if found is None else found.decode("latin-1")


def _authorized(value: bytes) -> bytes | None:
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() in _SCHEMES else None
