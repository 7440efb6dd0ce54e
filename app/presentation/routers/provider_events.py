from fastapi import APIRouter, Request, Response

from app.domain.errors import InvalidProviderEvent, ProviderKeysUnavailable
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import read_body
from app.presentation.http.errors import RequestBodyTooLarge
from app.presentation.http.openapi import DATABASE_ERRORS, answer, problems
from app.presentation.http.routing import DirectRoute, use_cases_of
from app.presentation.schemas.acknowledged import Acknowledged
from app.presentation.schemas.fields import parse_uuid

EVENT_BYTES_MAX = 1024 * 1024

_TOKEN = {"name": "token", "in": "path", "required": True, "schema": {"type": "string", "title": "Token"}}

router = APIRouter(tags=["Provider"], route_class=DirectRoute)


@router.post(
    "/webhooks/fal/{token}",
    operation_id="receive_provider_event",
    summary="Hear from fal that a request is over",
    response_model=Acknowledged,
    response_description="The event is known, now or before",
    responses={
        200: answer({"ok": True}),
        **problems(InvalidProviderEvent, RequestBodyTooLarge, *DATABASE_ERRORS, ProviderKeysUnavailable),
    },
    openapi_extra={"parameters": [_TOKEN]},
)
async def receive_provider_event(request: Request) -> Response:
    """Called by fal, with its Ed25519 signature, at the URL that the submission named. A repeat changes nothing."""
    body = await read_body(request, EVENT_BYTES_MAX)
    attempt_token = parse_uuid(request.path_params["token"])
    if attempt_token is None:
        raise InvalidProviderEvent
    await use_cases_of(request).receive_provider_event(attempt_token, request.headers, body)
    return json_answer(Acknowledged())
