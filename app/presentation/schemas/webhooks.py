from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.application.webhooks import EndpointWithSecret
from app.domain.events import EventType
from app.domain.keys import OVERLAP_SECONDS_MAX
from app.domain.webhooks import (
    DESCRIPTION_LENGTH_MAX,
    Delivery,
    DeliveryState,
    DisabledReason,
    Endpoint,
    EndpointChanges,
    WebhookSecret,
)
from app.presentation.schemas.fields import NOT_BLANK, STORABLE, OrNewer, RequestModel
from app.presentation.schemas.webhook_urls import WebhookUrl

_URL = Field(description="https to a public host. In development also http to this machine.")
_TYPES = "What the endpoint hears of; null for everything, also what later releases tell of."
# A test goes to the endpoint that it is of, whatever that hears of.
_TYPES_TAKEN: Any = Literal[tuple(kind.value for kind in EventType if kind is not EventType.WEBHOOK_TEST)]
_Types = Annotated[list[_TYPES_TAKEN], Field(min_length=1, max_length=len(EventType))]
_Description = Annotated[str, Field(min_length=1, max_length=DESCRIPTION_LENGTH_MAX), STORABLE, NOT_BLANK]


class CreateEndpointRequest(RequestModel):
    url: WebhookUrl = _URL
    types: _Types | None = Field(default=None, description=_TYPES)
    description: _Description | None = Field(default=None, description="For people.")


class ChangeEndpointRequest(RequestModel):
    """What is left out stays."""

    url: WebhookUrl = Field(default_factory=str, description=str(_URL.description))
    types: _Types | None = Field(default=None, description=_TYPES)
    description: _Description | None = Field(default=None, description="Null: none.")
    is_enabled: bool = Field(
        default_factory=bool,
        description="False: nothing is delivered. True: what waited is due at once, and what happened in between is "
        "brought by a replay from `missed_after`.",
    )

    def changes(self) -> EndpointChanges:
        changes = EndpointChanges()
        if "url" in self.model_fields_set:
            changes["url"] = self.url
        if "types" in self.model_fields_set:
            changes["types"] = _words(self.types)
        if "description" in self.model_fields_set:
            changes["description"] = self.description
        if "is_enabled" in self.model_fields_set:
            changes["is_enabled"] = self.is_enabled
        return changes


class RotateSecretRequest(RequestModel):
    overlap_seconds: int = Field(
        default=0,
        ge=0,
        le=OVERLAP_SECONDS_MAX,
        description="For how long webhooks are signed with the secret before as well. 0: not at all.",
    )


class ReplayRequest(RequestModel):
    after: Annotated[int, Field(ge=0, le=2**53 - 1)] = Field(
        description="The `seq` of an event: all later ones are delivered, also those that were delivered already. 0: "
        "all that are kept."
    )


def _words(types: Sequence[str] | None) -> Sequence[str] | None:
    return None if types is None else sorted(set(types))


def types_of(body: CreateEndpointRequest) -> Sequence[str] | None:
    return _words(body.types)


class EndpointView(BaseModel):
    id: UUID
    url: str
    types: list[Annotated[EventType | str, OrNewer()]] | None = Field(description=_TYPES)
    description: str | None
    is_enabled: bool
    disabled_at: datetime | None
    disabled_reason: Annotated[DisabledReason | str, OrNewer()] | None = Field(
        description="`by_you`; `gone`, it answered 410; `failing`, for five days each attempt has failed."
    )
    missed_after: int | None = Field(
        description="Of a disabled endpoint: once it is enabled again, `POST .../replay` with this as `after` brings "
        "everything that happened in between."
    )
    failing_since: datetime | None = Field(
        description="Since then each attempt has failed; null: the last one did not."
    )
    is_replaying: bool = Field(description="Whether a replay is under way.")
    created_at: datetime

    @classmethod
    def of(cls, endpoint: Endpoint) -> Self:
        return cls(**_fields(endpoint))


class EndpointSecretView(EndpointView):
    secret: str = Field(description="What its webhooks are signed with. Shown this once.")

    @classmethod
    def issued(cls, issued: EndpointWithSecret) -> Self:
        return cls(**_fields(issued.endpoint), secret=issued.secret)


def _fields(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "types": None if endpoint.types is None else list(endpoint.types),
        "description": endpoint.description,
        "is_enabled": endpoint.disabled_at is None,
        "disabled_at": endpoint.disabled_at,
        "disabled_reason": endpoint.disabled_reason,
        "missed_after": endpoint.missed_after,
        "failing_since": endpoint.failing_since,
        "is_replaying": endpoint.is_replaying,
        "created_at": endpoint.created_at,
    }


class EndpointList(BaseModel):
    items: list[EndpointView] = Field(description="The oldest first.")


class AttemptView(BaseModel):
    at: datetime
    status: int | None = Field(description="Of the answer; null where none came.")
    error: str | None = Field(description="Why it counts as failed, in one sentence; null where it does not.")
    answer: str | None = Field(description="How the answer to a failed attempt begins.")
    milliseconds: int


class DeliveryView(BaseModel):
    id: str = Field(description="The id of the event, and what `webhook-id` says in each attempt.")
    seq: int
    type: Annotated[EventType | str, OrNewer()]
    job_id: UUID | None
    state: Annotated[DeliveryState | str, OrNewer()] = Field(
        description="`exhausted`: given up after twelve attempts, or because the URL is gone."
    )
    attempts: int
    next_attempt_at: datetime | None = Field(
        description="When the next attempt is due; of a job's events each waits for those before it. Null at the end."
    )
    attempt_log: list[AttemptView] = Field(description="The last attempts, the oldest first.")
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        return cls(
            id=f"evt_{delivery.event_seq}",
            seq=delivery.event_seq,
            type=delivery.event_type,
            job_id=delivery.job_id,
            state=delivery.state,
            attempts=delivery.attempts,
            next_attempt_at=delivery.next_attempt_at,
            attempt_log=[AttemptView(**attempt) for attempt in delivery.attempt_log],
            created_at=delivery.created_at,
            ended_at=delivery.ended_at,
        )


class DeliveryPageView(BaseModel):
    items: list[DeliveryView] = Field(description="The newest first.")
    next_before: int | None = Field(description="Send it as `before` for the page after; null on the last one.")


class WebhookSecretView(BaseModel):
    secret: str
    old_secret_until: datetime | None = Field(description="Until then webhooks are signed with the one before as well.")

    @classmethod
    def of(cls, secret: WebhookSecret) -> Self:
        return cls(secret=secret.secret, old_secret_until=secret.old_secret_until)
