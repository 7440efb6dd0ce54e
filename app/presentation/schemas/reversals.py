from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.domain.payments import EVENT_ID_LENGTH_MAX, TOPUP_TOKENS_MAX
from app.presentation.schemas.fields import RequestModel

# Like the header in which it came, which has no blanks at its ends.
_EventId = Annotated[str, Field(min_length=1, max_length=EVENT_ID_LENGTH_MAX, pattern="^[!-~]([ -~]*[!-~])?$")]
_PaymentEventId = Annotated[
    _EventId, Field(description="What named the payment when it was credited, its `X-Event-Id`.")
]


class ReversalRequest(RequestModel):
    payment_event_id: _PaymentEventId
    amount: int = Field(
        ge=1, le=TOPUP_TOKENS_MAX, description="Tokens to take back. Of a payment no more than its own are taken."
    )


class WithdrawalRequest(RequestModel):
    payment_event_id: _PaymentEventId
    withdraws: _EventId = Field(description="The `X-Event-Id` of the reversal that does not stand any more.")


class ReversalBodies:
    """With `withdraws` it is a withdrawal, else a reversal."""

    models: Sequence[type[ReversalRequest] | type[WithdrawalRequest]] = (ReversalRequest, WithdrawalRequest)

    def model_validate(self, document: Any, context: Mapping[str, Any]) -> ReversalRequest | WithdrawalRequest:
        """Raises ValidationError."""
        if isinstance(document, dict) and "withdraws" in document:
            return WithdrawalRequest.model_validate(document, context=context)
        return ReversalRequest.model_validate(document, context=context)

    def explained(self, errors: Iterable[Mapping[str, Any]], document: Any) -> Iterable[Mapping[str, Any]]:
        for error in errors:
            # It may be the other one of the two that is missing.
            lacks_both = error["type"] == "missing" and error["loc"] == ("amount",) and "withdraws" not in document
            yield {**error, "type": "amount_or_withdraws"} if lacks_both else error


class ReversedPayment(BaseModel):
    ok: Literal[True] = True
    reversed_tokens: int = Field(description="Taken back of the payment by now, by all of its standing reversals.")
    balance_tokens: int = Field(description="What the user has now. It may be below zero.")


class KeptReversal(BaseModel):
    """The event is kept, and counts once its payment, or the reversal that it withdraws, is known."""

    ok: Literal[True] = True
    pending: Literal[True] = True
