from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.domain.errors import InvalidProviderEvent, ProviderKeysUnavailable
from app.presentation.http.bodies import RawBody
from app.presentation.http.errors import RequestBodyTooLarge
from app.presentation.http.openapi import DATABASE_ERRORS, answer, problems
from app.presentation.http.parameters import AttemptToken
from app.presentation.http.routing import DirectRoute
from app.presentation.http.state import UseCases
from app.presentation.schemas.acknowledged import Acknowledged

EVENT_BYTES_MAX = 1024 * 1024

router = APIRouter(tags=["Provider"], route_class=DirectRoute)


@router.post(
    "/webhooks/fal/{token}",
    operation_id="receive_provider_event",
    summary="Hear from fal that a request is over",
    response_description="The event is known, now or before",
    responses={
        200: answer({"ok": True}),
        **problems(InvalidProviderEvent, RequestBodyTooLarge, *DATABASE_ERRORS, ProviderKeysUnavailable),
    },
)
async def receive_provider_event(
    request: Request,
    body: Annotated[bytes, Depends(RawBody(EVENT_BYTES_MAX))],
    attempt_token: AttemptToken,
    use_cases: UseCases,
) -> Acknowledged:
    """Called by fal, with its Ed25519 signature, at the URL that the submission named. A repeat changes nothing."""
    await use_cases.receive_provider_event(attempt_token, request.headers, body)
    return Acknowledged()
