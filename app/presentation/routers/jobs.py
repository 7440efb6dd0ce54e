import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from app.domain.accounts import Caller
from app.domain.errors import (
    CommitUnknown,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    JobFinished,
    JobNotFound,
)
from app.domain.events import EventsForgotten
from app.domain.job_filters import FoundJobs, JobFilter
from app.domain.jobs import Job
from app.domain.key_errors import KeyOutdated
from app.domain.limits import TooManyStreams, TooManyWrites
from app.domain.media_errors import JobUnfinished
from app.presentation.http.answers import json_answer
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.event_streams import JobStream, wait_for_change
from app.presentation.http.field_errors import field_error
from app.presentation.http.job_parameters import Kinds, ModelOfJobs, Statuses, WithInput
from app.presentation.http.keyed_routes import CurrentAccount, CurrentCaller, KeyedRoute, StreamRoute, VersionedRoute
from app.presentation.http.openapi import DATABASE_ERRORS, KEY_ERRORS, READ_ERRORS, answer, event_stream, problems
from app.presentation.http.output_links import links_in
from app.presentation.http.parameters import IdempotencyKey, JobId
from app.presentation.http.state import UseCases, state_of
from app.presentation.http.stream_parameters import LastEventId, Wait
from app.presentation.http.streams import EventStream, open_stream
from app.presentation.schemas.examples import COMPLETED_JOB, OUTPUT, REPLAYED
from app.presentation.schemas.fields import PageOffset, PageSize, parse_uuid
from app.presentation.schemas.jobs import INPUT_LEFT_OUT, JobPage, JobView

router = APIRouter(prefix="/generations", tags=["Generations"], route_class=KeyedRoute)

_WAITING = {
    **COMPLETED_JOB,
    "status": "QUEUED",
    "fal_request_id": None,
    "result": None,
    "outputs": [],
    "waiting_for": "fair_share",
    "queue_position": 3,
    "eta_seconds": {"from": 14.2, "to": 51.8},
    "billing": None,
    "updated_at": "2026-11-23T10:15:30.123456Z",
}
_CANCELED = {
    **COMPLETED_JOB,
    "status": "CANCELED",
    "fal_request_id": None,
    "result": None,
    "outputs": [],
    "error_code": "canceled",
    "error_message": "The job was canceled. Nothing was charged.",
    "billing": {
        "charged_tokens": 0,
        "refunded_tokens": 5,
        "outcome": "not_charged",
        "reason": "There is no result.",
        "lines": [{"line": "images", "charged_tokens": 0, "refunded_tokens": 5}],
    },
}

_WITHOUT_URLS = {"images": [{"url": None, "width": 1024, "height": 1024}]}
_DELETED = {
    **OUTPUT,
    "url": None,
    "deleted_at": "2026-11-24T08:00:00.000000Z",
    "deleted_because": "requested",
}


async def get_generation(
    request: Request, caller: CurrentCaller, job_id: JobId, use_cases: UseCases, *, wait: Wait, with_input: WithInput
) -> JobView:
    """Where the job stands, and its result at the end. Somebody else's job is answered like an unknown one.

    With `wait` the answer comes when its status changes. With `include=input` it has what the job was started with.
    """
    keys_version = caller.key.version if caller.is_remembered else None
    look = partial(use_cases.jobs.reader.get, caller.account.id, job_id, keys_version=keys_version)
    if wait is not None and caller.is_remembered:
        # Whoever waits may do so for longer than is remembered.
        raise KeyOutdated
    job = await look() if wait is None else await _wait(request, caller, job_id, wait)
    outlook = await use_cases.jobs.outlooks.of(job)
    if not with_input:
        return JobView.of(job, outlook, links_in(request))
    (given,) = await use_cases.jobs.inputs(caller.account.id, [job])
    return JobView.of(job, outlook, links_in(request), given)


async def _wait(request: Request, caller: Caller, job_id: UUID, seconds: int) -> Job:
    """Raises TooManyStreams, JobNotFound, InvalidApiKey."""
    use_cases = state_of(request.scope).use_cases
    stream = open_stream(request, caller)
    gone = asyncio.create_task(stream.end_with_the_caller(request.receive), name="caller of a wait")
    try:
        async with use_cases.event_feed.follow(caller.account.id, job_id) as subscription:
            stream.ends(subscription)
            look = partial(use_cases.jobs.reader.get, caller.account.id, job_id)
            return await wait_for_change(stream, subscription, seconds, look)
    finally:
        gone.cancel()
        stream.leave()


router.add_api_route(
    "/{job_id}",
    get_generation,
    methods=["GET"],
    route_class_override=VersionedRoute,
    operation_id="get_generation",
    summary="Look at a job",
    response_description="The job",
    responses={
        200: answer(COMPLETED_JOB),
        **problems(*READ_ERRORS, JobNotFound, InvalidRequest, TooManyStreams, *DATABASE_ERRORS),
    },
)


async def stream_generation(
    request: Request, caller: CurrentCaller, job_id: JobId, last_event_id: LastEventId, use_cases: UseCases
) -> Response:
    """What happens to one job, as server-sent events."""

    async def look() -> tuple[Job, JobView]:
        job = await use_cases.jobs.reader.get(caller.account.id, job_id)
        return job, JobView.of(job, await use_cases.jobs.outlooks.of(job), link_to)

    log, streams, link_to = use_cases.events, state_of(request.scope).streams, links_in(request)
    job, _ = await look()
    if job.is_final and last_event_id is not None:
        # In turns: of a process that stops all streams are opened again at once.
        async with streams.replaying(caller.account.id):
            later = await log.page(caller.account.id, after=last_event_id, types=(), job_id=job_id, limit=1)
        if not later.events:
            # A browser asks again whenever a stream has ended, and stops at this answer alone.
            return Response(status_code=204)
    stream = open_stream(request, caller)
    told = JobStream(stream, streams, log, use_cases.event_feed, job_id=job_id, look=look, link_to=link_to)
    return EventStream(stream, told.chunks())


