from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from app.domain.catalogue import GenerationKind
from app.domain.errors import (
    CommitUnknown,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidApiKey,
    JobFinished,
    JobNotFound,
    TooManyLargeInputs,
)
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import JsonBody
from app.presentation.http.body_room import LARGE_BODY_BYTES_MAX
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import field_error
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, answer, problems
from app.presentation.http.parameters import IdempotencyKey, JobId
from app.presentation.http.routing import CurrentAccount, KeyedRoute, account_of
from app.presentation.http.state import UseCases, state_of
from app.presentation.schemas.fields import PageOffset, PageSize, parse_uuid
from app.presentation.schemas.jobs import (
    AcceptedJob,
    GenerationRequest,
    ImageToImageRequest,
    ImageToVideoRequest,
    JobPage,
    JobView,
    TextToImageRequest,
    TextToVideoRequest,
)

router = APIRouter(prefix="/generations", tags=["Generations"], route_class=KeyedRoute)

_JOB_ID = "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61"
_ACCEPTED = {"job_id": _JOB_ID, "status": "QUEUED", "cost_tokens": 5, "created_at": "2026-11-23T10:15:30.123456Z"}
_COMPLETED: Mapping[str, Any] = {
    "job_id": _JOB_ID,
    "type": "TEXT_TO_IMAGE",
    "model_id": "fal-ai/wan-25-preview/text-to-image",
    "status": "COMPLETED",
    "cost_tokens": 5,
    "fal_request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b",
    "result": {"images": [{"url": "https://v3b.fal.media/files/b/0a1b2c3d/fox.png", "width": 1024, "height": 1024}]},
    "error_code": None,
    "error_message": None,
    "status_reason": None,
    "billing": {
        "charged_tokens": 5,
        "refunded_tokens": 0,
        "outcome": "charged",
        "reason": "Everything was delivered.",
    },
    "created_at": "2026-11-23T10:15:30.123456Z",
    "updated_at": "2026-11-23T10:15:41.654321Z",
}
_CANCELED = {
    **_COMPLETED,
    "status": "CANCELED",
    "fal_request_id": None,
    "result": None,
    "error_code": "canceled",
    "error_message": "The job was canceled. Nothing was charged.",
    "billing": {"charged_tokens": 0, "refunded_tokens": 5, "outcome": "not_charged", "reason": "There is no result."},
}
_HEADERS = {
    "Location": {"description": "Where to ask for the job.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true` where the key came before: this is the first request's job, and nothing was debited.",
        "schema": {"type": "string"},
    },
}


@dataclass(frozen=True, slots=True)
class _Start:
    """What sets one of the four routes apart; the name of the operation and the path follow from the kind."""

    kind: GenerationKind
    model: type[GenerationRequest]
    summary: str
    description: str
    examples: Mapping[str, Mapping[str, Any]]


_PICTURE = "https://example.com/fox.png"
_STARTS = (
    _Start(
        GenerationKind.TEXT_TO_IMAGE,
        TextToImageRequest,
        "Make images from text",
        "Debits the price of an image times `num_images`, and queues the job: all of it or nothing.",
        {
            "short": {"prompt": "A fox in the snow, morning light"},
            "long": {
                "prompt": "A fox in the snow, morning light",
                "negative_prompt": "text, watermark",
                "num_images": 2,
                "image_size": {"width": 1280, "height": 768},
                "seed": 42,
                "enable_prompt_expansion": False,
            },
        },
    ),
    _Start(
        GenerationKind.IMAGE_TO_IMAGE,
        ImageToImageRequest,
        "Make images from images",
        "Changes one picture, or combines two, as the prompt says. "
        "Debits the price of an image times `num_images`, and queues the job: all of it or nothing.",
        {
            "short": {"prompt": "Make it night", "image_urls": [_PICTURE]},
            "long": {
                "prompt": "Put the fox into the second picture",
                "image_urls": [_PICTURE, "https://example.com/forest.jpg"],
                "image_size": "landscape_16_9",
                "seed": 42,
            },
        },
    ),
    _Start(
        GenerationKind.TEXT_TO_VIDEO,
        TextToVideoRequest,
        "Make a video from text",
        "Debits the price of a video of this `duration`, and queues the job: all of it or nothing.",
        {
            "short": {"prompt": "A fox runs through the snow"},
            "long": {
                "prompt": "A fox runs through the snow",
                "duration": 10,
                "resolution": "720p",
                "aspect_ratio": "9:16",
                "audio_url": "https://example.com/wind.mp3",
                "seed": 42,
            },
        },
    ),
    _Start(
        GenerationKind.IMAGE_TO_VIDEO,
        ImageToVideoRequest,
        "Make a video from an image",
        "The picture is the first frame. "
        "Debits the price of a video of this `duration`, and queues the job: all of it or nothing.",
        {
            "short": {"prompt": "The fox starts to run", "image_url": _PICTURE},
            "long": {"prompt": "The fox starts to run", "image_url": _PICTURE, "duration": 10, "resolution": "480p"},
        },
    ),
)


