import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

import structlog
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from app.presentation.http.errors import PROBLEM_MEDIA_TYPE, RequestHeadersTooLarge, problem

log = structlog.get_logger(__name__)

HEADERS_BYTES_MAX = 32 * 1024
_SEPARATORS_BYTES = len(": \r\n")
# nginx logs this status if the client went away before there was an answer; it never goes over the wire.
STATUS_CLIENT_GONE = 499

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Our pages load nothing from elsewhere. ReDoc would fetch its logo from its maker.
_PAGE_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    b"img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
_PRIVATE_MEDIA_TYPES = frozenset({b"application/json", PROBLEM_MEDIA_TYPE.encode()})

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Names every request, writes its one log line, and turns an unexpected exception into a plain 500.

    The exception ends here: Starlette would raise it again, and the server would close the connection.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status: int | None = None
        request_id = _request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        # A mounted application puts itself into the scope in the place of this one.
        api = scope["app"]

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _mark(message, request_id, is_stopping=api.state.is_stopping)
            await send(message)

        names = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            # httptools accepts headers of any size; this limit protects everything behind it.
            if _size_bytes(scope["headers"]) > HEADERS_BYTES_MAX:
                await _refuse_headers(scope)(scope, receive, send_marked)
            else:
                await self.app(scope, receive, send_marked)
        except ClientDisconnect:
            status = status or STATUS_CLIENT_GONE
        except Exception as error:
            log.exception("request_failed", method=scope["method"], route=_route(scope))
            # An answer that has begun cannot be taken back. The server then closes the connection.
            if status is None:
                answer = await _answer_failure(api, Request(scope, receive), error)
                await answer(scope, receive, send_marked)
        finally:
            log.info(
                "request_served",
                method=scope["method"],
                route=_route(scope),
                status=status,
                duration_ms=round((perf_counter() - started) * 1000, 1),
            )
            structlog.contextvars.reset_contextvars(**names)


def _size_bytes(headers: Headers) -> int:
    size_bytes = 0
    for name, value in headers:
        size_bytes += len(name) + len(value) + _SEPARATORS_BYTES
    return size_bytes


def _refuse_headers(scope: Scope) -> Response:
    error = RequestHeadersTooLarge
    return problem(scope, error.status, error.code, f"The headers must have at most {HEADERS_BYTES_MAX} bytes.")


def _request_id(headers: Headers) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return uuid4().hex


async def _answer_failure(api: FastAPI, request: Request, error: Exception) -> Response:
    """The handler that the application has for whatever nobody else handles, or else our plain 500."""
    handler = api.exception_handlers.get(500) or api.exception_handlers.get(Exception)
    if handler is None:
        return problem(request.scope, 500, "internal_error", "Something went wrong on our side.")
    answer = handler(request, error)
    return await answer if inspect.isawaitable(answer) else answer


def _mark(message: Message, request_id: str, *, is_stopping: bool) -> None:
    headers = message.setdefault("headers", [])
    media_type = _value(headers, b"content-type")
    if media_type in _PRIVATE_MEDIA_TYPES:
        # Keys, balances, jobs and errors are for the caller alone: no cache may keep them.
        headers.append((b"cache-control", b"no-store"))
    elif media_type.startswith(b"text/html") and not _value(headers, b"content-security-policy"):
        headers.append((b"content-security-policy", _PAGE_POLICY))
    if is_stopping:
        # A connection that a caller keeps for the next request would be cut under that request.
        headers.append((b"connection", b"close"))
    headers.append((b"x-request-id", request_id.encode()))
    headers.append((b"x-content-type-options", b"nosniff"))


def _value(headers: Headers, name: bytes) -> bytes:
    for known, value in headers:
        if known == name:
            return value
    return b""


def _route(scope: Scope) -> str | None:
    """The template of the route. The path as it was sent would put ids into the log."""
    # Nothing documented holds the path that the prefix of an included router leads to; FastAPI keeps it here.
    included = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
    return getattr(included or scope.get("route"), "path", None)
