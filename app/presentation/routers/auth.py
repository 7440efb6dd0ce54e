"""`POST /auth`, which gives a user the first key, or another secret for a key."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.domain.errors import CommitUnknown, InvalidApiKey, KeyAlreadyIssued, ProofRequired
from app.domain.limits import TooManyNewSecrets, TooManyWrites
from app.presentation.http.api_keys import AUTHORIZATION_SCHEME
from app.presentation.http.bodies import JsonBody
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, answer, problems
from app.presentation.http.parameters import ApiKey, AuthSecret
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases
from app.presentation.schemas.keys import IssuedKey, IssueKeyRequest

router = APIRouter(tags=["Accounts"], route_class=DirectRoute)

_USER_ID = "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"
_read_body = JsonBody(
    IssueKeyRequest,
    {
        "first_key": {"external_user_id": _USER_ID},
        "replace_the_key": {"external_user_id": _USER_ID, "rotate": True},
    },
)


@router.post(
    "/auth",
    operation_id="issue_key",
    summary="Get an API key",
    status_code=201,
    response_description="The new key",
    responses={
        201: answer({"external_user_id": _USER_ID, "api_key": "tgk_" + "7bXq2Lr9" * 6 + "D"}),
        **problems(
            ProofRequired,
            InvalidApiKey,
            KeyAlreadyIssued,
            TooManyWrites,
            TooManyNewSecrets,
            *DATABASE_ERRORS,
            CommitUnknown,
            *BODY_ERRORS,
        ),
    },
    openapi_extra={"security": [{AUTHORIZATION_SCHEME: []}, {}]},
)
async def issue_key(
    auth_secret: AuthSecret,
    current_key: ApiKey,
    body: Annotated[IssueKeyRequest, Depends(_read_body)],
    use_cases: UseCases,
) -> IssuedKey:
    """Issue the first key of a user, or replace a key with `"rotate": true`; the old secret stops working at once.

    Where the operator set a service secret, every call needs it in `X-Auth-Secret`, and it is the first key that is
    replaced. Elsewhere the first key needs nothing, and a key is replaced by whoever sends it in `X-API-Key`: it keeps
    its id, scopes, expiry, budget and what it spent, and the change counts as `POST /keys/{key_id}/rotate` does.
    """
    api_key = await use_cases.keys.issue(
        body.external_user_id, rotate=body.rotate, current_key=current_key, auth_secret=auth_secret
    )
    return IssuedKey(external_user_id=body.external_user_id, api_key=api_key)
