"""What the settings of every concern are made of: checked types, and rules that stand beside the fields."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, SecretStr

from app.infrastructure.egress import is_this_machine

SECRET_LENGTH_MIN = 32
# For a laptop only; production refuses it.
DEVELOPMENT_WEBHOOK_SECRET = "development-webhook-secret"  # noqa: S105


@dataclass(frozen=True, slots=True)
class InProduction:
    """Part of a field's annotation: what production asks of its value. `demand` follows the name of the setting."""

    is_met: Callable[[Any], bool]
    demand: str


def unmet_demands(settings: BaseModel) -> list[str]:
    return [
        f"{name.upper()} {rule.demand}"
        for name, field in type(settings).model_fields.items()
        for rule in field.metadata
        if isinstance(rule, InProduction) and not rule.is_met(getattr(settings, name))
    ]


def is_set(value: object) -> bool:
    return value is not None


def is_strong(secret: SecretStr | None) -> bool:
    value = reveal(secret)
    if value is None or value == DEVELOPMENT_WEBHOOK_SECRET:
        return False
    return len(value) >= SECRET_LENGTH_MIN and "change-me" not in value and len(set(value)) > 4


def is_strong_or_not_set(secret: SecretStr | None) -> bool:
    return secret is None or is_strong(secret)


def is_elsewhere(url: str) -> bool:
    """False for every name of this machine."""
    return not is_this_machine(urlsplit(url).hostname or "")


def reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def secrets_in(value: object) -> Iterator[str]:
    """Every secret in a model, also in models and collections inside it. The type makes a secret one, no list does."""
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case BaseModel():
            yield from _secrets_of_all(getattr(value, name) for name in type(value).model_fields)
        case Mapping():
            yield from _secrets_of_all(value.values())
        case list() | tuple() | set() | frozenset():
            yield from _secrets_of_all(value)


def _secrets_of_all(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        yield from secrets_in(value)


def _without_trailing_slash(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("must start with https:// or http:// and name a host")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_without_trailing_slash)]