@router.get(
    "/{job_id}",
    operation_id="get_generation",
    summary="Look at a job",
    response_description="The job",
    responses={200: answer(_COMPLETED), **problems(InvalidApiKey, JobNotFound, *DATABASE_ERRORS)},
)
async def get_generation(account: CurrentAccount, job_id: JobId, use_cases: UseCases) -> JobView:
    """Where the job stands, and its result at the end. Somebody else's job is answered like an unknown one."""
    return JobView.of(await use_cases.jobs.reader.get(account.id, job_id))


async def _check_balance(request: Request) -> None:
    """Raises InsufficientBalance for an account that can pay for nothing, unless the request may be a repeat."""
    if "idempotency-key" not in request.headers:
        account = await account_of(request)
        state_of(request.scope).use_cases.jobs.start.check_balance(account)


def _handler(start: _Start) -> Callable[..., Awaitable[Response]]:
    read_body = JsonBody(start.model, start.examples, LARGE_BODY_BYTES_MAX, before_large=_check_balance)

    async def handler(
        request: Request,
        account: CurrentAccount,
        body: Annotated[GenerationRequest, Depends(read_body)],
        idempotency_key: IdempotencyKey,
        use_cases: UseCases,
    ) -> Response:
        accepted = await use_cases.jobs.start(
            account.id, start.kind, body.parameters(), idempotency_key=idempotency_key
        )
        headers = {"Location": f"{request.scope.get('root_path', '')}/generations/{accepted.job.id}"}
        if accepted.is_replay:
            headers["Idempotent-Replayed"] = "true"
        return json_answer(request, AcceptedJob.of(accepted.job), headers)

    return handler


for _start in _STARTS:
    _name = _start.kind.value.lower()
    router.add_api_route(
        f"/{'videos' if _start.kind.is_video else 'images'}/{_name.replace('_', '-')}",
        _handler(_start),
        methods=["POST"],
        operation_id=f"start_{_name}",
        summary=_start.summary,
        description=_start.description,
        status_code=202,
        response_model=AcceptedJob,
        response_description="The job is paid and queued",
        responses={
            202: answer(_ACCEPTED, headers=_HEADERS),
            **problems(
                InvalidApiKey,
                InsufficientBalance,
                IdempotencyKeyInUse,
                IdempotencyKeyReused,
                TooManyLargeInputs,
                *DATABASE_ERRORS,
                CommitUnknown,
                *BODY_ERRORS,
            ),
        },
    )


@router.get(
    "",
    operation_id="list_generations",
    summary="List your jobs",
    response_description="The newest jobs first",
    responses={
        200: answer({"items": [_COMPLETED], "limit": 20, "offset": 0, "next_cursor": None}),
        **problems(InvalidApiKey, JobNotFound, InvalidRequest, *DATABASE_ERRORS),
    },
)
async def list_generations(
    account: CurrentAccount,
    use_cases: UseCases,
    limit: Annotated[PageSize, Query(description="How many jobs.")] = 20,
    offset: Annotated[
        PageOffset, Query(description="How many newer jobs to leave out. A cursor stays quick however far it leads.")
    ] = 0,
    cursor: Annotated[
        str | None,
        Query(
            description="`next_cursor` of the page before; left out, the newest jobs.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
) -> JobPage:
    """All your jobs, finished or not, one page at a time."""
    after = None if cursor is None else parse_uuid(cursor)
    if cursor is not None and after is None:
        raise InvalidRequest([field_error("invalid_cursor", "cursor")])
    # One more than asked for tells whether there is another page.
    jobs = await use_cases.jobs.reader.page(account.id, limit=limit + 1, offset=offset, after=after)
    page = jobs[:limit]
    next_cursor = page[-1].id if len(jobs) > limit else None
    items = [JobView.of(job) for job in page]
    return JobPage(items=items, limit=limit, offset=offset, next_cursor=next_cursor)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_generation",
    summary="Stop a job",
    response_model=JobView,
    response_description="The job, `CANCELED` or `CANCELING`",
    responses={
        200: answer(_CANCELED, headers={"Idempotent-Replayed": _HEADERS["Idempotent-Replayed"]}),
        **problems(
            InvalidApiKey,
            JobNotFound,
            JobFinished,
            IdempotencyKeyInUse,
            IdempotencyKeyReused,
            InvalidRequest,
            *DATABASE_ERRORS,
            CommitUnknown,
        ),
    },
)
async def cancel_generation(
    request: Request, account: CurrentAccount, job_id: JobId, idempotency_key: IdempotencyKey, use_cases: UseCases
) -> Response:
    """A job that was not sent to fal yet is canceled and refunded at once.

    Otherwise fal is asked to stop, and the answer waits up to three seconds for its confirmation. Where that
    takes longer the job is `CANCELING`, and ends `CANCELED` and refunded, or `COMPLETED` and charged
    if fal finished it anyway.

    Without an `Idempotency-Key` a repeat of a cancel that ended the job is answered like any cancel of a finished job.
    """
    accepted = await use_cases.jobs.cancel(account.id, job_id, idempotency_key=idempotency_key)
    headers = {"Idempotent-Replayed": "true"} if accepted.is_replay else None
    return json_answer(request, JobView.of(accepted.job), headers)
