from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.domain.errors_of_fal import CODES
from app.domain.jobs import Billing, BillingOutcome, Job, PublicStatus, WaitingFor
from app.domain.kinds import GenerationKind
from app.domain.pricing import PriceLine, Unit
from app.domain.waiting import Outlook, Window
from app.presentation.schemas.fields import OrNewer
from app.presentation.schemas.outputs import LinkTo, OutputView

# So many jobs have few lines between them.
KNOWN_LINES_MAX = 10_000


class PriceLineView(BaseModel):
    line: str = Field(description="The name of this part of the price.")
    unit: Unit = Field(description="What `quantity` counts.")
    unit_tokens: int = Field(description="For one unit, before the factor.")
    factor: str = Field(description='An exact fraction such as "2/3"; "1" where nothing changes the price of a unit.')
    quantity: int
    tokens: int = Field(description="`unit_tokens` times `factor` times `quantity`, rounded up once.")

    @classmethod
    def each_of(cls, lines: Iterable[PriceLine]) -> list[Self]:
        return [cls.of(line) for line in lines]

    @classmethod
    @lru_cache(KNOWN_LINES_MAX)
    def of(cls, line: PriceLine) -> Self:
        return cls(
            line=line.line,
            unit=line.unit,
            unit_tokens=line.unit_tokens,
            factor=str(line.factor),
            quantity=line.quantity,
            tokens=line.tokens,
        )


PRICE = Field(description="What the cost is made of, line by line.")


class AcceptedJob(BaseModel):
    job_id: UUID
    status: Annotated[PublicStatus | str, OrNewer()]
    cost_tokens: int = Field(description="Already debited. Refunded if the job ends without a result.")
    price: list[PriceLineView] = PRICE
    created_at: datetime

    @classmethod
    def of(cls, job: Job) -> "AcceptedJob":
        return cls(
            job_id=job.id,
            status=job.public_status,
            cost_tokens=job.cost_tokens,
            price=PriceLineView.each_of(job.price),
            created_at=job.created_at,
        )


_REASONS: Mapping[BillingOutcome, str] = {
    BillingOutcome.CHARGED: "Everything was delivered.",
    BillingOutcome.PARTIALLY_CHARGED: "Some outputs were not delivered.",
    BillingOutcome.NOT_CHARGED: "There is no result.",
}


class BilledLineView(BaseModel):
    line: str = Field(description="One of `price`.")
    charged_tokens: int
    refunded_tokens: int


class BillingView(BaseModel):
    charged_tokens: int
    refunded_tokens: int
    outcome: BillingOutcome
    reason: str = Field(description="One sentence.")
    lines: list[BilledLineView] = Field(description="What was charged and refunded of each line of the price.")

    @classmethod
    def of(cls, billing: Billing) -> "BillingView":
        return cls(
            charged_tokens=billing.charged_tokens,
            refunded_tokens=billing.refunded_tokens,
            outcome=billing.outcome,
            reason=_REASONS[billing.outcome],
            lines=[
                BilledLineView(line=it.line, charged_tokens=it.charged_tokens, refunded_tokens=it.refunded_tokens)
                for it in billing.lines
            ],
        )


class EtaView(BaseModel):
    """When a job may end, in seconds from now. Four of ten end in between, and half of them before."""

    from_seconds: float = Field(alias="from", serialization_alias="from", description="Half end by then.")
    to_seconds: float = Field(alias="to", serialization_alias="to", description="Nine of ten end by then.")

    @classmethod
    def of(cls, window: Window) -> "EtaView":
        return cls.model_construct(from_seconds=round(window.from_seconds, 1), to_seconds=round(window.to_seconds, 1))


# No job has so little.
INPUT_LEFT_OUT: Mapping[str, Any] = {}


def _is_left_out(given: object) -> bool:
    return given == INPUT_LEFT_OUT


