"""The four routes that start a generation, made of what the catalogue sells."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from app.domain.catalogue import Catalogue
from app.domain.errors import (
    CombinationNotAllowed,
    CommitUnknown,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InsufficientBalance,
    PriceExceedsMaximum,
    QuoteNotValid,
    TooManyLargeInputs,
    UnknownModel,
)
from app.domain.kinds import GenerationKind
from app.domain.limits import BudgetExceeded, TooManyJobs, TooManyWrites
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import JsonBody
from app.presentation.http.body_room import LARGE_BODY_BYTES_MAX
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, KEY_ERRORS, answer, problems
from app.presentation.http.parameters import IdempotencyKey
from app.presentation.http.routing import CurrentCaller, KeyedRoute, account_of
from app.presentation.http.state import UseCases, state_of
from app.presentation.schemas.examples import JOB_ID, PRICE, REPLAYED
from app.presentation.schemas.generations import GenerationBodies, GenerationBody
from app.presentation.schemas.jobs import AcceptedJob

COST_HEADER = "X-Cost-Tokens"
BALANCE_HEADER = "X-Balance-Tokens"

_ACCEPTED = {
    "job_id": JOB_ID,
    "status": "QUEUED",
    "cost_tokens": 5,
    "price": PRICE,
    "created_at": "2026-11-23T10:15:30.123456Z",
}
_HEADERS = {
    "Location": {"description": "Where to ask for the job.", "schema": {"type": "string"}},
    COST_HEADER: {"description": "`cost_tokens` of the job.", "schema": {"type": "integer"}},
    BALANCE_HEADER: {"description": "What is left to spend.", "schema": {"type": "integer"}},
    **REPLAYED,
}
# In the documentation, beside the default.
_OTHER_MODELS_SHOWN = 2


@dataclass(frozen=True, slots=True)
class _Words:
    summary: str
    description: str


_DEBITS = "Debits what its lines add up to, and queues the job: all of it or nothing."
_WORDS: Mapping[GenerationKind, _Words] = {
    GenerationKind.TEXT_TO_IMAGE: _Words("Make images from text", _DEBITS),
    GenerationKind.IMAGE_TO_IMAGE: _Words(
        "Make images from images", f"Changes pictures, or combines them, as the prompt says. {_DEBITS}"
    ),
    GenerationKind.TEXT_TO_VIDEO: _Words("Make a video from text", _DEBITS),
    GenerationKind.IMAGE_TO_VIDEO: _Words("Make a video from an image", f"The picture is the first frame. {_DEBITS}"),
}


def generations_router(catalogue: Catalogue) -> APIRouter:
    router = APIRouter(prefix="/generations", tags=["Generations"], route_class=KeyedRoute)
    for kind in GenerationKind:
        name = kind.value.lower()
        words = _WORDS[kind]
        router.add_api_route(
            f"/{'videos' if kind.is_video else 'images'}/{name.replace('_', '-')}",
            _handler(GenerationBodies.of(catalogue, kind)),
            methods=["POST"],
            operation_id=f"start_{name}",
            summary=words.summary,
            description=words.description,
            status_code=202,
            response_model=AcceptedJob,
            response_description="The job is paid and queued",
            responses={202: answer(_ACCEPTED, headers=_HEADERS), **problems(*_ERRORS)},
        )
    return router


_ERRORS = (
    *KEY_ERRORS,
    InsufficientBalance,
    BudgetExceeded,
    TooManyJobs,
    TooManyWrites,
    QuoteNotValid,
    PriceExceedsMaximum,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    UnknownModel,
    CombinationNotAllowed,
    TooManyLargeInputs,
    *DATABASE_ERRORS,
    CommitUnknown,
    *BODY_ERRORS,
)


async def _check_balance(request: Request) -> None:
    """Raises InsufficientBalance for an account that can pay for nothing, unless the request may be a repeat."""
    if "idempotency-key" not in request.headers:
        account = await account_of(request)
        state_of(request.scope).use_cases.jobs.start.check_balance(account)


def _handler(bodies: GenerationBodies) -> Callable[..., Awaitable[Response]]:
    read_body = JsonBody(bodies, _examples(bodies), LARGE_BODY_BYTES_MAX, before_large=_check_balance)

    async def handler(
        request: Request,
        caller: CurrentCaller,
        body: Annotated[GenerationBody, Depends(read_body)],
        idempotency_key: IdempotencyKey,
        use_cases: UseCases,
    ) -> Response:
        accepted = await use_cases.jobs.start(
            caller.account.id, body.wish(), idempotency_key=idempotency_key, key=caller.key
        )
        # A repeat debits nothing: it is told what the account had as its key was looked up.
        balance_tokens = caller.account.balance_tokens if accepted.balance_tokens is None else accepted.balance_tokens
        headers = {
            "Location": f"{request.scope.get('root_path', '')}/generations/{accepted.job.id}",
            COST_HEADER: str(accepted.job.cost_tokens),
            BALANCE_HEADER: str(balance_tokens),
        }
        if accepted.is_replay:
            headers["Idempotent-Replayed"] = "true"
        return json_answer(request, AcceptedJob.of(accepted.job), headers)

    return handler


def _examples(bodies: GenerationBodies) -> Mapping[str, Mapping[str, Any]]:
    default, *others = bodies.catalogue.of_kind(bodies.kind)
    named = {model.title: {"model": model.id, **model.example} for model in others[:_OTHER_MODELS_SHOWN]}
    return {f"{default.title}, the default": default.example, **named}
