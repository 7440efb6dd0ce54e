from typing import Annotated

from fastapi import APIRouter, Depends

from app.domain.accounts import AccountOverview
from app.domain.errors import CommitUnknown
from app.domain.limits import TooManyWrites
from app.presentation.http.bodies import JsonBody
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, KEY_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.state import UseCases
from app.presentation.schemas.ledger import AccountView, ChangeAccountRequest

router = APIRouter(prefix="/account", tags=["Accounts"], route_class=KeyedRoute)

_ACCOUNT = {
    "external_user_id": "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b",
    "balance_tokens": 120,
    "balance_low_tokens": 50,
}
_read_change = JsonBody(
    ChangeAccountRequest, {"warn below 50": {"balance_low_tokens": 50}, "never warn": {"balance_low_tokens": None}}
)


@router.get(
    "",
    operation_id="get_account",
    summary="Look at your account",
    response_description="The account",
    responses={200: answer(_ACCOUNT), **problems(*READ_ERRORS, *DATABASE_ERRORS)},
)
async def get_account(account: CurrentAccount, use_cases: UseCases) -> AccountView:
    """The balance, and when you want to hear that it is low."""
    return _view_of(await use_cases.account.overview(account.id))


@router.patch(
    "",
    operation_id="change_account",
    summary="Say when the balance is low",
    response_description="The account as it is now",
    responses={
        200: answer(_ACCOUNT),
        **problems(*KEY_ERRORS, TooManyWrites, *BODY_ERRORS, *DATABASE_ERRORS, CommitUnknown),
    },
)
async def change_account(
    account: CurrentAccount, body: Annotated[ChangeAccountRequest, Depends(_read_change)], use_cases: UseCases
) -> AccountView:
    """What is left out stays.

    A balance that is low by the new bound, and was not by the one before, is told of at once: see `GET /events`.
    """
    if "balance_low_tokens" not in body.model_fields_set:
        return _view_of(await use_cases.account.overview(account.id))
    return _view_of(await use_cases.account.set_balance_low(account.id, body.balance_low_tokens))


def _view_of(overview: AccountOverview) -> AccountView:
    return AccountView(
        external_user_id=overview.external_user_id,
        balance_tokens=overview.balance_tokens,
        balance_low_tokens=overview.balance_low_tokens,
    )
