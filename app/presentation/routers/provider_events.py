from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.domain.errors import InvalidProviderEvent, ProviderKeysUnavailable
from app.presentation.http.bodies import RawBody
from app.presentation.http.openapi import DATABASE_ERRORS, READING_ERRORS, answer, problems
from app.presentation.http.parameters import AttemptToken, read_attempt_token
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases, state_of
from app.presentation.schemas.acknowledged import Acknowledged

EVENT_BYTES_MAX = 1024 * 1024

router = APIRouter(tags=["Provider"], route_class=DirectRoute)


async def _check_head(request: Request) -> None:
    await read_attempt_token(request)
    state_of(request.scope).use_cases.receive_provider_event.check_headers(request.headers)


async def _check_token(request: Request) -> None:
    """Tokens cannot be guessed, so it tells nobody anything that one is known."""
    attempt_token = await read_attempt_token(request)
    await state_of(request.scope).use_cases.receive_provider_event.check_token(attempt_token)


@router.post(
    "/webhooks/fal/{token}",
    dependencies=[Depends(_check_head)],
    operation_id="receive_provider_event",
    summary="Hear from fal that a request is over",
    response_description="The event is known, now or before",
    responses={
        200: answer({"ok": True}),
        **problems(InvalidProviderEvent, *READING_ERRORS, *DATABASE_ERRORS, ProviderKeysUnavailable),
    },
)
async def receive_provider_event(
    request: Request,
    attempt_token: AttemptToken,
    body: Annotated[bytes, Depends(RawBody(EVENT_BYTES_MAX, before_large=_check_token))],
    use_cases: UseCases,
) -> Acknowledged:
    """Called by fal, with its Ed25519 signature, at the URL that the submission named. A repeat changes nothing."""
    await use_cases.receive_provider_event(attempt_token, request.headers, body)
    return Acknowledged()