class JobView(BaseModel):
    job_id: UUID
    type: Annotated[GenerationKind | str, OrNewer()]
    model_id: str = Field(description="The model of fal that makes it.")
    status: Annotated[PublicStatus | str, OrNewer()] = Field(description="COMPLETED, FAILED and CANCELED are final.")
    cost_tokens: int
    price: list[PriceLineView] = PRICE
    fal_request_id: str | None = Field(description="Known once fal has accepted the job.")
    result: dict[str, Any] | None = Field(
        description='What fal made, once COMPLETED: `{"images": [...]}` or `{"video": {...}}`. Its '
        "URLs are fal's own and go with the media; `outputs` has links that are kept."
    )
    outputs: list[OutputView] = Field(
        description="The files of `result`, in its order, once COMPLETED: by links of ours, which last as long as each "
        "says."
    )
    error_code: str | None = Field(
        description=f"Why there is no result, for a program. One of {', '.join(f'`{code}`' for code in CODES)}; "
        "there may be more."
    )
    error_message: str | None = Field(
        description="Why there is no result and what to change, for a person, with the parameter and the numbers where "
        "they are known."
    )
    status_reason: str | None = Field(description="Why an unfinished job waits, where there is something to say.")
    waiting_for: Annotated[WaitingFor | str, OrNewer()] | None = Field(
        description="What it waits for: `your_limit`, your own jobs that are under way or fail again and again; "
        "`fair_share`, its turn among all accounts; `provider`, fal; `provider_locked`, the operator, whose account at "
        "fal is refused. null once it runs, and at the end."
    )
    queue_position: int | None = Field(
        description="How many jobs stand before it, first in our queue, then in fal's; null where that is not known. A "
        "job is counted two seconds after its start."
    )
    eta_seconds: EtaView | None = Field(
        description="When it may end, from the last runs of its model and the speed of the queue; null where too few "
        "were measured, while fal takes nothing, and where it takes longer than nearly all did."
    )
    billing: BillingView | None = Field(description="What the job cost in the end; null until it is final.")
    created_at: datetime
    updated_at: datetime
    input: dict[str, Any] | None = Field(
        default_factory=dict,
        exclude_if=_is_left_out,
        description="There with `include=input` alone: the parameters that it was started with and what was filled in "
        "for it, as they can be sent again beside the `model`. Media is its URL, `file:<file_id>` or "
        "`output:<job_id>/<n>`; null stands for what is there no more, or was a `data:` URI that was not kept as a "
        "file. Of a model that is no longer sold there is the prompt alone. null where there is nothing to tell, and, "
        "where `data:` URIs are not kept as files, until the end of a job that has one.",
    )

    @classmethod
    def of(
        cls, job: Job, outlook: Outlook, link_to: LinkTo, given: Mapping[str, Any] | None = INPUT_LEFT_OUT
    ) -> "JobView":
        billing = job.billing
        return cls(
            job_id=job.id,
            type=job.kind,
            model_id=job.model_id,
            status=job.public_status,
            cost_tokens=job.cost_tokens,
            price=PriceLineView.each_of(job.price),
            fal_request_id=job.fal_request_id,
            result=None if job.result is None else dict(job.result),
            outputs=[OutputView.of(output, link_to) for output in job.outputs],
            error_code=job.error_code,
            error_message=job.error_message,
            status_reason=job.status_reason,
            waiting_for=outlook.waiting_for,
            queue_position=outlook.position,
            eta_seconds=None if outlook.eta is None else EtaView.of(outlook.eta),
            billing=None if billing is None else BillingView.of(billing),
            created_at=job.created_at,
            updated_at=job.updated_at,
            input=None if given is None else dict(given),
        )


class JobPage(BaseModel):
    items: list[JobView] = Field(description="Newest first.")
    limit: int
    offset: int
    next_cursor: UUID | None = Field(
        description="Send it as `cursor` for the page after; null on the last one. With a filter, a page that has "
        "fewer jobs than `limit`, or none, may have one too; with `include=input` one that has fewer."
    )
