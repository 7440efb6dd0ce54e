"""The secret of an account, which signs what is sent to the URLs that its generations name."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.domain.errors import CommitUnknown
from app.domain.limits import TooManyWrites
from app.presentation.http.answers import json_answer
from app.presentation.http.bodies import JsonBody
from app.presentation.http.keyed_routes import CurrentAccount, KeyedRoute
from app.presentation.http.openapi import BODY_ERRORS, DATABASE_ERRORS, KEY_ERRORS, READ_ERRORS, answer, problems
from app.presentation.http.state import UseCases
from app.presentation.schemas.examples import WEBHOOK_SECRET
from app.presentation.schemas.webhooks import RotateSecretRequest, WebhookSecretView

router = APIRouter(prefix="/webhook-secret", tags=["Webhooks"], route_class=KeyedRoute)

_read_rotate = JsonBody(RotateSecretRequest, {"both_sign_for_a_day": {"overlap_seconds": 86_400}}, may_be_left_out=True)


@router.get(
    "",
    operation_id="get_webhook_secret",
    summary="Read the secret for `webhook_url`",
    response_model=WebhookSecretView,
    response_description="The secret",
    responses={
        200: answer({"secret": WEBHOOK_SECRET, "old_secret_until": None}),
        **problems(*READ_ERRORS, *DATABASE_ERRORS),
    },
)
async def get_webhook_secret(request: Request, account: CurrentAccount, use_cases: UseCases) -> Response:
    """It signs what is sent to the `webhook_url` of your generations."""
    return json_answer(request, WebhookSecretView.of(await use_cases.webhooks.secrets.get(account.id)))


@router.post(
    "/rotate",
    operation_id="rotate_webhook_secret",
    summary="Exchange the secret for `webhook_url`",
    response_model=WebhookSecretView,
    response_description="The new secret",
    responses={
        200: answer({"secret": WEBHOOK_SECRET, "old_secret_until": "2026-11-24T10:15:30.123456Z"}),
        **problems(*KEY_ERRORS, TooManyWrites, *DATABASE_ERRORS, CommitUnknown, *BODY_ERRORS),
    },
)
async def rotate_webhook_secret(
    request: Request,
    account: CurrentAccount,
    body: Annotated[RotateSecretRequest, Depends(_read_rotate)],
    use_cases: UseCases,
) -> Response:
    """For `overlap_seconds` each webhook carries both signatures.

    A secret that still signs from a rotation before ends. Where the answer is lost, `GET /webhook-secret` has the new
    one.
    """
    secret = await use_cases.webhooks.rotate_own_secret(account.id, overlap_seconds=body.overlap_seconds)
    return json_answer(request, WebhookSecretView.of(secret))
