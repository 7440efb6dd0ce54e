from typing import Annotated

from fastapi import APIRouter, Depends

from app.domain.errors import (
    BalanceLimitExceeded,
    CommitUnknown,
    InvalidWebhookSecret,
    PaymentEventConflict,
    PaymentEventIdRequired,
)
from app.presentation.http.bodies import JsonBody
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, answer, problems
from app.presentation.http.parameters import IdempotencyKey, PaymentEventId, WebhookSecret
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases
from app.presentation.schemas.acknowledged import Acknowledged
from app.presentation.schemas.payments import TopUpRequest

router = APIRouter(tags=["Top-up"], route_class=DirectRoute)

_read_body = JsonBody(
    TopUpRequest, {"top_up": {"external_user_id": "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b", "amount": 100}}
)


@router.post(
    "/webhook/topup",
    operation_id="top_up",
    summary="Credit a payment",
    response_description="The payment is credited, now or before",
    responses={
        200: answer({"ok": True}),
        **problems(
            InvalidWebhookSecret,
            PaymentEventIdRequired,
            PaymentEventConflict,
            BalanceLimitExceeded,
            *DATABASE_ERRORS,
            CommitUnknown,
            *BODY_ERRORS,
        ),
    },
)
async def top_up(
    secret: WebhookSecret,
    body: Annotated[TopUpRequest, Depends(_read_body)],
    event_id: PaymentEventId,
    idempotency_key: IdempotencyKey,
    use_cases: UseCases,
) -> Acknowledged:
    """Credit tokens to a user. An event id that was credited before answers 200 and credits nothing.

    Send `X-Event-Id`, or an `Idempotency-Key` where your provider has no event ids. Without either, a repeated
    delivery is a second payment, or refused where the operator wants so.
    """
    await use_cases.receive_payment(
        body.external_user_id, body.amount, secret=secret, event_id=event_id, idempotency_key=idempotency_key
    )
    return Acknowledged()
