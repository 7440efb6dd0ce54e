from typing import Annotated, Any

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
from app.presentation.http.parameters import (
    PaymentEventId,
    PaymentIdempotencyKey,
    PaymentSource,
    SourceSecret,
    WebhookSecret,
    payment_id,
)
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases
from app.presentation.schemas.acknowledged import Acknowledged
from app.presentation.schemas.payments import TopUpRequest

router = APIRouter(tags=["Top-up"], route_class=DirectRoute)

_RESPONSES: dict[int | str, dict[str, Any]] = {
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
}

_read_body = JsonBody(
    TopUpRequest, {"top_up": {"external_user_id": "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b", "amount": 100}}
)


Body = Annotated[TopUpRequest, Depends(_read_body)]


@router.post(
    "/webhook/topup",
    operation_id="top_up",
    summary="Credit a payment",
    response_description="The payment is credited, now or before",
    responses=_RESPONSES,
)
async def top_up(
    secret: WebhookSecret,
    body: Body,
    event_id: PaymentEventId,
    idempotency_key: PaymentIdempotencyKey,
    use_cases: UseCases,
) -> Acknowledged:
    """Credit tokens to a user. A payment that was credited before answers 200 and credits nothing.

    Send the payment's id in `X-Event-Id`, or in `Idempotency-Key`: both mean the same. Without either, a repeated
    delivery is a second payment, or refused where the operator wants so.
    A 409 is for good: it is kept for the operator.
    """
    await use_cases.receive_payment(
        body.external_user_id, body.amount, secret=secret, event_id=payment_id(event_id, idempotency_key)
    )
    return Acknowledged()


@router.post(
    "/webhook/topup/{source}",
    operation_id="top_up_from_source",
    summary="Credit a payment of one source",
    response_description="The payment is credited, now or before",
    responses=_RESPONSES,
)
async def top_up_from_source(
    *,
    secret: SourceSecret,
    source: PaymentSource,
    body: Body,
    event_id: PaymentEventId,
    idempotency_key: PaymentIdempotencyKey,
    use_cases: UseCases,
) -> Acknowledged:
    """Do as `POST /webhook/topup` does, for one of several payment providers: each has a secret of its own, and ids of
    payments that are apart from those of all others. An unknown source is answered as a wrong secret is.
    """
    await use_cases.receive_payment(
        body.external_user_id,
        body.amount,
        secret=secret,
        event_id=payment_id(event_id, idempotency_key),
        source=source,
    )
    return Acknowledged()
