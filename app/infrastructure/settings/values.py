"""What the settings of every concern are made of: checked types, and rules that stand beside the fields."""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, SecretStr

from app.infrastructure.fal.urls import checked_base_url
from app.infrastructure.secrets import is_guessable, parts_of

SECRETS_AT_ONCE_MAX = 2

# Blanks that `strip` does not know: a byte order mark, and what has no width.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_QUOTES = ("'", '"')
_HEADER_TEXT = re.compile("[ -~]+", re.ASCII)
# Zones that nobody outside of a machine, a cluster or a house can ask for.
_PRIVATE_ZONES = (
    *("localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "svc"),
    *("home.arpa", "test", "invalid"),
)
# Services such as nip.io answer with the address that stands in the name.
_ADDRESS_IN_NAME = re.compile(r"(?<![0-9])([0-9]{1,3})[.-]([0-9]{1,3})[.-]([0-9]{1,3})[.-]([0-9]{1,3})(?![0-9])")

_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class InProduction:
    """Part of a field's annotation: what production asks of its value. `demand` follows the name of the setting.

    `is_for_others`: development asks for it, too, where other machines reach the service.
    """

    is_met: Callable[[Any], bool]
    demand: str
    is_for_others: bool = False


def unmet_demands(settings: BaseModel, *, is_production: bool = True) -> list[str]:
    """Of production, or of a service that other machines reach."""
    return [
        f"{name.upper()} {rule.demand}"
        for name, field in type(settings).model_fields.items()
        for rule in field.metadata
        if isinstance(rule, InProduction)
        and (is_production or rule.is_for_others)
        and not rule.is_met(getattr(settings, name))
    ]


def is_set(value: object) -> bool:
    return value is not None


def is_strong(value: object) -> bool:
    """Whether there is a secret in it, and nobody could guess any."""
    secrets = list(secrets_in(value))
    return bool(secrets) and not any(map(is_guessable, secrets))


def is_strong_or_not_set(value: object) -> bool:
    return value is None or is_strong(value)


def is_elsewhere(url: str | None) -> bool:
    """False for every name of this machine."""
    return url is None or not is_this_machine(_host_of(url))


def is_this_machine(host: str) -> bool:
    """Whether this is a name of the machine itself, or of all its addresses."""
    address = _address_of(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def is_for_this_machine_alone(host: str) -> bool:
    """Whether what listens there is out of the reach of other machines."""
    address = _address_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_encrypted_on_its_way(url: str | None) -> bool:
    """What stays on this machine is somebody else's rule."""
    return url is None or url.startswith("https://") or not is_elsewhere(url)


def is_public(url: str | None) -> bool:
    """Whether everybody on the internet may reach it, as far as its name tells."""
    if url is None:
        return True
    host = _host_of(url)
    address = _address_of(host)
    if address is not None:
        return address.is_global and not address.is_multicast
    return (
        "." in host
        and not any(host.endswith(f".{zone}") for zone in _PRIVATE_ZONES)
        and all(_is_public_number(".".join(found)) for found in _ADDRESS_IN_NAME.findall(host))
    )


def _is_public_number(text: str) -> bool:
    try:
        return ip_address(text).is_global
    except ValueError:
        return True


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".")


def _address_of(host: str) -> _Address | None:
    """Reads every notation of an address that the operating system reads, such as 127.1; None for a name."""
    try:
        address: _Address = ip_address(host)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host))
        except (OSError, ValueError):
            return None
    return getattr(address, "ipv4_mapped", None) or address


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


def names_of_one_secret(settings: BaseModel) -> list[str]:
    """A sentence for each two settings that hold the same secret: whoever learns one knows the other."""
    holders: dict[str, list[str]] = {}
    for name in type(settings).model_fields:
        for secret in dict.fromkeys(_keys_in(getattr(settings, name))):
            holders.setdefault(secret, []).append(name.upper())
    shared = dict.fromkeys(" and ".join(names) for names in holders.values() if len(names) > 1)
    return [f"{names} must not hold the same secret" for names in shared]


def _keys_in(value: object) -> Iterator[str]:
    """What opens something by itself. The name of a key of fal, before the colon, opens nothing."""
    for secret in secrets_in(value):
        name = secret.partition(":")[0]
        yield from (part for part in parts_of(secret) if part != name or part == secret)


def plain(text: str) -> tuple[str, bool]:
    """The text without the blanks and the quotes around it, and whether there were quotes.

    A file for `docker run --env-file` keeps the quotes that a shell, or `.env`, would take away.
    """
    text = text.strip().strip(_INVISIBLE).strip()
    if len(text) > 1 and text[0] in _QUOTES and text.find(text[0], 1) == len(text) - 1:
        return plain(text[1:-1])[0], True
    return text, False


def header_text(text: str) -> str:
    """Raises ValueError for what no HTTP header can carry: it could never match what is sent."""
    if not _HEADER_TEXT.fullmatch(text):
        raise ValueError("must be plain ASCII characters without line breaks, because it travels in an HTTP header")
    return text


def secret_pair(value: Any) -> Any:
    """`new,old`: both are good while senders change from one to the other."""
    if not isinstance(value, str):
        return value
    parts = [plain(part)[0] for part in value.split(",")]
    if not all(parts):
        raise ValueError("must be a secret, or two with a comma between them: new,old")
    if len(parts) > SECRETS_AT_ONCE_MAX:
        raise ValueError("must be at most two secrets, new,old: a comma separates them and cannot be part of one")
    if len(set(parts)) < len(parts):
        raise ValueError("must not name the same secret twice")
    return tuple(SecretStr(header_text(part)) for part in parts)


def reveal_all(secrets: Iterable[SecretStr] | None) -> tuple[str, ...]:
    return tuple(secret.get_secret_value() for secret in secrets or ())


Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(secret_pair)]
HeaderText = Annotated[str, AfterValidator(header_text)]


def _base_url(url: str) -> str:
    return checked_base_url(url, "")


Url = Annotated[str, AfterValidator(_base_url)]
