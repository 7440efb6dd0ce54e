"""What routes need from a request, and how it is documented.

FastAPI spends more on resolving parameters and dependencies than most routes spend on their work: those that are
called all the time take nothing but the request, and read what they need with plain functions.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase
from pydantic import Field, TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from app.application.use_cases import CustomerUseCases
from app.domain.accounts import Account
from app.domain.errors import JobNotFound
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import field_error, field_errors
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
        use_cases_of(request).keys.issue.check_secret(given)
        return given


ApiKey = Annotated[str | None, Security(_api_key_header)]
AuthSecret = Annotated[str | None, Security(_Service())]


def use_cases_of(request: Request) -> CustomerUseCases:
    use_cases: CustomerUseCases = request.app.state.use_cases
    return use_cases


class DirectRoute(APIRoute):
    """A route whose endpoint, where it takes only the request and answers with a Response, is called without all that
    FastAPI has around the others: the search for parameters, and what closes them.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if not self.dependant.dependencies and _takes_only_the_request(endpoint):
            self.app = self._call

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


class KeyedRoute(DirectRoute):
    """A route for users: the key is looked up before anything else of the request is judged."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        security: dict[str, Any] = {"security": [{_api_key_header.scheme_name: []}]}
        options["openapi_extra"] = security | (options.get("openapi_extra") or {})
        super().__init__(path, endpoint, **options)
        self._app_behind_the_key = self.app
        self.app = self._authenticate_first

    async def _authenticate_first(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        account = await use_cases_of(request).keys.authenticate(request.headers.get("X-API-Key"))
        scope["state"]["account"] = account
        await self._app_behind_the_key(scope, receive, send)


def _takes_only_the_request(endpoint: Callable[..., Any]) -> bool:
    signature = inspect.signature(endpoint)
    return (
        inspect.iscoroutinefunction(endpoint)
        and list(signature.parameters) == ["request"]
        and signature.return_annotation is Response
    )


def account_of(request: Request) -> Account:
    """Whose key the request to a KeyedRoute carries."""
    account: Account = request.scope["state"]["account"]
    return account


class _PaymentProvider(SecurityBase):
    def __init__(self) -> None:
        self.model = _webhook_secret_header.model
        self.scheme_name = _webhook_secret_header.scheme_name

    async def __call__(self, request: Request) -> None:
        use_cases_of(request).receive_payment.check_secret(request.headers.get("X-Webhook-Secret"))


authenticate_payment_provider = Security(_PaymentProvider())


# A name that callers give: an idempotency key, or the id of a payment event.
_NAME = TypeAdapter(Annotated[str, Field(min_length=1, max_length=255, pattern="^[ -~]*$")])


def name_in(request: Request, header: str) -> str | None:
    """None: the header is not there. Raises InvalidRequest."""
    values = request.headers.getlist(header)
    if not values:
        return None
    if len(values) > 1:
        # Two values would name two things; picking one of them is not ours to do.
        raise InvalidRequest([field_error("repeated_header", header)])
    try:
        return _NAME.validate_python(values[0])
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidRequest(field_errors({**one, "loc": (header,)} for one in found)) from None


def name_header(header: str, description: str) -> dict[str, Any]:
    return {
        "name": header,
        "in": "header",
        "required": False,
        "description": description,
        "schema": _NAME.json_schema(),
    }


IDEMPOTENCY_KEY = name_header(
    "Idempotency-Key",
    "Your own name for this request, a UUID for example. Repeated with the same body it changes "
    "nothing more, however often you send it; keys are kept for at least 24 hours.",
)


def idempotency_key_of(request: Request) -> str | None:
    """Raises InvalidRequest."""
    return name_in(request, "Idempotency-Key")


JOB_ID = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "description": "From the answer that accepted the job.",
    "schema": {"type": "string", "format": "uuid"},
}


def job_id_of(request: Request) -> UUID:
    """No other text than the canonical one can name a job: it is unknown, like any other wrong id."""
    job_id = parse_uuid(request.path_params["job_id"])
    if job_id is None:
        raise JobNotFound
    return job_id
