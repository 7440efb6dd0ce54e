from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import structlog

from app.application.keys import is_one_of
from app.application.ports.payments import Payments
from app.domain.errors import InvalidWebhookSecret, PaymentEventConflict, PaymentEventIdRequired
from app.domain.payments import PaymentEvent

log = structlog.get_logger(__name__)

WEBHOOK_SOURCE = "webhook"
IDEMPOTENCY_KEY_SOURCE = "idempotency-key"
UNIDENTIFIED_SOURCE = "unidentified"


@dataclass(frozen=True, slots=True)
class TopUp:
    """Credit a payment once, however often its event is delivered.

    Where there is no event id an idempotency key serves as one, among its own kind. Without either there is nothing
    to recognise a repeat by: each delivery credits, where that is allowed.
    Raises PaymentEventConflict, PaymentEventIdRequired, BalanceLimitExceeded.
    """

    payments: Payments
    is_event_id_required: bool

    async def __call__(
        self,
        external_user_id: UUID,
        amount: int,
        *,
        event_id: str | None,
        idempotency_key: str | None = None,
        source: str = WEBHOOK_SOURCE,
    ) -> None:
        if event_id is None and idempotency_key is not None:
            event_id, source = idempotency_key, IDEMPOTENCY_KEY_SOURCE
        elif event_id is None:
            if self.is_event_id_required:
                raise PaymentEventIdRequired
            event_id, source = str(uuid4()), UNIDENTIFIED_SOURCE
        event = PaymentEvent(source=source, event_id=event_id, external_user_id=external_user_id, amount=amount)
        fields = {"external_user_id": str(external_user_id), "amount": amount, "event_id": event_id}
        try:
            credited = await self.payments.credit(event)
        except PaymentEventConflict:
            log.warning("payment_event_conflicted", **fields)
            raise
        log.info("tokens_credited" if credited else "payment_event_repeated", source=source, **fields)


class ReceivePayment:
    """`POST /webhook/topup`: a top-up of whoever knows the payment provider's secret.

    Raises InvalidWebhookSecret, and what TopUp raises.
    """

    def __init__(self, top_up: TopUp, secrets: Sequence[str]) -> None:
        """`secrets`: the provider's, the new one and the old one while it is exchanged."""
        self._top_up = top_up
        self._secrets = secrets

    def check_secret(self, given: str | None) -> None:
        """Raises InvalidWebhookSecret."""
        if not is_one_of(given, self._secrets):
            raise InvalidWebhookSecret

    async def __call__(
        self,
        external_user_id: UUID,
        amount: int,
        *,
        secret: str | None,
        event_id: str | None,
        idempotency_key: str | None = None,
    ) -> None:
        self.check_secret(secret)
        await self._top_up(external_user_id, amount, event_id=event_id, idempotency_key=idempotency_key)
