from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from app.domain.ledger import BALANCE_TOKENS_MAX, EntryKind, LedgerEntry
from app.presentation.schemas.fields import OrNewer, RequestModel


class Balance(BaseModel):
    external_user_id: UUID
    balance_tokens: int = Field(
        description="Whole tokens. Below zero only where a payment was taken back, or by the operator's own entry."
    )


class AccountView(Balance):
    balance_low_tokens: int | None = Field(
        description="When the balance falls below it, `balance.low` is told, and `balance.recovered` when it is there "
        "again; null: never."
    )


class ChangeAccountRequest(RequestModel):
    balance_low_tokens: Annotated[int, Field(ge=1, le=BALANCE_TOKENS_MAX)] | None = Field(
        default=None, description="Null: the balance may fall without a word."
    )


class LedgerEntryView(BaseModel):
    kind: Annotated[EntryKind | str, OrNewer()] = Field(
        description="A CREDIT, a REFUND and a REINSTATEMENT add to the balance, a DEBIT and a REVERSAL take from it; "
        "an ADJUSTMENT is the operator's own."
    )
    amount: int = Field(description="Tokens, above zero; of an ADJUSTMENT alone with the sign of what it does.")
    balance_after: int
    job_id: UUID | None = Field(description="The job that was paid or refunded.")
    payment_event_id: str | None = Field(
        description="The payment that was credited, taken back (REVERSAL) or given again (REINSTATEMENT)."
    )
    reason: str | None = Field(description="Why the operator adjusted the balance.")
    created_at: datetime

    @classmethod
    def of(cls, entry: LedgerEntry) -> "LedgerEntryView":
        return cls(
            kind=entry.kind,
            amount=entry.amount,
            balance_after=entry.balance_after,
            job_id=entry.job_id,
            payment_event_id=entry.payment_event_id,
            reason=entry.reason,
            created_at=entry.created_at,
        )


class LedgerPage(BaseModel):
    items: list[LedgerEntryView] = Field(description="Newest first.")
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after; null on the last one.")
