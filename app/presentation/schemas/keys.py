from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.application.key_management import KeyWithSecret
from app.domain.accounts import Scope
from app.domain.budgets import Budget, Period, Spending
from app.domain.keys import KEY_NAME_LENGTH_MAX, OVERLAP_SECONDS_MAX, KeyChanges, KeyRecord, KeySettings
from app.domain.ledger import BALANCE_TOKENS_MAX
from app.presentation.schemas.fields import NOT_BLANK, STORABLE, CanonicalUuid, Moment, RequestModel


class IssueKeyRequest(RequestModel):
    external_user_id: CanonicalUuid = Field(description="Your own id of the user.")
    rotate: bool = Field(default=False, description="Replace the key that the user already has. Needs proof.")


class IssuedKey(BaseModel):
    external_user_id: UUID
    api_key: str = Field(description="Shown this once: only a digest of it is stored.")


_SCOPES = "`generate` starts and cancels, `read` reads, `manage` is for keys, secrets and the account itself."
_EXPIRES_AT = "From then on the key opens nothing, and is over for good."
_Name = Annotated[str, Field(min_length=1, max_length=KEY_NAME_LENGTH_MAX), STORABLE, NOT_BLANK]
_Scopes = Annotated[list[Literal["generate", "read", "manage"]], Field(min_length=1, max_length=len(Scope))]


class BudgetRequest(RequestModel):
    tokens: int = Field(ge=1, le=BALANCE_TOKENS_MAX, description="What the key may spend in each period.")
    per: Literal["day", "month", "ever"] = Field(description="Days and months are those of UTC.")

    def budget(self) -> Budget:
        return Budget(self.tokens, Period(self.per))


class CreateKeyRequest(RequestModel):
    name: _Name = Field(description="For people: who or what uses the key.")
    scopes: _Scopes = Field(description=_SCOPES)
    expires_at: Moment | None = Field(default=None, description=_EXPIRES_AT)
    budget: BudgetRequest | None = Field(default=None, description="Without one the balance is the only bound.")

    def settings(self) -> KeySettings:
        return KeySettings(
            name=self.name,
            scopes=_scopes_of(self.scopes),
            expires_at=self.expires_at,
            budget=None if self.budget is None else self.budget.budget(),
        )


class ChangeKeyRequest(RequestModel):
    """What is left out stays."""

    name: _Name = Field(default_factory=str)
    scopes: _Scopes = Field(default_factory=list, description=_SCOPES)
    expires_at: Moment | None = Field(default=None, description="Null: the key does not expire.")
    budget: BudgetRequest | None = Field(
        default=None, description="Null: none. What was spent in the period of the new one counts."
    )

    def changes(self) -> KeyChanges:
        changes = KeyChanges()
        if "name" in self.model_fields_set:
            changes["name"] = self.name
        if "scopes" in self.model_fields_set:
            changes["scopes"] = _scopes_of(self.scopes)
        if "expires_at" in self.model_fields_set:
            changes["expires_at"] = self.expires_at
        if "budget" in self.model_fields_set:
            changes["budget"] = None if self.budget is None else self.budget.budget()
        return changes


class RotateKeyRequest(RequestModel):
    overlap_seconds: int = Field(
        default=0,
        ge=0,
        le=OVERLAP_SECONDS_MAX,
        description="For how long the secret before works as well; of several, the newest one. 0: it ends at once.",
    )


def _scopes_of(names: list[Literal["generate", "read", "manage"]]) -> frozenset[Scope]:
    return frozenset(map(Scope, names))


class BudgetView(BaseModel):
    tokens: int
    per: Period
    spent_tokens: int = Field(description="In the period that runs now, less what was refunded.")
    renews_at: datetime | None = Field(description="When the next period begins; null for `ever`.")

    @classmethod
    def of(cls, spending: Spending) -> Self:
        return cls(
            tokens=spending.budget.tokens,
            per=spending.budget.per,
            spent_tokens=spending.spent_tokens,
            renews_at=spending.renews_at,
        )


class KeyView(BaseModel):
    id: UUID
    hint: str = Field(description="How its newest secret begins.")
    name: str
    scopes: list[Scope] = Field(description=_SCOPES)
    budget: BudgetView | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute, and some minutes late at most.")
    is_current: bool = Field(description="Whether the request was made with it.")

    @classmethod
    def of(cls, key: KeyRecord, current: UUID) -> Self:
        return cls(**_fields(key, current))


class CreatedKeyView(KeyView):
    api_key: str | None = Field(
        description="The secret, shown this once: only a digest of it is stored. Null in the answer to a repeat."
    )

    @classmethod
    def issued(cls, issued: KeyWithSecret, current: UUID) -> Self:
        return cls(**_fields(issued.key, current), api_key=issued.secret)


class KeyList(BaseModel):
    items: list[KeyView] = Field(description="All live keys of the account, the oldest first.")


def _fields(key: KeyRecord, current: UUID) -> dict[str, Any]:
    settings = key.settings
    return {
        "id": key.id,
        "hint": key.hint,
        "name": settings.name,
        "scopes": [scope for scope in Scope if scope in settings.scopes],
        "budget": None if key.spending is None else BudgetView.of(key.spending),
        "created_at": key.created_at,
        "expires_at": settings.expires_at,
        "last_used_at": key.last_used_at,
        "is_current": key.id == current,
    }
