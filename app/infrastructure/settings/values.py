"""What the settings of every concern are made of: checked types, and rules that stand beside the fields."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel

from app.infrastructure.egress import is_this_machine

# Nothing that one program reads as the end of a host and another as a part of it; no credentials, query or fragment.
_PLAIN_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:[0-9]+)?(/[^\s\\?#@]*)?", re.IGNORECASE)
# What text editors and control panels leave at the ends of a value beside blanks: marks that show nothing.
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\0"
_QUOTES = ('"', "'", "`", "\u201c\u201d", "\u2018\u2019", "\u00ab\u00bb")
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".localdomain", ".test", ".invalid")


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


def without_outer_blanks(value: Any) -> Any:
    """Take off what a copied line brings with it: line breaks, blanks, a byte order mark. Leaves other types alone."""
    if not isinstance(value, str):
        return value
    stripped = value.strip().strip(_INVISIBLE).strip()
    return stripped if stripped == value else without_outer_blanks(stripped)


def is_quoted(value: object) -> bool:
    """Whether the value has quotes around it, which some ways of passing an environment on leave in place."""
    return isinstance(value, str) and len(value) > 1 and any(value[0] == q[0] and value[-1] == q[-1] for q in _QUOTES)


def is_elsewhere(url: str) -> bool:
    """False for every name of this machine."""
    return not is_this_machine(urlsplit(url).hostname or "")


def is_public(url: str) -> bool:
    """False for what nobody outside of this network can reach by this name."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    address = _address_of(host)
    return "." in host and not host.endswith(_PRIVATE_NAMES) if address is None else address.is_global


def is_loopback(host: str) -> bool:
    """Whether whoever listens there hears this machine alone. On the unspecified address they hear everybody."""
    address = _address_of(host)
    return is_this_machine(host.lower()) if address is None else address.is_loopback


def connectable(host: str) -> str:
    """The unspecified address is one to listen on, and no target: who listens there answers at loopback, too."""
    address = _address_of(host)
    if address is None or not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _address_of(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_encrypted(url: str) -> bool:
    return url.lower().startswith("https://")


def _plain_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("must start with https:// or http:// and name a host")
    if not _PLAIN_URL.fullmatch(url) or any(segment in (".", "..") for segment in parts.path.split("/")):
        raise ValueError("must be a plain address: a host, perhaps a port and a path, and no credentials or query")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_plain_url)]
