from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from app.domain.budgets import Period
from app.domain.events import SEQ_MAX, Event, EventType
from app.domain.waiting import NOTHING_TO_SAY
from app.presentation.schemas.fields import WHOLE_NUMBER, OrNewer
from app.presentation.schemas.jobs import JobView
from app.presentation.schemas.ledger import LedgerEntryView
from app.presentation.schemas.outputs import LinkTo

MESSAGE_BYTES_MAX = 20_000
"""Standard Webhooks 1.0: receivers often take no more."""

Seq = Annotated[int, Field(ge=0, le=SEQ_MAX), WHOLE_NUMBER]


class BalanceMoved(BaseModel):
    balance_tokens: int = Field(description="Right after it.")
    entry: LedgerEntryView = Field(description="What moved it, as `GET /ledger` has it.")


class BalanceCrossed(BaseModel):
    balance_tokens: int = Field(description="Right after it.")
    balance_low_tokens: int = Field(description="The bound that was crossed.")


class RefusedByBudget(BaseModel):
    key_id: UUID
    required_tokens: int = Field(description="What the order would have cost that was refused.")
    budget_tokens: int
    per: Annotated[Period | str, OrNewer()]
    spent_tokens: int
    renews_at: datetime | None = Field(description="When the next period begins; null for `ever`.")


class TestedEndpoint(BaseModel):
    endpoint_id: UUID


EventData = JobView | BalanceMoved | BalanceCrossed | RefusedByBudget | TestedEndpoint | dict[str, int | str | None]


class EventView(BaseModel):
    id: str = Field(description="Names the event, wherever and however often it is told.")
    seq: int = Field(description="Its place. Later events of the account have larger ones; there are gaps.")
    type: Annotated[EventType | str, OrNewer()]
    created_at: datetime
    data: EventData = Field(
        description="Of `generation.*` the job, as it was then; of `output.*` the job; of `balance.*` the balance; of "
        "`key.*` the key; of `webhook.test` the endpoint."
    )

    @classmethod
    def of(cls, event: Event, link_to: LinkTo) -> "EventView":
        data = _data_of(event, link_to)
        return cls(id=event.id, seq=event.seq, type=event.type, created_at=event.created_at, data=data)


def _data_of(event: Event, link_to: LinkTo) -> EventData:
    if event.job is not None:
        return JobView.of(event.job, NOTHING_TO_SAY, link_to)
    if event.entry is not None:
        return BalanceMoved(balance_tokens=event.entry.balance_after, entry=LedgerEntryView.of(event.entry))
    if event.type in (EventType.BALANCE_LOW, EventType.BALANCE_RECOVERED):
        return BalanceCrossed(**event.facts)
    if event.type is EventType.KEY_BUDGET_EXCEEDED:
        return RefusedByBudget(**event.facts)
    if event.type is EventType.WEBHOOK_TEST:
        return TestedEndpoint(**event.facts)
    return dict(event.facts)


class EventMessage(EventView):
    """An event as it is delivered to webhook endpoints."""

    timestamp: datetime = Field(description="When it happened, by the name that Standard Webhooks has for it.")
    is_shortened: bool = Field(
        description="Whether `data.result` was left out, because the message would be too large for some receivers: "
        "`GET /generations/{job_id}` has it."
    )

    external_user_id: UUID | None = Field(
        default=None, description="Whose event it is. Only endpoints of the operator, who hears of all, are told."
    )


def message_of(event: Event, external_user_id: UUID | None, *, link_to: LinkTo) -> bytes:
    view = EventView.of(event, link_to)
    message = EventMessage(
        **dict(view), timestamp=event.created_at, is_shortened=False, external_user_id=external_user_id
    )
    body = _written(message)
    if len(body) <= MESSAGE_BYTES_MAX or not isinstance(view.data, JobView):
        return body
    data = view.data.model_copy(update={"result": None})
    return _written(message.model_copy(update={"data": data, "is_shortened": True}))


def _written(message: EventMessage) -> bytes:
    left_out = {"external_user_id"} if message.external_user_id is None else None
    return message.model_dump_json(by_alias=True, exclude=left_out).encode()


class EventPageView(BaseModel):
    items: list[EventView] = Field(description="The oldest first.")
    next_after: int = Field(description="Send it as `after` to go on, now or later: nothing in between is missed.")
    has_more: bool = Field(description="Whether there may be more already.")
