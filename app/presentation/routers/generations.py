"""The four routes that start a generation, made of what the catalogue sells."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from app.application.jobs import StartJob
from app.domain.accounts import Account
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
from app.domain.file_errors import FilesFull, FilesUnavailable, InputNotTaken, TooManyUploads
from app.domain.jobs import is_large
from app.domain.kinds import GenerationKind
from app.domain.limits import BudgetExceeded, ProviderLocked, TooManyJobs, TooManyWrites
from app.domain.orders import Accepted
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import Check, JsonBody, RefusedBody
from app.presentation.http.body_room import LARGE_BODY_BYTES_MAX, held_in_turn
from app.presentation.http.keyed_routes import CurrentCaller, KeyedRoute, VersionedRoute, account_of
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, KEY_ERRORS, answer, problems
from app.presentation.http.parameters import IdempotencyKey
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
_ABOUT_BALANCE = "What is left to spend: after the debit, and in a repeat as it is by now."
_HEADERS = {
    "Location": {"description": "Where to ask for the job.", "schema": {"type": "string"}},
    COST_HEADER: {"description": "`cost_tokens` of the job.", "schema": {"type": "integer"}},
    BALANCE_HEADER: {"description": _ABOUT_BALANCE, "schema": {"type": "integer"}},
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
            kind.route.removeprefix(router.prefix),
            _handler(GenerationBodies.of(catalogue, kind)),
            methods=["POST"],
            route_class_override=VersionedRoute,
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
    InputNotTaken,
    FilesFull,
    TooManyUploads,
    FilesUnavailable,
    TooManyLargeInputs,
    ProviderLocked,
    *DATABASE_ERRORS,
    CommitUnknown,
    *BODY_ERRORS,
)


def _balance_check(kind: GenerationKind) -> Check:
    async def check(request: Request) -> None:
        """Raises InsufficientBalance for an account that can pay for nothing, unless the request may be a repeat."""
        if "idempotency-key" not in request.headers:
            account = await account_of(request)
            state_of(request.scope).use_cases.jobs.start.check_balance(account, kind)

    return check


def _handler(bodies: GenerationBodies) -> Callable[..., Awaitable[Response]]:
    read_body = JsonBody(
        bodies,
        _examples(bodies),
        LARGE_BODY_BYTES_MAX,
        before_large=_balance_check(bodies.kind),
        hands_on_refused=True,
    )

    async def handler(
        request: Request,
        caller: CurrentCaller,
        body: Annotated[GenerationBody | RefusedBody, Depends(read_body)],
        idempotency_key: IdempotencyKey,
        use_cases: UseCases,
    ) -> Response:
        start = use_cases.jobs.start
        if isinstance(body, RefusedBody):
            accepted = await _repeated(start, caller.account, bodies, body, idempotency_key)
        else:
            wish = body.wish()
            held = held_in_turn(request.scope["state"])
            if held is not None and (start.keeps_inputs or not is_large(wish.parameters)):
                # Its pictures do not go into the database, or blanks and escapes made it large: nobody has to wait for
                # its end.
                held.end_turn()
            accepted = await start(caller.account.id, wish, idempotency_key=idempotency_key, key=caller.key)
            if accepted.have_keys_changed:
                # Or each of the next orders would make all of its batch wait for a second look.
                use_cases.keys.authenticate.forget(caller)
        return _answer(request, accepted, caller.account)

    return handler


async def _repeated(
    start: StartJob, account: Account, bodies: GenerationBodies, body: RefusedBody, idempotency_key: str | None
) -> Accepted:
    """A repeat is answered as its first request was, also where the catalogue no longer takes it.

    Raises what refuses the body, IdempotencyKeyReused, IdempotencyKeyInUse.
    """
    if idempotency_key is not None:
        asked_for = await asyncio.to_thread(bodies.asked_for, body.document)
        known = None if asked_for is None else await start.repeated(account.id, asked_for, idempotency_key)
        if known is not None:
            return known
    raise body.refusal()


def _answer(request: Request, accepted: Accepted, account: Account) -> Response:
    # Where nobody looked since: what the account had as its API key was found.
    balance_tokens = account.balance_tokens if accepted.balance_tokens is None else accepted.balance_tokens
    headers = {
        "Location": f"{request.scope.get('root_path', '')}/generations/{accepted.job.id}",
        COST_HEADER: str(accepted.job.cost_tokens),
        BALANCE_HEADER: str(balance_tokens),
    }
    if accepted.is_replay:
        headers["Idempotent-Replayed"] = "true"
    return json_answer(request, AcceptedJob.of(accepted.job), headers)


def _examples(bodies: GenerationBodies) -> Mapping[str, Mapping[str, Any]]:
    default, *others = bodies.catalogue.of_kind(bodies.kind)
    named = {model.title: {"model": model.id, **model.example} for model in others[:_OTHER_MODELS_SHOWN]}
    return {f"{default.title}, the default": default.example, **named}
