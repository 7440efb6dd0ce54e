from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.domain.errors import (
    CommitUnknown,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    JobFinished,
    JobNotFound,
)
from app.domain.limits import TooManyWrites
from app.presentation.http.answers import json_answer
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.field_errors import field_error
from app.presentation.http.keyed_routes import CurrentAccount, CurrentCaller, KeyedRoute, VersionedRoute
from app.presentation.http.openapi import DATABASE_ERRORS, KEY_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.parameters import IdempotencyKey, JobId
from app.presentation.http.state import UseCases
from app.presentation.schemas.examples import COMPLETED_JOB, REPLAYED
from app.presentation.schemas.fields import PageOffset, PageSize, parse_uuid
from app.presentation.schemas.jobs import JobPage, JobView

router = APIRouter(prefix="/generations", tags=["Generations"], route_class=KeyedRoute)

_WAITING = {
    **COMPLETED_JOB,
    "status": "QUEUED",
    "fal_request_id": None,
    "result": None,
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


async def get_generation(caller: CurrentCaller, job_id: JobId, use_cases: UseCases) -> JobView:
    """Where the job stands, and its result at the end. Somebody else's job is answered like an unknown one."""
    keys_version = caller.key.version if caller.is_remembered else None
    job = await use_cases.jobs.reader.get(caller.account.id, job_id, keys_version=keys_version)
    return JobView.of(job, await use_cases.jobs.outlooks.of(job))


router.add_api_route(
    "/{job_id}",
    get_generation,
    methods=["GET"],
    route_class_override=VersionedRoute,
    operation_id="get_generation",
    summary="Look at a job",
    response_description="The job",
    responses={200: answer(COMPLETED_JOB), **problems(*READ_ERRORS, JobNotFound, *DATABASE_ERRORS)},
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
    outlooks = await use_cases.jobs.outlooks.each_of(page)
    items = [JobView.of(job, outlook) for job, outlook in zip(page, outlooks, strict=True)]
    return JobPage(items=items, limit=limit, offset=offset, next_cursor=next_cursor)


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
    return json_answer(request, JobView.of(accepted.job, outlook), headers)
