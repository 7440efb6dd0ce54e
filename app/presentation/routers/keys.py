"""The keys of an account, which its first key makes."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from starlette.convertors import StringConvertor, register_url_convertor

from app.application.key_management import KeyWithSecret
from app.application.use_cases import CustomerUseCases
from app.domain.accounts import Caller
from app.domain.errors import (
    CommitUnknown,
    IdempotencyKeyReused,
    InvalidApiKey,
)
from app.domain.key_errors import ExpiresInThePast, KeyEnded, KeyNotFound, KeyRestricted, OwnKey, TooManyKeys
from app.domain.limits import TooManyFailedAuthentications, TooManyNewSecrets, TooManyReads, TooManyWrites
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import JsonBody
from app.presentation.http.keyed_routes import CurrentCaller, KeyedRoute
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, KEY_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.parameters import KeyId, KeyIdempotencyKey
from app.presentation.http.state import UseCases
from app.presentation.schemas.examples import REPLAYED
from app.presentation.schemas.keys import (
    ChangeKeyRequest,
    CreatedKeyView,
    CreateKeyRequest,
    KeyList,
    KeyView,
    RotateKeyRequest,
)


class _KeyId(StringConvertor):
    """No key is called `current`: that path answers to what it documents, and to nothing else."""

    regex = "(?!current(?:/|$))[^/]+"


register_url_convertor("key_id", _KeyId())

router = APIRouter(prefix="/keys", tags=["Keys"], route_class=KeyedRoute)

_SECRET = "tgk_" + "7bXq2Lr9" * 6 + "D"
_KEY: Mapping[str, Any] = {
    "id": "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61",
    "hint": "tgk_7bXq",
    "name": "batch of the marketing team",
    "scopes": ["generate", "read"],
    "budget": {"tokens": 500, "per": "month", "spent_tokens": 35, "renews_at": "2026-12-01T00:00:00Z"},
    "created_at": "2026-11-23T10:15:30.123456Z",
    "expires_at": "2027-06-30T00:00:00Z",
    "last_used_at": "2026-11-23T11:42:00Z",
    "is_current": False,
}
_NEW_KEY: Mapping[str, Any] = {
    **_KEY,
    "budget": {**_KEY["budget"], "spent_tokens": 0},
    "last_used_at": None,
    "api_key": _SECRET,
}
_LOCATION = {"Location": {"description": "Where to ask for the key.", "schema": {"type": "string"}}}
# Of what any key may ask, whatever its scopes.
_OWN_KEY_ERRORS = (InvalidApiKey, TooManyFailedAuthentications)
_CHANGE_ERRORS = (*KEY_ERRORS, KeyRestricted, *DATABASE_ERRORS, CommitUnknown)

_read_create = JsonBody(
    CreateKeyRequest,
    {
        "with_a_budget": {
            "name": "batch of the marketing team",
            "scopes": ["generate", "read"],
            "expires_at": "2027-06-30T00:00:00Z",
            "budget": {"tokens": 500, "per": "month"},
        },
        "to_read_alone": {"name": "dashboard", "scopes": ["read"]},
    },
)
_read_change = JsonBody(
    ChangeKeyRequest,
    {
        "another_budget": {"budget": {"tokens": 1000, "per": "month"}},
        "no_budget_and_no_expiry": {"budget": None, "expires_at": None},
    },
)
_read_rotate = JsonBody(
    RotateKeyRequest,
    {"the_old_one_works_for_a_day": {"overlap_seconds": 86_400}, "at_once": {"overlap_seconds": 0}},
    may_be_left_out=True,
)


@router.post(
    "",
    operation_id="create_key",
    summary="Make a key",
    status_code=201,
    response_model=CreatedKeyView,
    response_description="The new key, with its secret",
    responses={
        201: answer(_NEW_KEY, headers={**_LOCATION, **REPLAYED}),
        **problems(
            *_CHANGE_ERRORS,
            TooManyKeys,
            KeyEnded,
            IdempotencyKeyReused,
            ExpiresInThePast,
            TooManyNewSecrets,
            TooManyWrites,
            *BODY_ERRORS,
        ),
    },
)
async def create_key(
    request: Request,
    caller: CurrentCaller,
    body: Annotated[CreateKeyRequest, Depends(_read_create)],
    idempotency_key: KeyIdempotencyKey,
    use_cases: UseCases,
) -> Response:
    """A further key of your account, which may do what its scopes say and spend what its budget says.

    Only a key with every scope, no budget and no expiry may make, change, delete and rotate keys, and not itself.
    A budget is never exceeded, not by one token and not by many requests at once: what does not fit is answered 402
    `budget_exceeded`. An account has at most 100 live keys, and makes and rotates at most 1,000 a day.
    """
    issued = await use_cases.keys.management.create(caller, body.settings(), idempotency_key)
    headers = {"Location": f"{request.scope.get('root_path', '')}/keys/{issued.key.id}"}
    if issued.secret is None:
        headers["Idempotent-Replayed"] = "true"
    return _shown(request, caller, issued, headers)


@router.get(
    "",
    operation_id="list_keys",
    summary="List the keys of your account",
    response_description="All live keys, the oldest first",
    responses={200: answer({"items": [_KEY]}), **problems(*READ_ERRORS, *DATABASE_ERRORS)},
)
async def list_keys(caller: CurrentCaller, use_cases: UseCases) -> KeyList:
    """What each may do and has spent of its budget, and when it was last used. Keys that have ended are left out."""
    keys = await use_cases.keys.management.reader.live(caller.account.id)
    return KeyList(items=[KeyView.of(key, caller.key.id) for key in keys])


@router.get(
    "/current",
    operation_id="get_current_key",
    summary="See what your key may do",
    response_description="The key that the request was made with",
    responses={200: answer({**_KEY, "is_current": True}), **problems(*_OWN_KEY_ERRORS, TooManyReads, *DATABASE_ERRORS)},
)
async def get_current_key(caller: CurrentCaller, use_cases: UseCases) -> KeyView:
    """Any key may ask this of itself."""
    return await _look_at(caller, caller.key.id, use_cases)


@router.delete(
    "/current",
    operation_id="delete_current_key",
    summary="End your key",
    status_code=204,
    response_description="The key has ended",
    responses=problems(*_OWN_KEY_ERRORS, *DATABASE_ERRORS, CommitUnknown),
)
async def delete_current_key(caller: CurrentCaller, use_cases: UseCases) -> Response:
    """Any key may end itself, such as at a sign-out. If it was the last one that could make keys, the operator makes
    another one.
    """
    await use_cases.keys.management.delete.own(caller)
    return Response(status_code=204)


@router.get(
    "/{key_id:key_id}",
    operation_id="get_key",
    summary="Look at a key",
    response_description="The key",
    responses={200: answer(_KEY), **problems(*READ_ERRORS, KeyNotFound, *DATABASE_ERRORS)},
)
async def get_key(caller: CurrentCaller, key_id: KeyId, use_cases: UseCases) -> KeyView:
    """Somebody else's key, and one that has ended, is answered like an unknown one."""
    return await _look_at(caller, key_id, use_cases)


