"""Who may open accounts and credit them, and what a generation costs."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator
from pydantic_settings import NoDecode

from app.domain.catalogue import PriceList
from app.infrastructure.settings.secrets import (
    DEVELOPMENT_WEBHOOK_SECRET,
    INCOMING_PARTS,
    SECRET_LENGTH_MIN,
    IncomingSecret,
    has_strong_values,
    live_values,
)
from app.infrastructure.settings.values import InProduction

_STRONG = InProduction(
    has_strong_values,
    f"must be set to a secret of at least {SECRET_LENGTH_MIN} characters without a pattern, such as the output of "
    "`openssl rand -hex 32`",
)


def _prices(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        overrides = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
    if not isinstance(overrides, dict):
        raise ValueError('must be a JSON object such as {"text_to_image": 5}')
    return PriceList(overrides)


class MoneySettings(BaseModel):
    auth_secret: Annotated[IncomingSecret | None, _STRONG, INCOMING_PARTS] = None
    payment_webhook_secret: Annotated[IncomingSecret | None, _STRONG, INCOMING_PARTS] = None
    topup_require_event_id: bool | None = None
    token_prices_json: Annotated[PriceList, NoDecode, BeforeValidator(_prices)] = PriceList()

    @property
    def auth_secrets(self) -> Sequence[str]:
        """The newest first. Empty: POST /auth needs none."""
        return live_values(self.auth_secret)

    @property
    def webhook_secrets(self) -> Sequence[str]:
        """The newest first."""
        return live_values(self.payment_webhook_secret) or [DEVELOPMENT_WEBHOOK_SECRET]
