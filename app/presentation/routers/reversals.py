from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from app.domain.errors import (
    BalanceLimitExceeded,
    CommitUnknown,
    InvalidWebhookSecret,
    ReversalEventConflict,
    ReversalEventIdRequired,
)
from app.domain.reversals import Reversed
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import JsonBody
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, answer, problems
from app.presentation.http.parameters import (
    PaymentSource,
    ReversalEventId,
    SourceSecret,
    WebhookSecret,
)
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases
from app.presentation.schemas.reversals import (
    KeptReversal,
    ReversalBodies,
    ReversalRequest,
    ReversedPayment,
    WithdrawalRequest,
)

router = APIRouter(tags=["Top-up"], route_class=DirectRoute)

_PENDING = 202
_DESCRIPTION = "The event counts, now or before"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: answer({"ok": True, "reversed_tokens": 100, "balance_tokens": -35}),
    _PENDING: answer(
        {"ok": True, "pending": True}, "The event is kept until what it refers to is known", model=KeptReversal
    ),
    **problems(
        InvalidWebhookSecret,
        ReversalEventIdRequired,
        ReversalEventConflict,
        BalanceLimitExceeded,
        *DATABASE_ERRORS,
        CommitUnknown,
        *BODY_ERRORS,
    ),
}

_read_body = JsonBody(
    ReversalBodies(),
    {
        "reversal": {"payment_event_id": "pay_4711", "amount": 100},
        "withdrawal": {"payment_event_id": "pay_4711", "withdraws": "dispute_815"},
    },
)

Body = Annotated[ReversalRequest | WithdrawalRequest, Depends(_read_body)]


@router.post(
    "/webhook/reversal",
    operation_id="reverse_payment",
    summary="Take a payment back",
    response_model=ReversedPayment,
    response_description=_DESCRIPTION,
    responses=_RESPONSES,
)
async def reverse_payment(
    *,
    request: Request,
    secret: WebhookSecret,
    body: Body,
    event_id: ReversalEventId,
    use_cases: UseCases,
) -> Response:
    """Take tokens of a payment back that was refunded or disputed, or give them again with `withdraws`.

    `X-Event-Id` is the id of the refund or dispute, and of a withdrawal one of its own; each counts once. Of a payment
    its own tokens are taken back at most, whatever its reversals come to. The balance may go below zero: then nothing
    can be started until it was paid back. Events may come in any order, also before their payment: 202.
    """
    outcome = await use_cases.receive_reversal(**body.model_dump(), secret=secret, event_id=event_id)
    return _answer(request, outcome)


@router.post(
    "/webhook/reversal/{source}",
    operation_id="reverse_payment_of_source",
    summary="Take a payment of one source back",
    response_model=ReversedPayment,
    response_description=_DESCRIPTION,
    responses=_RESPONSES,
)
async def reverse_payment_of_source(
    *,
    request: Request,
    secret: SourceSecret,
    source: PaymentSource,
    body: Body,
    event_id: ReversalEventId,
    use_cases: UseCases,
) -> Response:
    """Do as `POST /webhook/reversal` does, for the payments that came by `POST /webhook/topup/{source}`: no source
    reaches those of another one. An unknown source is answered as a wrong secret is.
    """
    outcome = await use_cases.receive_reversal(**body.model_dump(), secret=secret, event_id=event_id, source=source)
    return _answer(request, outcome)


def _answer(request: Request, outcome: Reversed | None) -> Response:
    if outcome is None:
        return json_answer(request, KeptReversal(), status=_PENDING)
    view = ReversedPayment(reversed_tokens=outcome.reversed_tokens, balance_tokens=outcome.balance_tokens)
    return json_answer(request, view)