@router.patch(
    "/{key_id:key_id}",
    operation_id="change_key",
    summary="Change a key",
    response_description="The key as it is now",
    responses={
        200: answer(_KEY),
        **problems(*_CHANGE_ERRORS, OwnKey, KeyNotFound, ExpiresInThePast, TooManyWrites, *BODY_ERRORS),
    },
)
async def change_key(
    caller: CurrentCaller,
    key_id: KeyId,
    body: Annotated[ChangeKeyRequest, Depends(_read_change)],
    use_cases: UseCases,
) -> KeyView:
    """What is left out stays; null removes a budget or an expiry. It holds at once, in every process.

    What the key has spent in the current period counts in a new budget: one that is lower than that lets nothing more
    through until it renews.
    """
    key = await use_cases.keys.management.change(caller, key_id, body.changes())
    return KeyView.of(key, caller.key.id)


@router.delete(
    "/{key_id:key_id}",
    operation_id="delete_key",
    summary="End a key",
    status_code=204,
    response_description="The key has ended",
    responses=problems(*_CHANGE_ERRORS, OwnKey, KeyNotFound),
)
async def delete_key(caller: CurrentCaller, key_id: KeyId, use_cases: UseCases) -> Response:
    """It stops working at once, in every process. Its jobs go on, and what is refunded goes to your balance.

    This is never refused for the number of changes in a minute.
    """
    await use_cases.keys.management.delete(caller, key_id)
    return Response(status_code=204)


@router.post(
    "/{key_id:key_id}/rotate",
    operation_id="rotate_key",
    summary="Give a key a new secret",
    response_model=CreatedKeyView,
    response_description="The key, with its new secret",
    responses={
        200: answer({**_KEY, "api_key": _SECRET}),
        **problems(*_CHANGE_ERRORS, OwnKey, KeyNotFound, TooManyNewSecrets, TooManyWrites, *BODY_ERRORS),
    },
)
async def rotate_key(
    request: Request,
    caller: CurrentCaller,
    key_id: KeyId,
    body: Annotated[RotateKeyRequest, Depends(_read_rotate)],
    use_cases: UseCases,
) -> Response:
    """The key stays what it is and keeps what it spent. The secret before works on for `overlap_seconds`: both are one
    key with one budget. Any older one ends.
    """
    issued = await use_cases.keys.management.rotate(caller, key_id, overlap_seconds=body.overlap_seconds)
    return _shown(request, caller, issued)


async def _look_at(caller: Caller, key_id: UUID, use_cases: CustomerUseCases) -> KeyView:
    key = await use_cases.keys.management.reader.get(caller.account.id, key_id)
    return KeyView.of(key, caller.key.id)


def _shown(
    request: Request, caller: Caller, issued: KeyWithSecret, headers: Mapping[str, str] | None = None
) -> Response:
    view = CreatedKeyView.issued(issued, caller.key.id)
    return json_answer(request, view, headers)
