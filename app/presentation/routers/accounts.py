from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.domain.errors import DatabaseUnavailable, InvalidApiKey, KeyAlreadyIssued, ProofRequired
from app.presentation.dependencies import ApiKey, AuthSecret, CurrentAccount, use_cases_of
from app.presentation.documentation import BODY_ERRORS, answer, problems, request_body
from app.presentation.json_bodies import JsonBody
from app.presentation.schemas.accounts import Balance, IssuedKey, IssueKeyRequest

router = APIRouter(tags=["Accounts"])

_USER_ID = "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"


@router.post(
    "/auth",
    operation_id="issue_key",
    summary="Get an API key",
    status_code=201,
    response_description="The new key",
    responses={
        201: answer({"external_user_id": _USER_ID, "api_key": "tgk_" + "7bXq2Lr9" * 6 + "D"}),
        **problems(ProofRequired, KeyAlreadyIssued, DatabaseUnavailable, *BODY_ERRORS),
    },
    openapi_extra={
        "security": [{}],
        **request_body(
            IssueKeyRequest,
            first_key={"external_user_id": _USER_ID},
            replace_the_key={"external_user_id": _USER_ID, "rotate": True},
        ),
    },
)
async def issue_key(
    request: Request,
    body: Annotated[IssueKeyRequest, Depends(JsonBody(IssueKeyRequest))],
    current_key: ApiKey,
    auth_secret: AuthSecret,
) -> IssuedKey:
    """Issue the first key of a user, or replace it with `"rotate": true`; the old key stops working at once.

    Where the operator set a service secret, every call needs it in `X-Auth-Secret`.
    Elsewhere the first key needs nothing, and replacing it needs the current one in `X-API-Key`.
    """
    api_key = await use_cases_of(request).issue_key(
        body.external_user_id, rotate=body.rotate, current_key=current_key, auth_secret=auth_secret
    )
    return IssuedKey(external_user_id=body.external_user_id, api_key=api_key)


@router.get(
    "/balance",
    operation_id="get_balance",
    summary="Look at the balance",
    response_description="The balance",
    responses={
        200: answer({"external_user_id": _USER_ID, "balance_tokens": 120}),
        **problems(InvalidApiKey, DatabaseUnavailable),
    },
)
async def get_balance(account: CurrentAccount) -> Balance:
    """The tokens that are left. The cost of unfinished jobs is already taken off."""
    return Balance(external_user_id=account.external_user_id, balance_tokens=account.balance_tokens)
