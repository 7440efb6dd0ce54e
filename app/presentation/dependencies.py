"""What routes need from a request. FastAPI spends more on resolving a dependency than most of ours spend on
their work, so a route has two at most, and the rest are plain functions of the request.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from uuid import UUID

from fastapi import Header, Path, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase

from app.application.use_cases import UseCases
from app.domain.accounts import Account
from app.domain.errors import JobNotFound
from app.presentation.errors import InvalidRequest
from app.presentation.field_errors import field_error
from app.presentation.schemas.fields import parse_uuid

_api_key_header = APIKeyHeader(
    name="X-API-Key", scheme_name="ApiKey", auto_error=False, description="The user's key, from `POST /auth`."
)
_auth_secret_header = APIKeyHeader(
    name="X-Auth-Secret",
    scheme_name="AuthSecret",
    auto_error=False,
    description="The service secret that the operator set as `AUTH_SECRET`, where there is one.",
)
_webhook_secret_header = APIKeyHeader(
    name="X-Webhook-Secret",
    scheme_name="WebhookSecret",
    auto_error=False,
    description="The secret that the payment provider and the operator share (`PAYMENT_WEBHOOK_SECRET`).",
)


class _Service(SecurityBase):
    """What `POST /auth` needs before its body is looked at; the value itself, for the proof of a rotation."""

    def __init__(self) -> None:
        self.model = _auth_secret_header.model
        self.scheme_name = _auth_secret_header.scheme_name

    async def __call__(self, request: Request) -> str | None:
        given = request.headers.get("X-Auth-Secret")
        use_cases_of(request).issue_key.check_secret(given)
        return given


IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[ -~]*$",
        description="Your own name for this request, a UUID for example. Repeated with the same body it changes "
        "nothing more, however often you send it; keys are kept for at least 24 hours.",
    ),
]
ApiKey = Annotated[str | None, Security(_api_key_header)]
AuthSecret = Annotated[str | None, Security(_Service())]


def use_cases_of(request: Request) -> UseCases:
    use_cases: UseCases = request.app.state.use_cases
    return use_cases


class KeyedRoute(APIRoute):
    """A route for users: the key is looked up before anything else of the request is judged."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        security: dict[str, Any] = {"security": [{_api_key_header.scheme_name: []}]}
        options["openapi_extra"] = security | (options.get("openapi_extra") or {})
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def authenticate_and_handle(request: Request) -> Response:
            request.state.account = await use_cases_of(request).authenticate(request.headers.get("X-API-Key"))
            return await handle(request)

        return authenticate_and_handle


def account_of(request: Request) -> Account:
    """Whose key the request to a KeyedRoute carries."""
    account: Account = request.state.account
    return account


class _PaymentProvider(SecurityBase):
    def __init__(self) -> None:
        self.model = _webhook_secret_header.model
        self.scheme_name = _webhook_secret_header.scheme_name

    async def __call__(self, request: Request) -> None:
        use_cases_of(request).authenticate_payment_provider(request.headers.get("X-Webhook-Secret"))


authenticate_payment_provider = Security(_PaymentProvider())


def refuse_repeated(request: Request, header: str) -> None:
    """Two values would name two things; picking one of them is not ours to do. Raises InvalidRequest."""
    if len(request.headers.getlist(header)) > 1:
        raise InvalidRequest([field_error("repeated_header", header)])


JobId = Annotated[str, Path(description="From the answer that accepted the job.", json_schema_extra={"format": "uuid"})]


def job_id_of(text: str) -> UUID:
    """No other text than the canonical one can name a job: it is unknown, like any other wrong id."""
    job_id = parse_uuid(text)
    if job_id is None:
        raise JobNotFound
    return job_id
