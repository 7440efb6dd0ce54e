from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from app.domain.ledger import EntryKind, LedgerEntry
from app.presentation.schemas.fields import OrNewer


class Balance(BaseModel):
    external_user_id: UUID
    balance_tokens: int = Field(description="Whole tokens, never below zero.")


class LedgerEntryView(BaseModel):
    kind: Annotated[EntryKind | str, OrNewer()] = Field(
        description="A CREDIT and a REFUND add to the balance, a DEBIT takes from it."
    )
    amount: int = Field(description="Tokens, always above zero.")
    balance_after: int
    job_id: UUID | None = Field(description="The job that was paid or refunded.")
    payment_event_id: str | None = Field(description="The payment that was credited.")
    created_at: datetime

    @classmethod
    def of(cls, entry: LedgerEntry) -> "LedgerEntryView":
        return cls(
            kind=entry.kind,
            amount=entry.amount,
            balance_after=entry.balance_after,
            job_id=entry.job_id,
            payment_event_id=entry.payment_event_id,
            created_at=entry.created_at,
        )


class LedgerPage(BaseModel):
    items: list[LedgerEntryView] = Field(description="Newest first.")
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after; null on the last one.")
