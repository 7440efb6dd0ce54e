"""Headers and path parameters as FastAPI dependencies: one object both reads a parameter and documents it.

They take nothing but the request, so that a DirectRoute can call them. All of them are coroutines, because FastAPI runs
plain functions in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import HTTPConnection

from app.domain.errors import DomainError, InvalidProviderEvent, JobNotFound
from app.presentation.http.api_keys import API_KEY_HEADER, API_KEY_SCHEME, presented_key
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import field_error, field_errors
from app.presentation.http.state import use_cases_of
from app.presentation.schemas.fields import parse_uuid


class _ApiKeyHeader(APIKeyHeader):
    async def __call__(self, request: HTTPConnection) -> str | None:
        """Raises InvalidApiKey."""
        return presented_key(request.scope["headers"])


class _AuthSecretHeader(APIKeyHeader):
    """Checked before the body of `POST /auth` is read; the value also proves the right to replace a key."""

    async def __call__(self, request: HTTPConnection) -> str | None:
        given = request.headers.get(self.model.name)
        (await use_cases_of(request)).keys.issue.check_secret(given)
        return given


class _WebhookSecretHeader(APIKeyHeader):
    async def __call__(self, request: HTTPConnection) -> str | None:
        given = request.headers.get(self.model.name)
        (await use_cases_of(request)).receive_payment.check_secret(given)
        return given


_api_key_header = _ApiKeyHeader(
    name=API_KEY_HEADER, scheme_name=API_KEY_SCHEME, auto_error=False, description="The user's key, from `POST /auth`."
)
_auth_secret_header = _AuthSecretHeader(
    name="X-Auth-Secret",
    scheme_name="AuthSecret",
    auto_error=False,
    description="The service secret that the operator set as `AUTH_SECRET`, where there is one.",
)
_webhook_secret_header = _WebhookSecretHeader(
    name="X-Webhook-Secret",
    scheme_name="WebhookSecret",
    auto_error=False,
    description="The secret that the payment provider and the operator share (`PAYMENT_WEBHOOK_SECRET`).",
)

ApiKey = Annotated[str | None, Security(_api_key_header)]
AuthSecret = Annotated[str | None, Security(_auth_secret_header)]
WebhookSecret = Annotated[str | None, Security(_webhook_secret_header)]

_NAME = TypeAdapter(Annotated[str, Field(min_length=1, max_length=255, pattern="^[ -~]*$")])


@dataclass(frozen=True, slots=True)
class NameHeader:
    """A header in which callers name something: a request, or a payment event."""

    header: str
    description: str

    async def __call__(self, request: Request) -> str | None:
        """Returns None if the header is not there. Raises InvalidRequest."""
        values = request.headers.getlist(self.header)
        if not values:
            return None
        if len(values) > 1:
            # Two values name two things, and only the caller knows which one it means.
            raise InvalidRequest([field_error("repeated_header", self.header)])
        try:
            return _NAME.validate_python(values[0])
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            raise InvalidRequest(field_errors({**one, "loc": (self.header,)} for one in found)) from None

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": self.header,
            "in": "header",
            "required": False,
            "description": self.description,
            "schema": _NAME.json_schema(),
        }


@dataclass(frozen=True, eq=False)
class UuidInPath:
    """Reads the canonical form of a UUID. Any other text is an unknown id and raises `unknown`."""

    name: str
    unknown: type[DomainError]
    description: str | None = None
    schema: Mapping[str, str] = field(default_factory=lambda: {"type": "string", "format": "uuid"})

    async def __call__(self, request: Request) -> UUID:
        found = parse_uuid(request.path_params[self.name])
        if found is None:
            raise self.unknown
        return found

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "in": "path",
            "required": True,
            "description": self.description,
            "schema": self.schema,
        }


IdempotencyKey = Annotated[
    str | None,
    Depends(
        NameHeader(
            "Idempotency-Key",
            "Your own name for this request, a UUID for example. Repeated with the same body it changes "
            "nothing more, however often you send it; keys are kept for at least 24 hours.",
        )
    ),
]
PaymentEventId = Annotated[
    str | None,
    Depends(
        NameHeader(
            "X-Event-Id",
            "The payment provider's id of this payment. The same id is credited once, however often it comes.",
        )
    ),
]
JobId = Annotated[UUID, Depends(UuidInPath("job_id", JobNotFound, "From the answer that accepted the job."))]
read_attempt_token = UuidInPath("token", InvalidProviderEvent, schema={"type": "string", "title": "Token"})
AttemptToken = Annotated[UUID, Depends(read_attempt_token)]
