"""Posts webhooks, through the client that reaches public addresses alone."""

from collections.abc import Mapping
from uuid import UUID

from app.application.ports.webhooks import NotReached, Received
from app.infrastructure.guarded_http import reasons
from app.infrastructure.guarded_http.client import GuardedClient


class GuardedWebhookSender:
    def __init__(self, http: GuardedClient) -> None:
        self._http = http

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, seconds_max: float, owner: UUID | None
    ) -> Received:
        try:
            answer = await self._http.post(url, body, headers, seconds_max=seconds_max, owner=owner)
        except reasons.NotReached as error:
            raise NotReached(error.reason, is_own_fault=error.is_own_fault) from error
        return Received(status=answer.status, headers=answer.headers, body=answer.body)
