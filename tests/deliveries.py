"""Deliveries of a database, made one after the other, and the time that passes in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.deliver import Deliver
from app.application.webhooks import CustomerWebhooks, EndpointWithSecret, OperatorWebhooks
from app.domain.webhooks import ClaimedDelivery, Verdict
from app.infrastructure.egress import Egress
from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.webhooks.deliveries import PostgresDeliveries
from app.infrastructure.postgres.webhooks.delivery_queue import PostgresDeliveryQueue
from app.infrastructure.postgres.webhooks.endpoints import PostgresWebhookEndpoints
from app.infrastructure.postgres.webhooks.replays import PostgresReplays
from app.infrastructure.postgres.webhooks.secrets import PostgresWebhookSecrets
from app.infrastructure.webhooks.sender import GuardedWebhookSender
from app.presentation.schemas.events import message_of
from tests.builders import Customer
from tests.media import link_to
from tests.webhook_receiver import Receiver, open_receiver

# Whatever is written of a time comes to have been earlier, as if so long had passed since.
PASS = (
    "UPDATE deliveries SET due_at = due_at - :time, created_at = created_at - :time",
    """UPDATE webhook_endpoints SET next_due_at = CASE WHEN isfinite(next_due_at) THEN next_due_at - :time
         ELSE next_due_at END, backs_off_until = backs_off_until - :time, asked_until = asked_until - :time,
         failing_since = failing_since - :time, last_failed_at = last_failed_at - :time,
         old_secret_until = old_secret_until - :time, disabled_at = disabled_at - :time""",
    "UPDATE webhook_secrets SET old_secret_until = old_secret_until - :time",
)


@dataclass(frozen=True, slots=True)
class Lab:
    engine: AsyncEngine
    receiver: Receiver
    queue: PostgresDeliveryQueue
    replays: PostgresReplays
    deliver: Deliver
    webhooks: CustomerWebhooks

    async def add(
        self, customer: Customer | None, path: str = "/hook", types: Sequence[str] | None = None
    ) -> EndpointWithSecret:
        url = self.receiver.url + path
        if customer is None:
            return await OperatorWebhooks(self.webhooks.endpoints).create(None, url, types, None)
        return await self.webhooks.create(customer.account_id, url, types, None)

    async def note(self, customer: Customer, *types: str, job_id: UUID | None = None) -> None:
        """Events, whatever they are of."""
        async with self.engine.begin() as connection:
            for type_ in types:
                await connection.execute(
                    text(
                        "INSERT INTO event_inbox (account_id, type, job_id, facts) VALUES (:account, :type, :job, "
                        "jsonb_build_object('balance_tokens', 1, 'balance_low_tokens', 2))"
                    ),
                    {"account": customer.account_id, "type": type_, "job": job_id},
                )
        await self.sequence()

    async def sequence(self) -> None:
        while await EventSequencer(self.engine).move():
            pass

    async def claim(self, endpoints_max: int = 100) -> Sequence[ClaimedDelivery]:
        return await self.queue.claim(endpoints_max, leave_out=())

    async def deliver_due(self) -> list[Verdict]:
        """Whatever is due, and what that lets go."""
        verdicts: list[Verdict] = []
        while claimed := await self.claim():
            verdicts += await asyncio.gather(*map(self.deliver, claimed))
        return verdicts

    async def pass_time(self, seconds: float) -> None:
        async with self.engine.begin() as connection:
            for statement in PASS:
                sent = statement.replace(":time", "make_interval(secs => :seconds)")
                await connection.execute(text(sent), {"seconds": seconds})

    async def states(self, endpoint: EndpointWithSecret | None = None) -> list[Any]:
        """Of the deliveries, the oldest first."""
        query = "SELECT state FROM deliveries WHERE :id IS NULL OR endpoint_id = CAST(:id AS uuid) ORDER BY event_seq"
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text(query.replace(":id IS NULL", "CAST(:id AS text) IS NULL")),
                {"id": None if endpoint is None else str(endpoint.endpoint.id)},
            )
            return [row.state for row in found]


@asynccontextmanager
async def open_lab(engine: AsyncEngine) -> AsyncIterator[Lab]:
    queue = PostgresDeliveryQueue(engine)
    async with (
        open_receiver() as receiver,
        GuardedClient.open(egress=Egress(), allows_loopback=True, connections_max=200) as http,
    ):
        yield Lab(
            engine,
            receiver,
            queue,
            PostgresReplays(engine),
            Deliver(queue, GuardedWebhookSender(http), partial(message_of, link_to=link_to)),
            CustomerWebhooks(
                PostgresWebhookEndpoints(engine), PostgresDeliveries(engine), PostgresWebhookSecrets(engine)
            ),
        )
