import inspect
import re
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import structlog
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from app.presentation.http.body_room import give_back
from app.presentation.http.errors import InvalidHost, RefusedRequest, RequestHeadersTooLarge, problem
from app.presentation.http.marks import mark, request_id_in
from app.presentation.http.root_path import complete_path
from app.presentation.http.state import IS_HEAD

log = structlog.get_logger(__name__)

HEADERS_BYTES_MAX = 32 * 1024
_SEPARATORS_BYTES = len(": \r\n")
# nginx logs this status if the client went away before there was an answer; it never goes over the wire.
STATUS_CLIENT_GONE = 499
# Asked every second by whoever watches the service; only what is wrong is news.
PROBES = frozenset({"/healthz", "/readyz"})

_HOST = re.compile(rb"([A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.%A-Za-z]+\])(:[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Names every request, writes its one log line, and turns an unexpected exception into a plain 500.

    The exception ends here: Starlette would raise it again, and the server would close the connection.
    A HEAD is answered as the GET would be; the server leaves out the body.
    """

    app: ASGIApp
    root_path: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status: int | None = None
        method = scope["method"]
        if method == "HEAD":
            # The server goes by its own scope.
            scope = {**scope, "method": "GET", IS_HEAD: True}
        if self.root_path:
            complete_path(scope, self.root_path)
        request_id = request_id_in(scope["headers"]) or uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        # A mounted application puts itself into the scope in the place of this one.
        api = scope["app"]
        fault = _fault(scope)

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Not once it is sent: a caller who does not read would keep the room from everybody.
                give_back(state)
                mark(message, request_id, is_last=fault is not None or api.state.is_stopping)
            await send(message)

        names = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            if fault is None:
                await self.app(scope, receive, send_marked)
            else:
                await problem(scope, fault.status, fault.code, fault.detail)(scope, receive, send_marked)
        except ClientDisconnect:
            status = status or STATUS_CLIENT_GONE
        except Exception as error:
            log.exception("request_failed", method=method, route=_route(scope))
            # An answer that has begun cannot be taken back. The server then closes the connection.
            if status is None:
                answer = await _answer_failure(api, Request(scope, receive), error)
                await answer(scope, receive, send_marked)
        finally:
            give_back(state)
            route = _route(scope)
            tell = log.debug if route in PROBES and status == 200 else log.info
            duration_ms = round((perf_counter() - started) * 1000, 1)
            tell("request_served", method=method, route=route, status=status, duration_ms=duration_ms)
            structlog.contextvars.reset_contextvars(**names)


def _fault(scope: Scope) -> RefusedRequest | None:
    """What is wrong with the headers, whatever is asked for."""
    size_bytes = hosts = 0
    host = b""
    for name, value in scope["headers"]:
        size_bytes += len(name) + len(value) + _SEPARATORS_BYTES
        if name == b"host":
            hosts += 1
            host = value
    if size_bytes > HEADERS_BYTES_MAX:
        return RequestHeadersTooLarge(f"The headers must have at most {HEADERS_BYTES_MAX} bytes.")
    # RFC 9112, section 3.2. Two readers of two such headers would take the request for one to two different sites.
    if hosts == 1 and _is_host(host):
        return None
    return InvalidHost() if hosts or scope.get("http_version") == "1.1" else None


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


async def _answer_failure(api: FastAPI, request: Request, error: Exception) -> Response:
    """The handler that the application has for whatever nobody else handles, or else our plain 500."""
    handler = api.exception_handlers.get(500) or api.exception_handlers.get(Exception)
    if handler is None:
        return problem(request.scope, 500, "internal_error", "Something went wrong on our side.")
    answer = handler(request, error)
    return await answer if inspect.isawaitable(answer) else answer


def _route(scope: Scope) -> str | None:
    """The template of the route. The path as it was sent would put ids into the log."""
    # Nothing documented holds the path that the prefix of an included router leads to; FastAPI keeps it here.
    included = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
    return getattr(included or scope.get("route"), "path", None)
