"""Who may open accounts and credit them, what a generation costs, and what signs the promise of a price."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator
from pydantic_settings import NoDecode

from app.domain.payments import SOURCE_PATTERN
from app.domain.pricing import PRICE_TOKENS_MAX
from app.infrastructure.settings.secrets import (
    DEVELOPMENT_WEBHOOK_SECRET,
    INCOMING_PARTS,
    SECRET_LENGTH_MIN,
    IncomingSecret,
    has_strong_values,
    live_values,
)
from app.infrastructure.settings.values import InProduction, without_outer_blanks

_STRONG = InProduction(
    has_strong_values,
    f"must be set to a secret of at least {SECRET_LENGTH_MIN} characters without a pattern, such as the output of "
    "`openssl rand -hex 32`",
)


_STRONG_EACH = InProduction(
    lambda sources: all(map(has_strong_values, (sources or {}).values())),
    f"must have for each source a secret of at least {SECRET_LENGTH_MIN} characters without a pattern",
)


def _json_object(value: str, example: str) -> Mapping[str, Any]:
    try:
        given = json.loads(value, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("is not valid JSON") from None
    except json.JSONDecodeError:
        raise ValueError("is not valid JSON") from None
    if not isinstance(given, dict):
        raise ValueError(f"must be a JSON object such as {example}")
    return given


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values of one name counts would be up to the reader."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("has the same name twice")
    return found


def _prices(value: Any) -> Any:
    given = _json_object(value, '{"text_to_image": 5}') if isinstance(value, str) else value
    for name, tokens in given.items():
        if type(tokens) is not int or not 1 <= tokens <= PRICE_TOKENS_MAX:
            raise ValueError(f"must have for {name!r} a whole number from 1 to {PRICE_TOKENS_MAX}")
    return given


def _sources(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    given = _json_object(value, '{"stripe": "its secret"}')
    if not all(re.fullmatch(SOURCE_PATTERN, name, re.ASCII) for name in given):
        raise ValueError("must name sources with 1 to 32 of the characters a-z 0-9 _ and -")
    if not given or not all(isinstance(secret, str) for secret in given.values()):
        raise ValueError("must have for each source its secret, a string")
    return {name: without_outer_blanks(secret) for name, secret in given.items()}


class MoneySettings(BaseModel):
    auth_secret: Annotated[IncomingSecret | None, _STRONG, INCOMING_PARTS] = None
    payment_webhook_secret: Annotated[IncomingSecret | None, _STRONG, INCOMING_PARTS] = None
    payment_sources_json: Annotated[
        Mapping[str, IncomingSecret] | None, NoDecode, BeforeValidator(_sources), _STRONG_EACH, INCOMING_PARTS
    ] = None
    topup_require_event_id: bool | None = None
    token_prices_json: Annotated[Mapping[str, int], NoDecode, BeforeValidator(_prices)] = {}
    """Their names are those of the catalogue's lines that have one."""
    catalogue_dir: Path | None = None
    signing_secret: Annotated[IncomingSecret | None, _STRONG, INCOMING_PARTS] = None

    @property
    def auth_secrets(self) -> Sequence[str]:
        """The newest first. Empty: POST /auth needs none."""
        return live_values(self.auth_secret)

    @property
    def webhook_secrets(self) -> Sequence[str]:
        """The newest first."""
        return live_values(self.payment_webhook_secret) or [DEVELOPMENT_WEBHOOK_SECRET]

    @property
    def secrets_by_source(self) -> Mapping[str, Sequence[str]]:
        """The newest first."""
        return {source: live_values(secret) for source, secret in (self.payment_sources_json or {}).items()}
