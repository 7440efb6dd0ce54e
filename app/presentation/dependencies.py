from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request, Security
from fastapi.security import APIKeyHeader

from app.application.use_cases import UseCases
from app.domain.accounts import Account
from app.domain.errors import JobNotFound
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

ApiKey = Annotated[str | None, Security(_api_key_header)]
AuthSecret = Annotated[str | None, Security(_auth_secret_header)]
WebhookSecret = Annotated[str | None, Security(_webhook_secret_header)]


async def _use_cases(request: Request) -> UseCases:
    use_cases: UseCases = request.app.state.use_cases()
    return use_cases


Cases = Annotated[UseCases, Depends(_use_cases)]


async def _current_account(use_cases: Cases, api_key: ApiKey) -> Account:
    return await use_cases.authenticate(api_key)


CurrentAccount = Annotated[Account, Depends(_current_account)]


async def authenticate_payment_provider(use_cases: Cases, secret: WebhookSecret) -> None:
    use_cases.authenticate_payment_provider(secret)


async def _job_id(
    job_id: Annotated[str, Path(description="From the answer that accepted the job.", json_schema_extra={"format": "uuid"})],
) -> UUID:
    """No other text than the canonical one can name a job: it is unknown, like any other wrong id."""
    uuid = parse_uuid(job_id)
    if uuid is None:
        raise JobNotFound
    return uuid


JobId = Annotated[UUID, Depends(_job_id)]
