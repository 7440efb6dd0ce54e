"""The headers that every answer carries, whoever made it."""

import re
from collections.abc import Iterable
from typing import TypeAlias

from starlette.types import Message

from app.presentation.http.errors import PROBLEM_MEDIA_TYPE

Header: TypeAlias = tuple[bytes, bytes]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Our pages load nothing from elsewhere. ReDoc would fetch its logo from its maker.
_PAGE_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
_PRIVATE_MEDIA_TYPES = frozenset({b"application/json", PROBLEM_MEDIA_TYPE.encode()})


def request_id_in(headers: Iterable[Header]) -> str | None:
    """The caller's own name for the request, if it is one that we can echo and log."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return None


def mark(message: Message, request_id: str, *, is_last: bool) -> None:
    """Complete the start of an answer. `is_last`: the connection ends with it."""
    headers = message.setdefault("headers", [])
    media_type = value_of(headers, b"content-type")
    if media_type in _PRIVATE_MEDIA_TYPES:
        # Keys, balances, jobs and errors are for the caller alone: no cache may keep them.
        if not value_of(headers, b"cache-control"):
            headers.append((b"cache-control", b"no-store"))
    elif media_type.startswith(b"text/html") and not value_of(headers, b"content-security-policy"):
        headers.append((b"content-security-policy", _PAGE_POLICY))
    if is_last:
        headers.append((b"connection", b"close"))
    headers.append((b"x-request-id", request_id.encode()))
    headers.append((b"x-content-type-options", b"nosniff"))


def value_of(headers: Iterable[Header], name: bytes) -> bytes:
    for known, value in headers:
        if known == name:
            return value
    return b""
