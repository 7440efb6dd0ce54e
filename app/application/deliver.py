"""One attempt to deliver one event to one endpoint."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import structlog

from app.application.ports.webhooks import DeliveryQueue, NotReached, WebhookSender
from app.application.retry_after import retry_after_seconds
from app.domain.events import Event
from app.domain.webhook_signatures import sign
from app.domain.webhooks import Attempt, ClaimedDelivery, DeliveryState, Verdict, is_delivered, verdict_on

log = structlog.get_logger(__name__)

ATTEMPT_SECONDS_MAX = 15
ANSWER_LENGTH_MAX = 200
_FORGOTTEN = Attempt(
    milliseconds=0, error="The event was not kept for so long that it could be delivered.", is_own_fault=True
)
_NOT_WRITTEN = Attempt(
    milliseconds=0, error="The event could not be written as a message: this is our fault.", is_own_fault=True
)


class Deliver:
    def __init__(
        self,
        queue: DeliveryQueue,
        sender: WebhookSender,
        message_of: Callable[[Event, UUID | None], bytes],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`message_of`: the event as its receiver reads it, and whose it is where that has to be said."""
        self._queue = queue
        self._sender = sender
        self._message_of = message_of
        self._clock = clock

    async def __call__(self, delivery: ClaimedDelivery) -> Verdict:
        """Raises DatabaseUnavailable: then it is tried again once the claim is over."""
        if delivery.event is None:
            attempt, verdict = _FORGOTTEN, Verdict(state=DeliveryState.EXHAUSTED)
        else:
            attempt = await self._attempt(delivery, delivery.event)
            verdict = verdict_on(attempt, delivery.attempts, is_of_job=delivery.is_of_job, chance=random.random())
        await self._queue.record(delivery, attempt, verdict)
        log.info(
            "webhook_attempted",
            endpoint_id=str(delivery.endpoint_id),
            event_id=f"evt_{delivery.event_seq}",
            attempt=delivery.attempts + 1,
            status=attempt.status,
            error=attempt.error,
            milliseconds=attempt.milliseconds,
            state=verdict.state.value,
        )
        return verdict

    async def _attempt(self, delivery: ClaimedDelivery, event: Event) -> Attempt:
        try:
            body = self._message_of(event, delivery.external_user_id)
        except Exception:
            # The others of its endpoint go on, and a later release may know what this one does not.
            log.exception("webhook_message_failed", event_id=event.id)
            return _NOT_WRITTEN
        timestamp_seconds = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event.id,
            "webhook-timestamp": str(timestamp_seconds),
            "webhook-signature": sign(delivery.secrets, event.id, timestamp_seconds, body),
        }
        began_at_seconds = time.monotonic()
        try:
            received = await self._sender.post(
                delivery.url, body, headers, seconds_max=ATTEMPT_SECONDS_MAX, owner=delivery.account_id
            )
        except NotReached as error:
            if error.is_own_fault:
                log.warning("webhook_not_sent", reason=error.reason, cause=repr(error.__cause__))
            milliseconds = _milliseconds_since(began_at_seconds)
            return Attempt(milliseconds=milliseconds, error=error.reason, is_own_fault=error.is_own_fault)
        milliseconds = _milliseconds_since(began_at_seconds)
        if is_delivered(received.status):
            return Attempt(milliseconds=milliseconds, status=received.status)
        return Attempt(
            milliseconds=milliseconds,
            status=received.status,
            error=_failure(received.status),
            answer=_beginning(received.body),
            retry_after_seconds=retry_after_seconds(received.headers, datetime.fromtimestamp(timestamp_seconds, UTC)),
        )


def _milliseconds_since(began_at_seconds: float) -> int:
    return round((time.monotonic() - began_at_seconds) * 1000)


def _failure(status: int) -> str:
    if 300 <= status < 400:
        return f"The endpoint answered {status}: redirects are not followed. Change the URL to where it leads."
    return f"The endpoint answered {status}, and not 2xx."


def _beginning(body: bytes) -> str | None:
    text = body[: 4 * ANSWER_LENGTH_MAX].decode(errors="replace")
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown[:ANSWER_LENGTH_MAX] or None
