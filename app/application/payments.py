import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

import structlog

from app.application.keys import is_one_of
from app.application.ports.payments import Payments
from app.domain.errors import (
    BalanceLimitExceeded,
    InvalidWebhookSecret,
    PaymentEventConflict,
    PaymentEventIdRequired,
)
from app.domain.payments import UNIDENTIFIED_SOURCE, WEBHOOK_SOURCE, PaymentEvent, source_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TopUp:
    """Credit a payment once, however often its event is delivered.

    Without an event id there is nothing to recognise a repeat by: each delivery credits, where that is allowed.
    Raises PaymentEventConflict, PaymentEventIdRequired, BalanceLimitExceeded.
    """

    payments: Payments
    is_event_id_required: bool

    async def __call__(self, external_user_id: UUID, amount: int, *, event_id: str | None, source: str) -> bool:
        """Whether it was credited now: False means that it had been before."""
        return await self.credit(self.event_of(external_user_id, amount, event_id=event_id, source=source))

    def event_of(self, external_user_id: UUID, amount: int, *, event_id: str | None, source: str) -> PaymentEvent:
        if event_id is None:
            if self.is_event_id_required:
                raise PaymentEventIdRequired
            event_id, source = str(uuid4()), UNIDENTIFIED_SOURCE
        return PaymentEvent(source=source, event_id=event_id, external_user_id=external_user_id, amount=amount)

    async def credit(self, event: PaymentEvent) -> bool:
        credited = await self.payments.credit(event)
        log.info("tokens_credited" if credited else "payment_event_repeated", **_fields_of(event))
        return credited


class ReceivePayment:
    """`POST /webhook/topup`: a top-up of whoever knows the payment provider's secret, and
    `POST /webhook/topup/{source}`: of whoever knows the secret of that source. Each source names its own payments.

    What is refused for good is kept for the operator before the caller hears of it: somebody has paid.
    Raises InvalidWebhookSecret, and what TopUp raises.
    """

    def __init__(
        self, top_up: TopUp, webhook_secrets: Sequence[str], secrets_by_source: Mapping[str, Sequence[str]]
    ) -> None:
        self._top_up = top_up
        self._secrets_by_source: dict[str | None, Sequence[str]] = {None: webhook_secrets}
        self._secrets_by_source.update(secrets_by_source)
        # Whoever asks for a source that there is not must not see it in the time that the answer takes.
        self._nobodys = (secrets.token_hex(32),)

    def check_secret(self, given: str | None, source: str | None = None) -> None:
        """Raises InvalidWebhookSecret, also where there is no such source."""
        if not is_one_of(given, self._secrets_by_source.get(source, self._nobodys)):
            raise InvalidWebhookSecret

    async def __call__(
        self,
        external_user_id: UUID,
        amount: int,
        *,
        secret: str | None,
        event_id: str | None,
        source: str | None = None,
    ) -> None:
        self.check_secret(secret, source)
        event = self._top_up.event_of(
            external_user_id,
            amount,
            event_id=event_id,
            source=WEBHOOK_SOURCE if source is None else source_of(source),
        )
        try:
            await self._top_up.credit(event)
        except (PaymentEventConflict, BalanceLimitExceeded) as refusal:
            await self._keep(event, refusal.code)
            raise

    async def _keep(self, event: PaymentEvent, reason: str) -> None:
        if event.source == UNIDENTIFIED_SOURCE:
            # Its id is ours, and a new one each time.
            event = replace(event, event_id="")
        deliveries = await self._top_up.payments.record_refusal(event, reason)
        # One alarm for each payment, however often its provider tries.
        write = log.warning if deliveries is not None and deliveries > 1 else log.error
        write("payment_refused", reason=reason, deliveries=deliveries, **_fields_of(event))


def _fields_of(event: PaymentEvent) -> dict[str, object]:
    return {
        "source": event.source,
        "external_user_id": str(event.external_user_id),
        "amount": event.amount,
        "event_id": event.event_id,
    }
