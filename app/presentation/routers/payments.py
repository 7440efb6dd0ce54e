from fastapi import APIRouter, Request

from app.domain.errors import (
    BalanceLimitExceeded,
    CommitUnknown,
    InvalidWebhookSecret,
    PaymentEventConflict,
    PaymentEventIdRequired,
)
from app.presentation.http.bodies import read_model
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, answer, problems, request_body
from app.presentation.http.routing import (
    IDEMPOTENCY_KEY,
    authenticate_payment_provider,
    idempotency_key_of,
    name_header,
    name_in,
    use_cases_of,
)
from app.presentation.schemas.acknowledged import Acknowledged
from app.presentation.schemas.payments import TopUpRequest

router = APIRouter(tags=["Top-up"])

_EVENT_ID = name_header(
    "X-Event-Id", "The payment provider's id of this payment. The same id is credited once, however often it comes."
)


@router.post(
    "/webhook/topup",
    operation_id="top_up",
    summary="Credit a payment",
    response_description="The payment is credited, now or before",
    dependencies=[authenticate_payment_provider],
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
    openapi_extra={
        "parameters": [_EVENT_ID, IDEMPOTENCY_KEY],
        **request_body(
            TopUpRequest, top_up={"external_user_id": "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b", "amount": 100}
        ),
    },
)
async def top_up(request: Request) -> Acknowledged:
    """Credit tokens to a user. An event id that was credited before answers 200 and credits nothing.

    Send `X-Event-Id`, or an `Idempotency-Key` where your provider has no event ids. Without either, a repeated
    delivery is a second payment, or refused where the operator wants so.
    """
    body = await read_model(request, TopUpRequest)
    await use_cases_of(request).receive_payment(
        body.external_user_id,
        body.amount,
        secret=request.headers.get("X-Webhook-Secret"),
        event_id=name_in(request, "X-Event-Id"),
        idempotency_key=idempotency_key_of(request),
    )
    return Acknowledged()
