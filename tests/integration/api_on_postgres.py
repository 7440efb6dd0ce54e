"""The web layer on a real database without fal and without a runner, and what its users send."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.cancel import CancelJob
from app.application.execution.follow import FollowJob
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.inputs import ReadInputs
from app.application.jobs import QuoteJob, StartJob, TimeLimits
from app.application.keys import Authenticate, IssueFirstKey, IssueKey, RotateKey
from app.application.payments import ReceivePayment, TopUp
from app.application.ports.health import HealthChecks
from app.application.ports.provider import Provider
from app.application.reversals import ReceiveReversal, ReversePayment
from app.application.use_cases import CustomerJobs, CustomerKeys, CustomerUseCases
from app.application.webhooks import CustomerWebhooks
from app.bootstrap.use_cases import customer_key_management
from app.domain.budgets import NO_LIMITS, AccountLimits
from app.domain.catalogue import Catalogue
from app.infrastructure.postgres.accounts import PostgresAccountSettings
from app.infrastructure.postgres.budget_notices import PostgresBudgetNotices
from app.infrastructure.postgres.event_feed import PostgresEventFeed
from app.infrastructure.postgres.heartbeats import PostgresPausedModels
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.jobs.execution import PostgresJobExecution
from app.infrastructure.postgres.jobs.outlooks import PostgresOutlooks
from app.infrastructure.postgres.jobs.stored_inputs import PostgresStoredInputs
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.keys.management import PostgresKeyManagement
from app.infrastructure.postgres.keys.reader import PostgresKeyReader
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.reversals import PostgresReversals
from app.infrastructure.postgres.webhooks.deliveries import PostgresDeliveries
from app.infrastructure.postgres.webhooks.endpoints import PostgresWebhookEndpoints
from app.infrastructure.postgres.webhooks.secrets import PostgresWebhookSecrets
from app.infrastructure.quotes import SignedQuotes
from app.presentation.http.api import create_api
from app.presentation.http.body_room import BodyRoom
from tests.builders import BUILT_IN, Customer, event_log_of
from tests.media import media_of, without_files

TEXT_TO_IMAGE = "/generations/images/text-to-image"
TEXT_TO_VIDEO = "/generations/videos/text-to-video"
WEBHOOK_SECRET = "the payment provider's secret"
SECRETS_BY_SOURCE = {source: [f"the secret of {source}"] for source in ("stripe", "yookassa")}


@dataclass(frozen=True)
class Api:
    http: httpx.AsyncClient
    room: BodyRoom

    async def start(
        self, customer: Customer, key: str | None, body: dict[str, Any] | None = None, *, path: str = TEXT_TO_IMAGE
    ) -> httpx.Response:
        headers = {"X-API-Key": customer.api_key} | ({} if key is None else {"Idempotency-Key": key})
        return await self.http.post(path, json=body or {"prompt": "a lighthouse"}, headers=headers)

    async def cancel(self, customer: Customer, job_id: UUID, key: str | None) -> httpx.Response:
        headers = {"X-API-Key": customer.api_key} | ({} if key is None else {"Idempotency-Key": key})
        return await self.http.post(f"/generations/{job_id}/cancel", headers=headers)

    async def ledger(self, customer: Customer, **query: object) -> dict[str, Any]:
        """A page."""
        answer = await self.get(customer, "/ledger", **query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def get(self, customer: Customer, path: str, **query: object) -> httpx.Response:
        params = {name: str(value) for name, value in query.items()}
        return await self.http.get(path, params=params, headers={"X-API-Key": customer.api_key})


def api_of(engine: AsyncEngine, catalogue: Catalogue = BUILT_IN, *, limits: AccountLimits = NO_LIMITS) -> FastAPI:
    desk, keys = PostgresJobDesk(engine, limits), PostgresKeys(engine, limits)
    management = customer_key_management(PostgresKeyReader(engine), PostgresKeyManagement(engine, limits))
    quotes = SignedQuotes(["the secret that signs quotes, here"])
    api = create_api(catalogue, version="1.2.3")
    receive_payment = ReceivePayment(
        TopUp(PostgresPayments(engine), is_event_id_required=True), [WEBHOOK_SECRET], SECRETS_BY_SOURCE
    )
    api.state.use_cases = CustomerUseCases(
        keys=CustomerKeys(Authenticate(keys), IssueKey(IssueFirstKey(keys), RotateKey(keys), ()), management),
        jobs=CustomerJobs(
            start=StartJob(
                desk,
                quotes,
                TimeLimits(),
                catalogue.cheapest_tokens,
                _budget_notices=PostgresBudgetNotices(engine),
            ),
            quote=QuoteJob(quotes),
            # What is QUEUED ends without a word to fal.
            cancel=CancelJob(desk, FollowJob(PostgresJobExecution(engine), cast(Provider, None))),
            reader=desk,
            outlooks=PostgresOutlooks(engine),
            inputs=ReadInputs(PostgresStoredInputs(engine), catalogue),
        ),
        account=PostgresAccountSettings(engine, limits),
        ledger=PostgresLedger(engine),
        events=event_log_of(engine),
        event_feed=PostgresEventFeed(engine),
        media=media_of(engine),
        files=without_files(engine),
        webhooks=CustomerWebhooks(
            PostgresWebhookEndpoints(engine, limits),
            PostgresDeliveries(engine, limits),
            PostgresWebhookSecrets(engine, limits),
        ),
        receive_payment=receive_payment,
        receive_reversal=ReceiveReversal(ReversePayment(PostgresReversals(engine)), receive_payment.check_secret),
        receive_provider_event=cast(ReceiveProviderEvent, None),
        health=cast(HealthChecks, None),
        paused_models=PostgresPausedModels(engine),
    )
    return api


@asynccontextmanager
async def open_api(
    engine: AsyncEngine, catalogue: Catalogue = BUILT_IN, *, limits: AccountLimits = NO_LIMITS
) -> AsyncIterator[Api]:
    api = api_of(engine, catalogue, limits=limits)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate") as http:
        yield Api(http, api.state.body_room)


def job_id_of(answer: httpx.Response) -> UUID:
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["job_id"])
