from collections.abc import Callable
from dataclasses import asdict, dataclass

import structlog

from app.application.ports.reversals import Reversals
from app.domain.errors import BalanceLimitExceeded, ReversalEventConflict, ReversalEventIdRequired
from app.domain.payments import WEBHOOK_SOURCE, source_of
from app.domain.reversals import ReversalEvent, Reversed

log = structlog.get_logger(__name__)

CheckSecret = Callable[[str | None, str | None], None]


@dataclass(frozen=True, slots=True)
class ReversePayment:
    """Take tokens of a payment back, or give them again, once for each event, however often it is delivered.

    None: it waits. Raises ReversalEventConflict, BalanceLimitExceeded.
    """

    reversals: Reversals

    async def __call__(self, event: ReversalEvent) -> Reversed | None:
        try:
            outcome = await self.reversals.record(event)
        except (ReversalEventConflict, BalanceLimitExceeded) as refusal:
            log.error("reversal_refused", reason=refusal.code, **asdict(event))
            raise
        if outcome is None:
            log.warning("reversal_pending", **asdict(event))
        else:
            log.info("payment_reversed", **asdict(event), **asdict(outcome))
        return outcome


@dataclass(frozen=True, slots=True)
class ReceiveReversal:
    """`POST /webhook/reversal` and `POST /webhook/reversal/{source}`, of whoever may credit payments there.

    Raises InvalidWebhookSecret, ReversalEventIdRequired, and what ReversePayment raises.
    """

    reverse: ReversePayment
    check_secret: CheckSecret

    async def __call__(
        self,
        payment_event_id: str,
        *,
        secret: str | None,
        event_id: str | None,
        source: str | None = None,
        amount: int | None = None,
        withdraws: str | None = None,
    ) -> Reversed | None:
        self.check_secret(secret, source)
        if event_id is None:
            # Without it a repeat cannot be told from another refund of the same payment.
            raise ReversalEventIdRequired
        return await self.reverse(
            ReversalEvent(
                source=WEBHOOK_SOURCE if source is None else source_of(source),
                event_id=event_id,
                payment_event_id=payment_event_id,
                amount=amount,
                withdraws=withdraws,
            )
        )
