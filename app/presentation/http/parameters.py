"""Headers and path parameters as FastAPI dependencies: one object both reads a parameter and documents it.

They take nothing but the request, so that a DirectRoute can call them. All of them are coroutines, because FastAPI runs
plain functions in a thread.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader
from pydantic import Field, TypeAdapter, ValidationError
from starlette.requests import HTTPConnection

from app.domain.errors import DomainError, InvalidProviderEvent, JobNotFound
from app.domain.file_errors import FileNotFound
from app.domain.key_errors import KeyNotFound
from app.domain.payments import SOURCE_PATTERN
from app.domain.webhooks import DeliveryNotFound, EndpointNotFound
from app.presentation.http.api_keys import API_KEY_HEADER, API_KEY_SCHEME, presented_key
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import field_error, field_errors
from app.presentation.http.state import use_cases_of
from app.presentation.schemas.fields import parse_uuid

EVENT_ID_HEADER = "X-Event-Id"
IDEMPOTENCY_KEY_HEADER = "Idempotency-Key"
_SOURCE = "source"
_EVENT_ID = re.compile(r"evt_(0|[1-9][0-9]{0,15})", re.ASCII)


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
    """Checked before the body is read, for the source in the path where there is one."""

    async def __call__(self, request: HTTPConnection) -> str | None:
        given = request.headers.get(self.model.name)
        (await use_cases_of(request)).receive_payment.check_secret(given, request.path_params.get(_SOURCE))
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
_source_secret_header = _WebhookSecretHeader(
    name="X-Webhook-Secret",
    scheme_name="SourceSecret",
    auto_error=False,
    description="The secret of this one source of payments (`PAYMENT_SOURCES_JSON`). It opens no other source.",
)

ApiKey = Annotated[str | None, Security(_api_key_header)]
AuthSecret = Annotated[str | None, Security(_auth_secret_header)]
WebhookSecret = Annotated[str | None, Security(_webhook_secret_header)]
SourceSecret = Annotated[str | None, Security(_source_secret_header)]

_NAME = TypeAdapter(Annotated[str, Field(min_length=1, max_length=255, pattern="^[ -~]*$")])


@dataclass(frozen=True, slots=True)
class NameHeader:
    """A header in which callers name something: a request, or a payment event."""

    header: str
    description: str
    is_required: bool = False
    """For the document; the use case says so."""

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
            "required": self.is_required,
            "description": self.description,
            "schema": _NAME.json_schema(),
        }


def payment_id(event_id: str | None, idempotency_key: str | None) -> str | None:
    """What both headers name. Raises InvalidRequest if they name two payments."""
    if event_id is not None and idempotency_key not in (None, event_id):
        raise InvalidRequest([field_error("two_names", name) for name in (EVENT_ID_HEADER, IDEMPOTENCY_KEY_HEADER)])
    return idempotency_key if event_id is None else event_id


@dataclass(frozen=True, slots=True)
class SourceInPath:
    async def __call__(self, request: Request) -> str:
        source: str = request.path_params[_SOURCE]
        return source

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": _SOURCE,
            "in": "path",
            "required": True,
            "description": "One of the operator's sources of payments. Each of them names its payments by itself.",
            "schema": {"type": "string", "pattern": f"^{SOURCE_PATTERN}$"},
        }


@dataclass(frozen=True, slots=True)
class ModelInPath:
    async def __call__(self, request: Request) -> str:
        model_id: str = request.path_params["model"]
        return model_id

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": "model",
            "in": "path",
            "required": True,
            "description": "The id, with its slashes, such as `fal-ai/flux/schnell`.",
            "schema": {"type": "string"},
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


@dataclass(frozen=True, slots=True)
class EventInPath:
    """The place of an event by its id, `evt_` and the place. Any other text is an unknown delivery."""

    async def __call__(self, request: Request) -> int:
        """Raises DeliveryNotFound."""
        match = _EVENT_ID.fullmatch(request.path_params["event_id"])
        if match is None:
            raise DeliveryNotFound
        return int(match[1])

    @property
    def parameter(self) -> dict[str, Any]:
        return {
            "name": "event_id",
            "in": "path",
            "required": True,
            "description": "The `id` of the delivery, which is that of its event.",
            "schema": {"type": "string"},
        }


KeyIdempotencyKey = Annotated[
    str | None,
    Depends(
        NameHeader(
            IDEMPOTENCY_KEY_HEADER,
            "Your own name for this request, a UUID for example. Repeated with the same body it makes no second key: "
            "the answer shows the first one, with `api_key` null, because its secret is stored nowhere. If the first "
            "answer was lost, `POST /keys/{key_id}/rotate` gives the key another secret.",
        )
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Depends(
        NameHeader(
            IDEMPOTENCY_KEY_HEADER,
            "Your own name for this request, a UUID for example. Repeated with the same body it changes "
            "nothing more, however often you send it; keys are kept for at least 24 hours.",
        )
    ),
]
PaymentEventId = Annotated[
    str | None,
    Depends(
        NameHeader(
            EVENT_ID_HEADER,
            "The provider's id of the *payment*, never of the notification, which a provider may make anew when it "
            "repeats it. With Stripe it is the PaymentIntent or charge, `data.object.id`, or the checkout session's "
            "`data.object.payment_intent`, not `evt_...`; with YooKassa `object.id`; with CloudPayments "
            "`TransactionId`. The same id is credited once, however often it comes.",
        )
    ),
]
PaymentIdempotencyKey = Annotated[
    str | None,
    Depends(
        NameHeader(
            IDEMPOTENCY_KEY_HEADER,
            "Means the same as `X-Event-Id`, for senders that have this header already. Where both come, they must be "
            "equal.",
        )
    ),
]
ReversalEventId = Annotated[
    str | None,
    Depends(
        NameHeader(
            EVENT_ID_HEADER,
            "The provider's id of the refund or dispute, or of what withdraws it, never of the notification. These ids "
            "are apart from those of payments. The same id counts once, however often it comes.",
            is_required=True,
        )
    ),
]
EventId = Annotated[int, Depends(EventInPath())]
PaymentSource = Annotated[str, Depends(SourceInPath())]
KeyId = Annotated[UUID, Depends(UuidInPath("key_id", KeyNotFound, "From `GET /keys`."))]
EndpointId = Annotated[UUID, Depends(UuidInPath("endpoint_id", EndpointNotFound, "From `GET /webhook-endpoints`."))]
FileIdInPath = Annotated[UUID, Depends(UuidInPath("file_id", FileNotFound, "From the answer to its upload."))]
JobId = Annotated[UUID, Depends(UuidInPath("job_id", JobNotFound, "From the answer that accepted the job."))]
read_attempt_token = UuidInPath("token", InvalidProviderEvent, schema={"type": "string", "title": "Token"})
AttemptToken = Annotated[UUID, Depends(read_attempt_token)]
