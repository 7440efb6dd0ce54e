"""Whatever goes wrong becomes one kind of answer: application/problem+json (RFC 9457)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, TypedDict

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from app.domain.errors import (
    DomainError,
    FieldRefused,
    Figures,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidProviderEvent,
    NotFound,
    TooManyRequests,
    Unauthenticated,
)
from app.domain.limits import LimitReached, ProviderLocked
from app.presentation.http.field_errors import FieldError, field_error, field_errors
from app.presentation.http.state import state_of
from app.presentation.http.statuses import status_of, title_of

PROBLEM_MEDIA_TYPE = "application/problem+json"

_HEADERS_BY_STATUS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "APIKey"},
    503: {"Retry-After": "2"},
}

# RFC 9110, sections 15.3.5 and 15.4.5.
_WITHOUT_BODY = frozenset({204, 304})


class RefusedRequest(Exception):
    """The request cannot be read, whatever it asks for."""

    status: ClassVar[int]
    code: ClassVar[str]
    default_detail: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.default_detail
        super().__init__(self.detail)


class InvalidJson(RefusedRequest):
    status = 400
    code = "invalid_json"
    default_detail = "The body is not valid JSON in UTF-8."


class InvalidMultipart(RefusedRequest):
    status = 400
    code = "invalid_multipart"
    default_detail = "The body is no form in multipart/form-data: its parts cannot be told apart."


class InvalidHttp(RefusedRequest):
    status = 400
    code = "invalid_http"
    default_detail = "This is not a request in HTTP/1.1."


class InvalidHost(RefusedRequest):
    status = 400
    code = "invalid_host"
    default_detail = "Send exactly one Host header, with a host name and perhaps a port."


class RequestTimeout(RefusedRequest):
    status = 408
    code = "request_timeout"
    default_detail = "The request came too slowly to be waited for. Nothing was done. Send it again."


class RequestBodyTooLarge(RefusedRequest):
    status = 413
    code = "request_body_too_large"
    default_detail = "The body is too large."


class UnsupportedMediaType(RefusedRequest):
    status = 415
    code = "unsupported_media_type"
    default_detail = "Send the body as application/json in UTF-8."
    headers: ClassVar[Mapping[str, str]] = {"Accept": "application/json"}


class UnsupportedContentEncoding(RefusedRequest):
    status = 415
    code = "unsupported_content_encoding"
    default_detail = "Send the body uncompressed."
    headers: ClassVar[Mapping[str, str]] = {"Accept-Encoding": "identity"}


class InvalidRequest(RefusedRequest):
    status = 422
    code = "invalid_request"
    default_detail = "Some fields are not valid; errors lists them."

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__()
        self.errors = errors


class RequestHeadersTooLarge(RefusedRequest):
    status = 431
    code = "request_headers_too_large"
    default_detail = "The headers are too large."


class TooManyLargeBodies(RefusedRequest):
    status = 429
    code = "too_many_large_bodies"
    default_detail = "Your other requests that are still on their way are too large together. Wait for their answers."
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "2"}


class NoRoomForBody(RefusedRequest):
    status = 503
    code = "no_room_for_body"
    default_detail = "Too many large requests are on their way. Nothing was done. Try again in a few seconds."


class TooManyConnections(RefusedRequest):
    status = 503
    code = "too_many_connections"
    default_detail = "Too many connections are open. Try again in a few seconds."


class _Problem(TypedDict, total=False):
    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: Sequence[FieldError]


def problem(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[FieldError] = (),
    figures: Figures | None = None,
) -> Response:
    """`about:blank` says that the type is the status itself; `code` tells apart what shares a status."""
    content: _Problem = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": scope["state"]["request_id"],
    }
    if errors:
        content["errors"] = errors
    # json.dumps writes plain ASCII, so every text can be encoded.
    return Response(
        json.dumps({**content, **(figures or {})}, separators=(",", ":")),
        status_code=status,
        headers={**_HEADERS_BY_STATUS.get(status, {}), **(headers or {})},
        media_type=PROBLEM_MEDIA_TYPE,
    )


async def _answer_domain_error(request: Request, error: DomainError) -> Response:
    if isinstance(error, InvalidProviderEvent):
        # The sender only hears that the event was refused; why, the operator has to know.
        state_of(request.scope).refusals.add(error)
    elif isinstance(error, Unauthenticated):
        try:
            await state_of(request.scope).failed_authentications.slow(request.client and request.client.host)
        except TooManyRequests as too_many:
            error = too_many
    if isinstance(error, IdempotencyKeyReused):
        errors = [field_error(error.code, "Idempotency-Key")]
        return problem(request.scope, status_of(type(error)), error.code, error.detail, errors=errors)
    if isinstance(error, FieldRefused):
        refused: FieldError = {"pointer": f"/{error.field}", "detail": error.advice, "code": error.code}
        return problem(request.scope, status_of(type(error)), error.code, error.detail, errors=[refused])
    headers = {"Retry-After": "1"} if isinstance(error, IdempotencyKeyInUse) else {}
    if isinstance(error, TooManyRequests | ProviderLocked):
        headers = {"Retry-After": str(error.retry_after_seconds)}
    if isinstance(error, LimitReached):
        headers |= _rate_limit(error)
    status = status_of(type(error))
    return problem(request.scope, status, error.code, error.detail, headers=headers, figures=error.figures)


def _rate_limit(error: LimitReached) -> Mapping[str, str]:
    """As draft-ietf-httpapi-ratelimit-headers-10 has it."""
    quota = error.quota
    window = "" if quota.window_seconds is None else f";w={quota.window_seconds}"
    return {
        "RateLimit-Policy": f'"{quota.name}";q={quota.amount}{window}',
        "RateLimit": f'"{quota.name}";r=0;t={error.retry_after_seconds}',
    }


async def _answer_refused_request(request: Request, error: RefusedRequest) -> Response:
    errors = error.errors if isinstance(error, InvalidRequest) else ()
    return problem(request.scope, error.status, error.code, error.detail, headers=error.headers, errors=errors)


async def _answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    """FastAPI validates path, query and header parameters; JsonBody validates bodies."""
    # The first part of a location says where it was found: "query", "header".
    errors = field_errors([{**found, "loc": found["loc"][1:]} for found in error.errors()])
    return await _answer_refused_request(request, InvalidRequest(errors))


async def _answer_http_exception(request: Request, error: HTTPException) -> Response:
    """Answers what FastAPI itself refuses, with its headers such as `Allow`, and in our own words."""
    if error.status_code in _WITHOUT_BODY:
        return Response(status_code=error.status_code, headers=error.headers)
    if error.status_code == HTTPStatus.NOT_FOUND:
        code, detail = NotFound.code, NotFound.default_detail
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        code, detail = "method_not_allowed", "This path does not answer to this method; Allow lists those it does."
    else:
        title = title_of(error.status_code)
        code, detail = title.lower().replace(" ", "_"), f"{title}."
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(_methods(request, headers["Allow"].split(", "))))
    return problem(request.scope, error.status_code, code, detail, headers=headers)


def _methods(request: Request, known: Iterable[str]) -> set[str]:
    """What the path answers to. Starlette names the methods of the first of its routes alone, and HEAD only of some."""
    methods = set(known)
    for route in request.scope["app"].router.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return methods | {"HEAD"} if "GET" in methods else methods


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    DomainError: _answer_domain_error,
    RefusedRequest: _answer_refused_request,
    RequestValidationError: _answer_validation_error,
    HTTPException: _answer_http_exception,
}
