"""The ways in which a request may carry its user's key."""

import re
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
# What a gateway in front of us puts there, and signs: a key of ours has no dot.
_JSON_WEB_TOKEN = re.compile(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*){2,4}")


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that the request carries; None if it carries none. Header names are lower case.

    Raises InvalidApiKey for two keys that differ: only the caller knows which of them it means. An Authorization of
    another kind is for somebody in front of us.
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"x-api-key":
            key: bytes | None = value
        elif name == b"authorization":
            key = _authorized(value)
        else:
            continue
        if key is None:
            continue
        if found is not None and key != found:
            raise InvalidApiKey("The request carries two different keys. Send one.")
        found = key
    return None if found is None else found.decode("latin-1")


def _authorized(value: bytes) -> bytes | None:
    scheme, _, key = value.partition(b" ")
    key = key.strip()
    return key if scheme.lower() in _SCHEMES and not _JSON_WEB_TOKEN.fullmatch(key) else None
