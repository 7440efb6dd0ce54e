"""Which host names lead to a public server, as far as the name alone can tell: nothing is resolved here.

Whoever resolves a name learns an address that may be another one a moment later, so it is fal that must not fetch from
inside its own network. What is refused here can never work, or is an attempt to make it.
"""

import re
import unicodedata
from collections.abc import Iterator
from ipaddress import IPv4Address

import idna

# Reserved, or not delegated and in use for networks of their own: RFC 2606, 6761, 6762, 7686, 8375, 9476, the name
# collisions that ICANN lists, and what Kubernetes, Docker and Consul serve.
_INTERNAL_SUFFIXES = frozenset(
    {
        *("alt", "arpa", "bit", "cluster", "consul", "corp", "dmz", "docker", "domain", "fritz.box", "gateway", "home"),
        *("i2p", "internal", "intra", "intranet", "invalid", "k8s", "kube", "lan", "local", "localdomain", "localhost"),
        *("localnet", "mail", "nas", "onion", "private", "router", "svc", "test", "vpn", "workgroup"),
    }
)
# Public services whose names lead to whatever address is written in them, to the caller's own machine, or to one
# address now and to another one a moment later.
_ADDRESS_SUFFIXES = frozenset(
    {
        *("1u.ms", "127-0-0-1.org.uk", "42foo.com", "backloop.dev", "backname.io", "beweb.com", "fuf.me", "ip6.name"),
        *("lacolhost.com", "local.gd", "localho.st", "localtest.me", "lvh.me", "nip.io", "rbndr.us", "rebind.it"),
        *("smackaho.st", "sslip.io", "traefik.me", "ulh.us", "vcap.me", "xip.io", "xip.name"),
    }
)
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
_TOP_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}", re.ASCII)
_NUMBER = r"(?:0x[0-9a-f]+|[0-9]+)"
_ADDRESS = re.compile(rf"{_NUMBER}(?:\.{_NUMBER})*|\[.*\]", re.ASCII | re.IGNORECASE)
_DASHED_ADDRESS = re.compile(r"(?:ip-)?([0-9]{1,3})-([0-9]{1,3})-([0-9]{1,3})-([0-9]{1,3})", re.ASCII)
_HOST_LENGTH_MAX = 253


class NotPublic(ValueError):
    """The message says why the host cannot be used, in one sentence that does not quote it."""


def public_host(host: str) -> str:
    """The name in ASCII, as it was given if it was ASCII already. Raises NotPublic."""
    if not host:
        raise NotPublic("The URL must name a host.")
    if len(host) > _HOST_LENGTH_MAX:
        raise NotPublic("The host of the URL is not a valid name.")
    if _ADDRESS.fullmatch(host.rstrip(".")):
        raise NotPublic("The URL must name a host, and not an IP address.")
    if host.endswith("."):
        raise NotPublic("The name of the host must not end with a dot.")
    name = ".".join(_ascii_label(label) for label in host.split("."))
    labels = name.split(".")
    if len(name) > _HOST_LENGTH_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise NotPublic("The host of the URL is not a valid name.")
    if len(labels) == 1:
        raise NotPublic("The host must be a full public name, with its domain.")
    _refuse_inward(name.lower())
    if not _TOP_LABEL.fullmatch(labels[-1]):
        raise NotPublic("The host of the URL is not a valid name.")
    return name


def _ascii_label(label: str) -> str:
    """Follow the strict rules of IDNA 2008, so that no look-alike of a digit or a dot becomes another host."""
    if label.isascii():
        return label
    try:
        return idna.encode(unicodedata.normalize("NFC", label.lower())).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise NotPublic("The host has characters that no name of a host can have.") from None


def _refuse_inward(name: str) -> None:
    for suffix in _suffixes_of(name):
        if suffix in _INTERNAL_SUFFIXES:
            raise NotPublic(f"Names that end with .{suffix} are not public: nobody outside reaches them.")
        if suffix in _ADDRESS_SUFFIXES:
            raise NotPublic(
                f"Names under {suffix} can lead to any address, also an internal one; use the server's own."
            )
    if any(not address.is_global for address in _addresses_in(name)):
        raise NotPublic("The name of the host holds an address that is not public; use the server's own name.")


def _suffixes_of(name: str) -> Iterator[str]:
    labels = name.split(".")
    return (".".join(labels[start:]) for start in range(len(labels)))


def _addresses_in(name: str) -> Iterator[IPv4Address]:
    """Those that are written as four labels, or as one label with dashes."""
    labels = name.split(".")
    quads = [labels[start : start + 4] for start in range(len(labels) - 3)]
    quads += [list(match.groups()) for label in labels if (match := _DASHED_ADDRESS.fullmatch(label))]
    for quad in quads:
        if all(part.isdecimal() and len(part) <= 3 and int(part) <= 255 for part in quad):
            yield IPv4Address(bytes(map(int, quad)))
