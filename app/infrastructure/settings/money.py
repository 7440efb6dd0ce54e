"""Who may open accounts and credit them, and what a generation costs."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from app.domain.catalogue import PriceList
from app.domain.payments import SOURCE_PATTERN
from app.infrastructure.secrets import DEVELOPMENT_WEBHOOK_SECRET, LENGTH_MIN
from app.infrastructure.settings.values import (
    InProduction,
    Secrets,
    is_strong,
    is_strong_or_not_set,
    reveal_all,
    secret_pair,
)

_DEMAND = f"a secret of at least {LENGTH_MIN} characters that follow no pattern: openssl rand -hex 32"
_STRONG = InProduction(is_strong, f"must be set to {_DEMAND}", is_for_others=True)
_STRONG_EACH = InProduction(is_strong_or_not_set, f"must have for each source {_DEMAND}", is_for_others=True)


def _json_object(value: str, example: str, **options: Any) -> dict[str, Any]:
    try:
        given = json.loads(value, **options)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
    if not isinstance(given, dict):
        raise ValueError(f"must be a JSON object such as {example}")
    return given


def _prices(value: Any) -> Any:
    return PriceList(_json_object(value, '{"text_to_image": 5}')) if isinstance(value, str) else value


class _Twice(dict[str, Any]):
    """An object of JSON in which a name stands twice: which value counts would be up to the reader."""


def _sources(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    given = _json_object(value, '{"stripe": "its secret"}', object_pairs_hook=_object_of)
    if isinstance(given, _Twice):
        raise ValueError("must name each source once")
    if not given:
        raise ValueError("must name a source, or be left out")
    if not all(re.fullmatch(SOURCE_PATTERN, name) for name in given):
        raise ValueError("must name sources with 1 to 32 of the characters a-z 0-9 _ and -")
    if not all(isinstance(secret, str) for secret in given.values()):
        raise ValueError("must have for each source its secret, a string")
    return {name: secret_pair(secret) for name, secret in given.items()}


def _object_of(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Twice(found)


class MoneySettings(BaseModel):
    auth_secret: Annotated[Secrets | None, NoDecode, _STRONG] = None
    payment_webhook_secret: Annotated[Secrets | None, NoDecode, _STRONG] = None
    payment_sources_json: Annotated[
        Mapping[str, tuple[SecretStr, ...]] | None, NoDecode, BeforeValidator(_sources), _STRONG_EACH
    ] = None
    topup_require_event_id: bool | None = None
    token_prices_json: Annotated[PriceList, NoDecode, BeforeValidator(_prices)] = PriceList()

    @property
    def service_secrets(self) -> Sequence[str]:
        return reveal_all(self.auth_secret)

    @property
    def webhook_secrets(self) -> Sequence[str]:
        """Of senders without a source of their own."""
        return reveal_all(self.payment_webhook_secret) or (DEVELOPMENT_WEBHOOK_SECRET,)

    @property
    def secrets_by_source(self) -> Mapping[str, Sequence[str]]:
        return {source: reveal_all(secrets) for source, secrets in (self.payment_sources_json or {}).items()}

    @property
    def webhook_secret(self) -> str:
        """The one that a new sender is given."""
        return self.webhook_secrets[0]

    @property
    def is_secret_of_a_source_shared(self) -> bool:
        """Whether the secret of a source opens more than this source."""
        secrets = [*self.webhook_secrets]
        for source in self.secrets_by_source.values():
            secrets += source
        return len(set(secrets)) < len(secrets)
