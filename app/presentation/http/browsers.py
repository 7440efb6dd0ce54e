"""What pages from other origins may do in a browser. No cookie is ever asked for: a page has to bring its key."""

from collections.abc import Sequence

from fastapi import FastAPI, Response
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from uuid_utils import uuid4

from app.presentation.http.errors import problem
from app.presentation.http.marks import request_id_in

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_REQUEST_HEADERS = ("Authorization", "X-API-Key", "Idempotency-Key", "X-Request-Id", "Last-Event-ID", "If-None-Match")
_ANSWER_HEADERS = (
    "X-Request-Id",
    "Retry-After",
    "RateLimit-Policy",
    "RateLimit",
    "Location",
    "Idempotent-Replayed",
    "ETag",
    "X-Cost-Tokens",
    "X-Balance-Tokens",
)


def allow_origins(api: FastAPI, origins: Sequence[str]) -> None:
    """Outside of all other middleware, so that a page can read errors too."""
    api.add_middleware(
        _Cors,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
        allow_credentials=False,
    )


class _Cors(CORSMiddleware):
    def preflight_response(self, request_headers: Headers) -> Response:
        """Starlette's, in our form: it says in words of its own what it refuses."""
        answer = super().preflight_response(request_headers)
        request_id = request_id_in(request_headers.raw) or uuid4().hex
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        headers = {**kept, "X-Request-Id": request_id, "X-Content-Type-Options": "nosniff"}
        if answer.status_code < 400:
            return Response(status_code=204, headers=headers)
        detail = "A page from this origin may not send such a request: the operator allows certain origins."
        return problem({"state": {"request_id": request_id}}, 403, "origin_not_allowed", detail, headers=headers)
