from fastapi import APIRouter, Request

from app.domain.errors import InvalidProviderEvent, ProviderKeysUnavailable
from app.presentation.dependencies import use_cases_of
from app.presentation.documentation import DATABASE_ERRORS, answer, problems
from app.presentation.errors import RequestBodyTooLarge
from app.presentation.json_bodies import read_body
from app.presentation.schemas.acknowledged import Acknowledged
from app.presentation.schemas.fields import parse_uuid

EVENT_BYTES_MAX = 1024 * 1024

router = APIRouter(tags=["Provider"])


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
async def receive_provider_event(request: Request, token: str) -> Acknowledged:
    """Called by fal, with its Ed25519 signature, at the URL that the submission named. A repeat changes nothing."""
    body = await read_body(request, EVENT_BYTES_MAX)
    attempt_token = parse_uuid(token)
    if attempt_token is None:
        raise InvalidProviderEvent
    await use_cases_of(request).receive_provider_event(attempt_token, dict(request.headers), body)
    return Acknowledged()
