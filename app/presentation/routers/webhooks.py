"""Webhook endpoints of an account, and the deliveries to them."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from app.domain.errors import CommitUnknown
from app.domain.events import EventsForgotten
from app.domain.limits import TooManyWrites
from app.domain.webhooks import (
    DeliveryNotFound,
    DeliveryState,
    EndpointDisabled,
    EndpointNotFound,
    TooManyEndpoints,
)
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import JsonBody
from app.presentation.http.errors import InvalidRequest
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, KEY_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.parameters import EndpointId, EventId
from app.presentation.http.state import UseCases
from app.presentation.schemas.events import Seq
from app.presentation.schemas.examples import JOB_ID, WEBHOOK_SECRET
from app.presentation.schemas.fields import PageSize
from app.presentation.schemas.webhooks import (
    ChangeEndpointRequest,
    CreateEndpointRequest,
    DeliveryPageView,
    DeliveryView,
    EndpointList,
    EndpointSecretView,
    EndpointView,
    ReplayRequest,
    RotateSecretRequest,
    types_of,
)

router = APIRouter(tags=["Webhooks"], route_class=KeyedRoute)

_ENDPOINT: Mapping[str, Any] = {
    "id": "019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d62",
    "url": "https://hooks.example.com/tollgate",
    "types": ["generation.completed", "generation.failed"],
    "description": "production",
    "is_enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
    "missed_after": None,
    "failing_since": None,
    "is_replaying": False,
    "created_at": "2026-11-23T10:15:30.123456Z",
}
_DELIVERY: Mapping[str, Any] = {
    "id": "evt_1795515341654321",
    "seq": 1795515341654321,
    "type": "generation.completed",
    "job_id": JOB_ID,
    "state": "pending",
    "attempts": 1,
    "next_attempt_at": "2026-11-23T10:15:47.012345Z",
    "attempt_log": [
        {
            "at": "2026-11-23T10:15:41.912345Z",
            "status": 500,
            "error": "The endpoint answered 500, and not 2xx.",
            "answer": "database is locked",
            "milliseconds": 84,
        }
    ],
    "created_at": "2026-11-23T10:15:41.712345Z",
    "ended_at": None,
}
_WRITE_ERRORS = (*KEY_ERRORS, TooManyWrites, *DATABASE_ERRORS, CommitUnknown)
_OF_ONE = (*_WRITE_ERRORS, EndpointNotFound)

_read_create = JsonBody(
    CreateEndpointRequest,
    {
        "ends_of_generations": {
            "url": "https://hooks.example.com/tollgate",
            "types": ["generation.completed", "generation.failed"],
        },
        "everything": {"url": "https://hooks.example.com/tollgate", "description": "production"},
    },
)
_read_change = JsonBody(
    ChangeEndpointRequest,
    {"on_again": {"is_enabled": True}, "of_everything": {"types": None}, "off": {"is_enabled": False}},
)
_read_rotate = JsonBody(RotateSecretRequest, {"both_sign_for_a_day": {"overlap_seconds": 86_400}}, may_be_left_out=True)
_read_replay = JsonBody(ReplayRequest, {"what_was_missed": {"after": 1795515341654321}})


@router.post(
    "/webhook-endpoints",
    operation_id="create_webhook_endpoint",
    summary="Add a webhook endpoint",
    status_code=201,
    response_model=EndpointSecretView,
    response_description="The new endpoint, with its secret",
    responses={
        201: answer({**_ENDPOINT, "secret": WEBHOOK_SECRET}),
        **problems(*_WRITE_ERRORS, TooManyEndpoints, *BODY_ERRORS),
    },
)
async def create_webhook_endpoint(
    request: Request,
    account: CurrentAccount,
    body: Annotated[CreateEndpointRequest, Depends(_read_create)],
    use_cases: UseCases,
) -> Response:
    """From now on whatever happens to your account is sent there by POST, signed by
    [Standard Webhooks](https://www.standardwebhooks.com): any of its libraries verifies it with the secret.

    2xx within 15 seconds is delivered; anything else is tried again after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20, 24, 24
    and 24 h, with the same `webhook-id`. Each event comes at least once, and those of a job come in order. An endpoint
    that answers 410, or fails for five days, is disabled, and says so.
    """
    issued = await use_cases.webhooks.create(account.id, body.url, types_of(body), body.description)
    return json_answer(request, EndpointSecretView.issued(issued))


@router.get(
    "/webhook-endpoints",
    operation_id="list_webhook_endpoints",
    summary="List your webhook endpoints",
    response_description="All endpoints, the oldest first",
    responses={200: answer({"items": [_ENDPOINT]}), **problems(*READ_ERRORS, *DATABASE_ERRORS)},
)
async def list_webhook_endpoints(account: CurrentAccount, use_cases: UseCases) -> EndpointList:
    """An account has at most 20."""
    found = await use_cases.webhooks.endpoints.live(account.id)
    return EndpointList(items=[EndpointView.of(endpoint) for endpoint in found])


@router.get(
    "/webhook-endpoints/{endpoint_id}",
    operation_id="get_webhook_endpoint",
    summary="Look at a webhook endpoint",
    response_description="The endpoint",
    responses={200: answer(_ENDPOINT), **problems(*READ_ERRORS, EndpointNotFound, *DATABASE_ERRORS)},
)
async def get_webhook_endpoint(account: CurrentAccount, endpoint_id: EndpointId, use_cases: UseCases) -> EndpointView:
    """Somebody else's endpoint, and one that was deleted, is answered like an unknown one."""
    return EndpointView.of(await use_cases.webhooks.endpoints.get(account.id, endpoint_id))


@router.patch(
    "/webhook-endpoints/{endpoint_id}",
    operation_id="change_webhook_endpoint",
    summary="Change a webhook endpoint",
    response_description="The endpoint as it is now",
    responses={200: answer(_ENDPOINT), **problems(*_OF_ONE, *BODY_ERRORS)},
)
async def change_webhook_endpoint(
    account: CurrentAccount,
    endpoint_id: EndpointId,
    body: Annotated[ChangeEndpointRequest, Depends(_read_change)],
    use_cases: UseCases,
) -> EndpointView:
    """What is left out stays. What waits to be delivered goes to the new URL."""
    return EndpointView.of(await use_cases.webhooks.change(account.id, endpoint_id, body.changes()))


@router.delete(
    "/webhook-endpoints/{endpoint_id}",
    operation_id="delete_webhook_endpoint",
    summary="Delete a webhook endpoint",
    status_code=204,
    response_description="Nothing more is delivered to it",
    responses=problems(*KEY_ERRORS, EndpointNotFound, *DATABASE_ERRORS, CommitUnknown),
)
async def delete_webhook_endpoint(account: CurrentAccount, endpoint_id: EndpointId, use_cases: UseCases) -> Response:
    """What waits to be delivered is dropped; `GET /events` still has it."""
    await use_cases.webhooks.delete(account.id, endpoint_id)
    return Response(status_code=204)


@router.post(
    "/webhook-endpoints/{endpoint_id}/rotate-secret",
    operation_id="rotate_webhook_endpoint_secret",
    summary="Give a webhook endpoint a new secret",
    response_model=EndpointSecretView,
    response_description="The endpoint, with its new secret",
    responses={200: answer({**_ENDPOINT, "secret": WEBHOOK_SECRET}), **problems(*_OF_ONE, *BODY_ERRORS)},
)
async def rotate_webhook_endpoint_secret(
    request: Request,
    account: CurrentAccount,
    endpoint_id: EndpointId,
    body: Annotated[RotateSecretRequest, Depends(_read_rotate)],
    use_cases: UseCases,
) -> Response:
    """For `overlap_seconds` each webhook carries both signatures, so that receivers with either secret take it.

    A secret that still signs from a rotation before ends: who has the answer of one lost and repeats it leaves the
    receivers with one that is good no more.
    """
    issued = await use_cases.webhooks.rotate_secret(account.id, endpoint_id, overlap_seconds=body.overlap_seconds)
    return json_answer(request, EndpointSecretView.issued(issued))


@router.post(
    "/webhook-endpoints/{endpoint_id}/test",
    operation_id="test_webhook_endpoint",
    summary="Send a test to a webhook endpoint",
    status_code=202,
    response_description="The endpoint; `GET .../deliveries` shows in a moment what came of it",
    responses={202: answer(_ENDPOINT), **problems(*_OF_ONE, EndpointDisabled)},
)
async def test_webhook_endpoint(account: CurrentAccount, endpoint_id: EndpointId, use_cases: UseCases) -> EndpointView:
    """Makes an event `webhook.test`, which goes to this endpoint alone, whatever types it wants."""
    await use_cases.webhooks.endpoints.test(account.id, endpoint_id)
    return EndpointView.of(await use_cases.webhooks.endpoints.get(account.id, endpoint_id))


@router.get(
    "/webhook-endpoints/{endpoint_id}/deliveries",
    operation_id="list_deliveries",
    summary="See what was delivered",
    response_description="The newest deliveries first",
    responses={
        200: answer({"items": [_DELIVERY], "next_before": None}),
        **problems(*READ_ERRORS, EndpointNotFound, InvalidRequest, *DATABASE_ERRORS),
    },
)
async def list_deliveries(
    account: CurrentAccount,
    endpoint_id: EndpointId,
    use_cases: UseCases,
    *,
    state: Annotated[DeliveryState | None, Query(description="Only these; left out, all.")] = None,
    before: Annotated[Seq | None, Query(description="`next_before` of the page before.")] = None,
    limit: Annotated[PageSize, Query(description="How many deliveries.")] = 20,
) -> DeliveryPageView:
    """Each event for this endpoint, with its attempts: what was answered, and when the next one is due."""
    page = await use_cases.webhooks.deliveries.page(account.id, endpoint_id, state=state, before=before, limit=limit)
    return DeliveryPageView(items=[DeliveryView.of(it) for it in page.deliveries], next_before=page.next_before)


@router.post(
    "/webhook-endpoints/{endpoint_id}/deliveries/{event_id}/redeliver",
    operation_id="redeliver",
    summary="Deliver once more",
    status_code=202,
    response_description="The delivery, which begins anew",
    responses={202: answer({**_DELIVERY, "attempts": 0}), **problems(*_OF_ONE, DeliveryNotFound, EndpointDisabled)},
)
async def redeliver(
    account: CurrentAccount, endpoint_id: EndpointId, event_id: EventId, use_cases: UseCases
) -> DeliveryView:
    """Also what was delivered already, or given up. The receiver knows it by the same `webhook-id`."""
    return DeliveryView.of(await use_cases.webhooks.deliveries.redeliver(account.id, endpoint_id, event_id))


@router.post(
    "/webhook-endpoints/{endpoint_id}/replay",
    operation_id="replay_events",
    summary="Deliver everything since",
    status_code=202,
    response_description="The endpoint; `is_replaying` until all of it waits to be delivered",
    responses={
        202: answer({**_ENDPOINT, "is_replaying": True}),
        **problems(*_OF_ONE, EndpointDisabled, EventsForgotten, *BODY_ERRORS),
    },
)
async def replay_events(
    account: CurrentAccount,
    endpoint_id: EndpointId,
    body: Annotated[ReplayRequest, Depends(_read_replay)],
    use_cases: UseCases,
) -> EndpointView:
    """Also what happened while the endpoint was disabled, or before it was added. It goes on in the background."""
    return EndpointView.of(await use_cases.webhooks.endpoints.replay(account.id, endpoint_id, body.after))