router.add_api_route(
    "/{job_id}/stream",
    stream_generation,
    methods=["GET"],
    route_class_override=StreamRoute,
    operation_id="stream_generation",
    summary="Follow a job to its end",
    response_class=Response,
    responses={
        200: event_stream(
            "First `generation.state` with the job as it stands, again whenever its status changes without an event; "
            "then each event of the job, as in `GET /events/stream`. It ends with the job's end.",
            COMPLETED_JOB,
        ),
        204: {"description": "The job has ended, and you have heard of that: there is nothing more to come."},
        **problems(*READ_ERRORS, JobNotFound, EventsForgotten, InvalidRequest, TooManyStreams, *DATABASE_ERRORS),
    },
)


@router.get(
    "",
    operation_id="list_generations",
    summary="List your jobs",
    response_description="The newest jobs first",
    responses={
        200: answer({"items": [_WAITING, COMPLETED_JOB], "limit": 20, "offset": 0, "next_cursor": None}),
        **problems(*READ_ERRORS, JobNotFound, InvalidRequest, *DATABASE_ERRORS),
    },
)
async def list_generations(
    request: Request,
    account: CurrentAccount,
    use_cases: UseCases,
    *,
    with_input: WithInput,
    limit: Annotated[PageSize, Query(description="How many jobs.")] = 20,
    offset: Annotated[
        PageOffset,
        Query(
            description="How many newer jobs to leave out, without a filter. A cursor stays quick however far it leads."
        ),
    ] = 0,
    cursor: Annotated[
        str | None,
        Query(
            description="`next_cursor` of the page before; left out, the newest jobs.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
    statuses: Statuses = None,
    kinds: Kinds = None,
    model: ModelOfJobs = None,
) -> JobPage:
    """All your jobs, finished or not, one page at a time.

    With `status`, `type` or `model` only those that fit, and only so many jobs are looked through for one page: it may
    be short or empty and still have a `next_cursor`. With `include=input` a page of very long inputs is short, too. Go
    on until `next_cursor` is null.
    """
    after = None if cursor is None else parse_uuid(cursor)
    if cursor is not None and after is None:
        raise InvalidRequest([field_error("invalid_cursor", "cursor")])
    wanted = JobFilter(statuses=statuses or (), kinds=kinds or (), model_id=model)
    if offset and not wanted.is_empty:
        raise InvalidRequest([field_error("offset_with_filter", "offset")])
    reader = use_cases.jobs.reader
    if wanted.is_empty:
        # One more than asked for tells whether there is another page.
        jobs = await reader.page(account.id, limit=limit + 1, offset=offset, after=after)
        found = FoundJobs(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)
    else:
        found = await reader.find(account.id, wanted, limit=limit, after=after)
    items = await _views(request, account.id, found.jobs, with_input=with_input)
    is_cut = len(items) < len(found.jobs)
    next_cursor = items[-1].job_id if is_cut else found.next_after
    return JobPage(items=items, limit=limit, offset=offset, next_cursor=next_cursor)


async def _views(request: Request, account_id: UUID, page: Sequence[Job], *, with_input: bool) -> list[JobView]:
    """Of the first ones alone where all inputs together would be too much for one answer."""
    use_cases, link_to = state_of(request.scope).use_cases, links_in(request)
    outlooks = await use_cases.jobs.outlooks.each_of(page)
    inputs = await use_cases.jobs.inputs(account_id, page) if with_input else [INPUT_LEFT_OUT] * len(page)
    return [
        JobView.of(job, outlook, link_to, given) for job, outlook, given in zip(page, outlooks, inputs, strict=False)
    ]


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_generation",
    summary="Stop a job",
    response_model=JobView,
    response_description="The job, `CANCELED` or `CANCELING`",
    responses={
        200: answer(_CANCELED, headers=dict(REPLAYED)),
        **problems(
            *KEY_ERRORS,
            JobNotFound,
            JobFinished,
            IdempotencyKeyInUse,
            IdempotencyKeyReused,
            TooManyWrites,
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
    outlook = await use_cases.jobs.outlooks.of(accepted.job)
    return json_answer(request, JobView.of(accepted.job, outlook, links_in(request)), headers)


@router.delete(
    "/{job_id}/media",
    operation_id="delete_generation_media",
    summary="Delete the files of a job",
    response_description="The job, which stays",
    responses={
        200: answer({**COMPLETED_JOB, "result": _WITHOUT_URLS, "outputs": [_DELETED]}),
        **problems(*KEY_ERRORS, JobNotFound, JobUnfinished, InvalidRequest, *DATABASE_ERRORS, CommitUnknown),
    },
)
async def delete_generation_media(
    request: Request, account: CurrentAccount, job_id: JobId, use_cases: UseCases
) -> JobView:
    """From now on their links answer 410, and fal's URLs are gone from the job. Our copies are erased at once.

    fal deletes its own objects by itself, some days after the job's end. A repeat changes nothing.
    """
    job = await use_cases.media.delete(account.id, job_id)
    return JobView.of(job, await use_cases.jobs.outlooks.of(job), links_in(request))
