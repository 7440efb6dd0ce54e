"""How requests leave this machine: through which proxy, and whose certificates are trusted.

aiohttp would read the proxies from the environment by itself, but then it also takes user names and passwords out of
~/.netrc, for the proxy and for fal.
"""

import base64
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

import certifi
from pydantic import BaseModel, ConfigDict, SecretStr, model_serializer


class Proxy(BaseModel):
    """Where a proxy is, and what it wants to know of us. Written out, it says no more than that it wants something."""

    model_config = ConfigDict(frozen=True)

    url: str
    user: str | None = None
    password: SecretStr | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, whose message does not quote the text: it may hold a password."""
        stripped = text.strip()
        try:
            # curl and others take a proxy without a scheme, too.
            parts = urlsplit(stripped if "://" in stripped else f"http://{stripped}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("must be the URL of a proxy, such as http://proxy:3128") from None
        if parts.scheme != "http":
            raise ValueError("must begin with http://: neither SOCKS nor a proxy that itself speaks TLS can be used")
        if not host or not stripped.isprintable():
            raise ValueError("must be the URL of a proxy, such as http://proxy:3128")
        shown = f"[{host}]" if ":" in host else host
        return cls(
            url=f"http://{shown}:{port or 80}",
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else SecretStr(unquote(parts.password)),
        )

    @property
    def headers(self) -> Mapping[str, str]:
        """What the proxy wants to know of us, and nobody behind it gets."""
        if self.user is None and self.password is None:
            return {}
        password = "" if self.password is None else self.password.get_secret_value()
        credentials = base64.b64encode(f"{self.user or ''}:{password}".encode()).decode("ascii")
        return {"Proxy-Authorization": f"Basic {credentials}"}

    @model_serializer
    def shown(self) -> str:
        return self.url if self.user is None and self.password is None else f"{self.url} (credentials hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    https_proxy: Proxy | None = None
    http_proxy: Proxy | None = None
    no_proxy: str = ""
    certificates_file: Path | None = None
    certificates_directory: Path | None = None

    @property
    def has_proxy(self) -> bool:
        return self.https_proxy is not None or self.http_proxy is not None

    def proxy_for(self, url: str) -> Proxy | None:
        """None for this machine: the simulator is not to be looked for behind a proxy."""
        parts = urlsplit(url)
        proxy = self.https_proxy if parts.scheme == "https" else self.http_proxy
        host = parts.hostname or ""
        if proxy is None or is_this_machine(host):
            return None
        excepted = [entry.strip().lower() for entry in self.no_proxy.split(",") if entry.strip()]
        return None if any(_names(entry, host, parts.port) for entry in excepted) else proxy

    def verifying_tls(self) -> ssl.SSLContext:
        """Trust whom the operator names, as OpenSSL does; where nobody is named, the authorities of certifi's list.

        Raises OSError, ssl.SSLError among them, for what holds no certificate.
        """
        if self.certificates_file is None and self.certificates_directory is None:
            return ssl.create_default_context(cafile=certifi.where())
        return ssl.create_default_context(cafile=self.certificates_file, capath=self.certificates_directory)


def _names(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY names the host: `*`, a network, or a domain with or without a dot or a port."""
    if entry == "*":
        return True
    with suppress(ValueError):
        return ip_address(host) in ip_network(entry, strict=False)
    name, _, entry_port = entry.partition(":")
    name = name.removeprefix("*").removeprefix(".")
    is_named = host == name or host.endswith(f".{name}")
    return bool(name) and is_named and entry_port in ("", str(port))


def is_this_machine(host: str) -> bool:
    name = host.rstrip(".")
    try:
        address = ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)
