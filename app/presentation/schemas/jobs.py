from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Discriminator, Field, Tag, ValidationInfo
from pydantic_core import PydanticCustomError

from app.domain.catalogue import IMAGE_PRESETS, IMAGE_SIZE_LIMITS, GenerationKind
from app.domain.errors_of_fal import CODES
from app.domain.jobs import Billing, BillingOutcome, Job, PublicStatus
from app.presentation.schemas.fields import NOT_BLANK, STORABLE, OrNewer, RequestModel
from app.presentation.schemas.media_urls import AudioUrl, ImageUrl, ValidationContext

IMAGE_PROMPT_LENGTH_MAX = 2000
VIDEO_PROMPT_LENGTH_MAX = 800

ImagePreset = Literal["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]
Side = Annotated[
    int,
    Field(
        ge=min(limits.side_pixels_min for limits in IMAGE_SIZE_LIMITS.values()),
        le=max(limits.side_pixels_max for limits in IMAGE_SIZE_LIMITS.values()),
        description="Pixels.",
    ),
]


class ImageDimensions(RequestModel):
    width: Side
    height: Side


def _image_size_tag(value: object) -> str:
    # In brackets, so that the tag cannot be taken for a field where an error is located.
    return "(dimensions)" if isinstance(value, dict | ImageDimensions) else "(preset)"


def _integer_only(value: object) -> object:
    """A Literal would take 5.0 for 5."""
    if type(value) is not int:
        raise PydanticCustomError("not_a_duration", "not an integer")
    return value


ImageSize = Annotated[
    Annotated[ImagePreset, Tag("(preset)")] | Annotated[ImageDimensions, Tag("(dimensions)")],
    Discriminator(_image_size_tag),
]


def _about_size(kind: GenerationKind) -> str:
    presets = ", ".join(f"`{name}` {width} x {height}" for name, (width, height) in IMAGE_PRESETS.items())
    return (
        f"A preset, or width and height. {IMAGE_SIZE_LIMITS[kind].sentence} The presets: {presets}. "
        "Without it the model makes a square."
    )


def _is_possible_for(kind: GenerationKind) -> AfterValidator:
    limits = IMAGE_SIZE_LIMITS[kind]

    def check(size: str | ImageDimensions | None) -> str | ImageDimensions | None:
        if isinstance(size, ImageDimensions) and not limits.allows(size.width, size.height):
            raise PydanticCustomError("image_size_not_allowed", "size", {"reason": limits.sentence})
        return size

    return AfterValidator(check)


def _checked_as_ordered(value: bool | None, info: ValidationInfo) -> bool | None:
    context: ValidationContext | None = info.context
    if value is False and context is not None and context.get("is_safety_checker_required"):
        raise PydanticCustomError("safety_checker_required", "false")
    return value


_PROMPT: dict[str, Any] = {
    "min_length": 1,
    "description": "What to make.",
    # Python strips four control characters and U+0085 as blanks, too.
    "json_schema_extra": {"pattern": r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"},
}
ImagePrompt = Annotated[str, Field(max_length=IMAGE_PROMPT_LENGTH_MAX, **_PROMPT), STORABLE, NOT_BLANK]
VideoPrompt = Annotated[str, Field(max_length=VIDEO_PROMPT_LENGTH_MAX, **_PROMPT), STORABLE, NOT_BLANK]
NegativePrompt = Annotated[
    str,
    Field(max_length=500, description="What to avoid.", json_schema_extra={"pattern": r"^[^\u0000]*$"}),
    STORABLE,
]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, description="The same seed and request give a similar result.")]
PromptExpansion = Annotated[bool, Field(description="Let the model rewrite the prompt. It does, unless told not to.")]
SafetyChecker = Annotated[
    bool,
    AfterValidator(_checked_as_ordered),
    Field(description="Let the model filter its results. It does, unless told not to, where the operator lets you."),
]


class GenerationRequest(RequestModel):
    """The names are fal's, so that what was sent can be handed on as it is."""

    # What the price depends on must be with the job, whatever fal's own default is.
    priced_by: ClassVar[str]

    def parameters(self) -> Mapping[str, Any]:
        return self.model_dump(exclude_unset=True, exclude_none=True) | {self.priced_by: getattr(self, self.priced_by)}


