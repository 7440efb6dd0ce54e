"""Webhook endpoints of customers and of the operator, and the secrets that they are signed by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from app.application.ports.webhooks import Deliveries, WebhookEndpoints, WebhookSecrets
from app.domain.webhook_signatures import new_secret
from app.domain.webhooks import Endpoint, EndpointChanges, NewEndpoint, WebhookSecret

log = structlog.get_logger(__name__)

Owner = TypeVar("Owner", UUID, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointWithSecret:
    """An endpoint with its new secret, which nobody can show again."""

    endpoint: Endpoint
    secret: str


@dataclass(frozen=True, slots=True)
class Webhooks(Generic[Owner]):
    """The endpoints of an account, or of None, which is the operator. Raises what the ports raise."""

    endpoints: WebhookEndpoints

    async def create(
        self, account_id: Owner, url: str, types: Sequence[str] | None, description: str | None
    ) -> EndpointWithSecret:
        new = NewEndpoint(id=uuid7(), url=url, types=types, description=description, secret=new_secret())
        endpoint = await self.endpoints.create(account_id, new)
        _log("webhook_endpoint_created", account_id, endpoint.id)
        return EndpointWithSecret(endpoint=endpoint, secret=new.secret)

    async def change(self, account_id: Owner, endpoint_id: UUID, changes: EndpointChanges) -> Endpoint:
        endpoint = await self.endpoints.change(account_id, endpoint_id, changes)
        _log("webhook_endpoint_changed", account_id, endpoint_id)
        return endpoint

    async def delete(self, account_id: Owner, endpoint_id: UUID) -> None:
        await self.endpoints.delete(account_id, endpoint_id)
        _log("webhook_endpoint_deleted", account_id, endpoint_id)

    async def rotate_secret(self, account_id: Owner, endpoint_id: UUID, *, overlap_seconds: int) -> EndpointWithSecret:
        secret = new_secret()
        endpoint = await self.endpoints.rotate_secret(account_id, endpoint_id, secret, overlap_seconds=overlap_seconds)
        _log("webhook_secret_rotated", account_id, endpoint_id)
        return EndpointWithSecret(endpoint=endpoint, secret=secret)


@dataclass(frozen=True, slots=True)
class OperatorWebhooks(Webhooks[None]):
    """They hear of all accounts."""


@dataclass(frozen=True, slots=True)
class CustomerWebhooks(Webhooks[UUID]):
    deliveries: Deliveries
    secrets: WebhookSecrets

    async def rotate_own_secret(self, account_id: UUID, *, overlap_seconds: int) -> WebhookSecret:
        secret = await self.secrets.rotate(account_id, new_secret(), overlap_seconds=overlap_seconds)
        _log("webhook_secret_rotated", account_id, None)
        return secret


def _log(event: str, account_id: UUID | None, endpoint_id: UUID | None) -> None:
    log.info(
        event,
        account_id=None if account_id is None else str(account_id),
        endpoint_id=None if endpoint_id is None else str(endpoint_id),
    )
