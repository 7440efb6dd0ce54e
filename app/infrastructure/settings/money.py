"""Who may open accounts and credit them, and what a generation costs."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from app.domain.catalogue import PriceList
from app.infrastructure.settings.values import (
    DEVELOPMENT_WEBHOOK_SECRET,
    SECRET_LENGTH_MIN,
    InProduction,
    is_strong,
    reveal,
)

_STRONG = InProduction(is_strong, f"must be set to a secret of at least {SECRET_LENGTH_MIN} characters")


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
    auth_secret: Annotated[SecretStr | None, _STRONG] = None
    payment_webhook_secret: Annotated[SecretStr | None, _STRONG] = None
    topup_require_event_id: bool | None = None
    token_prices_json: Annotated[PriceList, NoDecode, BeforeValidator(_prices)] = PriceList()

    @property
    def service_secret(self) -> str | None:
        return reveal(self.auth_secret)

    @property
    def webhook_secret(self) -> str:
        return reveal(self.payment_webhook_secret) or DEVELOPMENT_WEBHOOK_SECRET