class _ImageRequest(GenerationRequest):
    priced_by = "num_images"

    prompt: ImagePrompt
    negative_prompt: NegativePrompt | None = None
    num_images: int = Field(default=1, ge=1, le=4, description="Each one is charged.")
    seed: Seed | None = None
    enable_safety_checker: SafetyChecker | None = None


class TextToImageRequest(_ImageRequest):
    image_size: Annotated[ImageSize | None, _is_possible_for(GenerationKind.TEXT_TO_IMAGE)] = Field(
        default=None, description=_about_size(GenerationKind.TEXT_TO_IMAGE)
    )
    enable_prompt_expansion: PromptExpansion | None = None


class ImageToImageRequest(_ImageRequest):
    image_size: Annotated[ImageSize | None, _is_possible_for(GenerationKind.IMAGE_TO_IMAGE)] = Field(
        default=None, description=_about_size(GenerationKind.IMAGE_TO_IMAGE)
    )
    image_urls: list[ImageUrl] = Field(min_length=1, max_length=2, description="One or two pictures to start from.")


class _VideoRequest(GenerationRequest):
    priced_by = "duration"

    prompt: VideoPrompt
    negative_prompt: NegativePrompt | None = None
    duration: Annotated[Literal[5, 10], BeforeValidator(_integer_only)] = Field(default=5, description="Seconds.")
    resolution: Literal["480p", "720p", "1080p"] | None = Field(default=None, description="1080p where it is left out.")
    audio_url: AudioUrl | None = None
    seed: Seed | None = None
    enable_prompt_expansion: PromptExpansion | None = None
    enable_safety_checker: SafetyChecker | None = None


class TextToVideoRequest(_VideoRequest):
    aspect_ratio: Literal["16:9", "9:16", "1:1"] | None = Field(default=None, description="16:9 where it is left out.")


class ImageToVideoRequest(_VideoRequest):
    image_url: ImageUrl


class AcceptedJob(BaseModel):
    job_id: UUID
    status: Annotated[PublicStatus | str, OrNewer()]
    cost_tokens: int = Field(description="Already debited. Refunded if the job ends without a result.")
    created_at: datetime

    @classmethod
    def of(cls, job: Job) -> "AcceptedJob":
        return cls(job_id=job.id, status=job.public_status, cost_tokens=job.cost_tokens, created_at=job.created_at)


_REASONS: Mapping[BillingOutcome, str] = {
    BillingOutcome.CHARGED: "Everything was delivered.",
    BillingOutcome.PARTIALLY_CHARGED: "Some outputs were not delivered.",
    BillingOutcome.NOT_CHARGED: "There is no result.",
}


class BillingView(BaseModel):
    charged_tokens: int
    refunded_tokens: int
    outcome: BillingOutcome
    reason: str = Field(description="One sentence.")

    @classmethod
    def of(cls, billing: Billing) -> "BillingView":
        return cls(
            charged_tokens=billing.charged_tokens,
            refunded_tokens=billing.refunded_tokens,
            outcome=billing.outcome,
            reason=_REASONS[billing.outcome],
        )


class JobView(BaseModel):
    job_id: UUID
    type: Annotated[GenerationKind | str, OrNewer()]
    model_id: str = Field(description="The model of fal that makes it.")
    status: Annotated[PublicStatus | str, OrNewer()] = Field(description="COMPLETED, FAILED and CANCELED are final.")
    cost_tokens: int
    fal_request_id: str | None = Field(description="Known once fal has accepted the job.")
    result: dict[str, Any] | None = Field(
        description='What fal made, once COMPLETED: `{"images": [...]}` or `{"video": {...}}`.'
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
    billing: BillingView | None = Field(description="What the job cost in the end; null until it is final.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, job: Job) -> "JobView":
        billing = job.billing
        return cls(
            job_id=job.id,
            type=job.kind,
            model_id=job.model_id,
            status=job.public_status,
            cost_tokens=job.cost_tokens,
            fal_request_id=job.fal_request_id,
            result=None if job.result is None else dict(job.result),
            error_code=job.error_code,
            error_message=job.error_message,
            status_reason=job.status_reason,
            billing=None if billing is None else BillingView.of(billing),
            created_at=job.created_at,
            updated_at=job.updated_at,
        )


class JobPage(BaseModel):
    items: list[JobView] = Field(description="Newest first.")
    limit: int
    offset: int
    next_cursor: UUID | None = Field(description="Send it as `cursor` for the page after; null on the last one.")
