"""Secrets among the settings: their forms, how strong they have to be, and what of them must never be shown."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, SecretStr

SECRET_LENGTH_MIN = 32
# For a laptop only; nothing that others can reach starts with it.
DEVELOPMENT_WEBHOOK_SECRET = "development-webhook-secret"  # noqa: S105
# While one value is exchanged for another, both are good.
LIVE_VALUES_MAX = 2
# By zxcvbn's estimate. 32 random digits take 10^28 guesses, repeated words and rows of the keyboard 10^13 at the most.
GUESSES_LOG10_MIN = 20
# zxcvbn takes longer than its answer is worth for more than this.
_JUDGED_LENGTH_MAX = 40

_IN_A_HEADER = re.compile(r"[ -~]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SecretParts:
    """Part of a field's annotation: what of its value is a secret by itself."""

    parts: Callable[[str], Iterable[str]]


def live_values(secret: SecretStr | None) -> Sequence[str]:
    """Split `new,old`. Empty if the secret is not set."""
    return [] if secret is None else _values_in(secret.get_secret_value())


def reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def is_strong(value: str | None) -> bool:
    """Long enough, no example, and no pattern."""
    return _is_long(value) and not _is_guessable(value or "")


def has_strong_values(secret: SecretStr | None) -> bool:
    values = live_values(secret)
    return bool(values) and all(map(is_strong, values))


def is_providers_key(key: SecretStr | None) -> bool:
    """fal makes its keys, so only their length tells, and the examples."""
    return _is_long(reveal(key))


def is_providers_key_or_not_set(key: SecretStr | None) -> bool:
    return key is None or is_providers_key(key)


def can_be_a_header(text: str) -> str:
    """Raises ValueError."""
    if not _IN_A_HEADER.fullmatch(text):
        raise ValueError("must have visible ASCII characters only: no header can carry others")
    return text


def secrets_in(value: object) -> Iterator[str]:
    """Every secret in a model, also in models and collections inside it. The type makes a secret one, no list does."""
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case BaseModel():
            for _, secrets in secrets_by_field(value):
                yield from secrets
        case Mapping():
            yield from _secrets_of_all(value.values())
        case list() | tuple() | set() | frozenset():
            yield from _secrets_of_all(value)


def secrets_by_field(model: BaseModel, *, with_rule: type | None = None) -> Iterator[tuple[str, Sequence[str]]]:
    """The fields that hold secrets, each with its secrets and with what of them is one by itself.

    `with_rule`: only those of whose annotation such a rule is part.
    """
    for name, field in type(model).model_fields.items():
        whole = list(secrets_in(getattr(model, name)))
        rules = [rule for rule in field.metadata if isinstance(rule, SecretParts)]
        parts = [part for rule in rules for secret in whole for part in rule.parts(secret)]
        if whole and (with_rule is None or any(isinstance(rule, with_rule) for rule in field.metadata)):
            yield name, [*whole, *parts]


def _secrets_of_all(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        yield from secrets_in(value)


def _values_in(text: str) -> Sequence[str]:
    return [value.strip() for value in text.split(",")]


def _is_long(value: str | None) -> bool:
    if value is None or value == DEVELOPMENT_WEBHOOK_SECRET:
        return False
    return len(value) >= SECRET_LENGTH_MIN and "change-me" not in value and len(set(value)) > 4


def _is_guessable(value: str) -> bool:
    # The words that it knows take a while to load, and only production asks.
    from zxcvbn import zxcvbn  # noqa: PLC0415

    return bool(zxcvbn(value[:_JUDGED_LENGTH_MAX])["guesses_log10"] < GUESSES_LOG10_MIN)


def _incoming(secret: SecretStr) -> SecretStr:
    values = _values_in(secret.get_secret_value())
    if not all(values):
        raise ValueError("has an empty value beside a comma; a comma separates the new value from the old one")
    if len(values) > LIVE_VALUES_MAX:
        raise ValueError(f"has {len(values)} values; at most {LIVE_VALUES_MAX} are good at once, new,old")
    if len(set(values)) < len(values):
        raise ValueError("has the same value twice; write new,old while you exchange it, or one value")
    for value in values:
        can_be_a_header(value)
    return secret


IncomingSecret = Annotated[SecretStr, AfterValidator(_incoming)]
"""What others send to us in a header, or what we sign with: one value, or `new,old` while it is exchanged."""
INCOMING_PARTS = SecretParts(_values_in)
KEY_PARTS = SecretParts(lambda key: [key.partition(":")[2]])
