import re
from typing import Annotated

from fastapi import APIRouter, Query

from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import field_error
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute
from app.presentation.http.openapi import DATABASE_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.state import UseCases
from app.presentation.schemas.fields import PageSize
from app.presentation.schemas.ledger import Balance, LedgerEntryView, LedgerPage

router = APIRouter(tags=["Accounts"], route_class=KeyedRoute)

_CURSOR = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_CREDIT = {
    "kind": "CREDIT",
    "amount": 100,
    "balance_after": 100,
    "job_id": None,
    "payment_event_id": "pay_4711",
    "reason": None,
    "created_at": "2026-11-23T10:14:02.000000Z",
}
_DEBIT = {
    "kind": "DEBIT",
    "amount": 5,
    "balance_after": 95,
    "job_id": "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61",
    "payment_event_id": None,
    "reason": None,
    "created_at": "2026-11-23T10:15:30.123456Z",
}
_REVERSAL = {
    **_CREDIT,
    "kind": "REVERSAL",
    "balance_after": -5,
    "created_at": "2026-11-27T08:02:11.654321Z",
}
_ADJUSTMENT = {
    **_CREDIT,
    "kind": "ADJUSTMENT",
    "amount": 25,
    "balance_after": 20,
    "payment_event_id": None,
    "reason": "an apology for the outage of Friday",
    "created_at": "2026-11-28T16:40:00.000000Z",
}
_USER_ID = "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"


@router.get(
    "/balance",
    operation_id="get_balance",
    summary="Look at the balance",
    response_description="The balance",
    responses={
        200: answer({"external_user_id": _USER_ID, "balance_tokens": 120}),
        **problems(*READ_ERRORS, *DATABASE_ERRORS),
    },
)
async def get_balance(account: CurrentAccount) -> Balance:
    """The tokens that are left. The cost of unfinished jobs is already taken off.

    Below zero, where a payment was refunded or disputed after its tokens were spent, nothing can be started until it
    was paid back.
    """
    return Balance(external_user_id=account.external_user_id, balance_tokens=account.balance_tokens)


@router.get(
    "/ledger",
    operation_id="list_ledger_entries",
    summary="List what moved the balance",
    response_description="The newest entries first",
    responses={
        200: answer({"items": [_ADJUSTMENT, _REVERSAL, _DEBIT, _CREDIT], "next_cursor": None}),
        **problems(*READ_ERRORS, InvalidRequest, *DATABASE_ERRORS),
    },
)
async def list_ledger_entries(
    account: CurrentAccount,
    use_cases: UseCases,
    limit: Annotated[PageSize, Query(description="How many entries.")] = 20,
    cursor: Annotated[
        str | None,
        Query(
            description="`next_cursor` of the page before; left out, the newest entries.",
            json_schema_extra={"pattern": f"^{_CURSOR.pattern}$"},
        ),
    ] = None,
) -> LedgerPage:
    """Everything that moved the balance of your account, with the balance after it. Entries never change."""
    entries = await use_cases.ledger.entries(
        account.external_user_id, limit=limit + 1, before_seq=None if cursor is None else _seq_of(cursor)
    )
    page = entries[:limit]
    next_cursor = str(page[-1].seq) if len(entries) > limit else None
    items = [LedgerEntryView.of(entry) for entry in page]
    return LedgerPage(items=items, next_cursor=next_cursor)


def _seq_of(cursor: str) -> int:
    if not _CURSOR.fullmatch(cursor):
        raise InvalidRequest([field_error("invalid_cursor", "cursor")])
    return int(cursor)
