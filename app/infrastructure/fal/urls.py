"""Decides where the key may go: to fal's queue and API as configured; and where files may: to fal's media hosts."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeGuard
from urllib.parse import urlencode, urlsplit

import idna

from app.application.ports.provider import ProviderRequest
from app.infrastructure.egress import is_this_machine

FAL_QUEUE_ORIGIN = "https://queue.fal.run"
# fal's own client switches to this host when it cannot connect to the first one.
FAL_BACKUP_ORIGIN = "https://queue.falrun.com"

URL_LENGTH_MAX = 2048
PORT_MAX = 65535
# No character of these can be read as part of the authority by one parser and of the path by another.
_PATH_AND_QUERY = re.compile(r"/[A-Za-z0-9._~%/-]*(\?[A-Za-z0-9._~%=&-]*)?", re.ASCII)
_KEY_PATTERN = re.compile(r"[!-9;-~]+:[!-9;-~]+", re.ASCII)
_NAMESPACES = frozenset({"workflows", "comfy"})

_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:]*)(:(?P<port>[0-9]*))?", re.ASCII)
_IPV4_FORM = re.compile(r"[0-9]+(\.[0-9]+){3}", re.ASCII)
# Containers have names with an underscore.
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?", re.ASCII)
# Segments that mean what they say: not empty, not . or .., and no escape that hides one of these, or a slash.
_BASE_PATH = re.compile(
    r"(/(?!\.{1,2}(/|$))([A-Za-z0-9._~!$&'()*+,=:@-]|%(?!2[Ee]|2[Ff]|5[Cc]|25)[0-9A-Fa-f]{2})+)*", re.ASCII
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The hosts of fal's files: v3.fal.media takes them, and v3b.fal.media, among others, has them.
_MEDIA_ORIGIN = re.compile(r"https://([a-z0-9-]{1,63}\.){1,3}fal\.media", re.ASCII)


def checked_key(key: str) -> str:
    """Strip the key, because one copied with a line break would fail with every request. Raises ValueError."""
    stripped = key.strip()
    if not _KEY_PATTERN.fullmatch(stripped):
        raise ValueError("must look like <key id>:<key secret>")
    return stripped


def checked_base_url(url: str, what: str = "API ") -> str:
    """Return the URL without a slash at its end. `what` names it in errors. Raises ValueError."""
    base = _parsed(url, what)
    return base.origin + base.path


class QueueUrls:
    """Forms and checks the URLs of one queue. Raises ValueError if the queue's own URL cannot be used."""

    def __init__(self, queue_url: str) -> None:
        url = _parsed(queue_url, "queue ")
        self._base = url.origin + url.path
        self._allowed = {url.origin, FAL_BACKUP_ORIGIN} if url.origin == FAL_QUEUE_ORIGIN else {url.origin}
        if not self.is_allowed(f"{self._base}/status"):
            # Every look would be refused, and every paid job given up.
            raise ValueError("the queue URL must have nothing but letters, digits, . _ ~ % - and / in its path")

    def submit(self, model_id: str, webhook_url: str | None = None) -> str:
        query = "" if webhook_url is None else "?" + urlencode({"fal_webhook": webhook_url})
        return f"{self._base}/{model_id}{query}"

    def is_allowed(self, url: object) -> bool:
        """Compare text, not parsed parts: an allowed origin has to come first, then a path of harmless characters."""
        if not isinstance(url, str) or len(url) > URL_LENGTH_MAX:
            return False
        return any(url.startswith(origin) and _PATH_AND_QUERY.fullmatch(url, len(origin)) for origin in self._allowed)

    def rebuild(self, model_id: str, request_id: str) -> ProviderRequest:
        """Form the URLs as fal does, which drops the sub-path of a model: `owner/app/requests/{id}`."""
        segments = model_id.split("/")
        app_path = "/".join(segments[: 3 if segments[0] in _NAMESPACES else 2])
        response_url = f"{self._base}/{app_path}/requests/{request_id}"
        return ProviderRequest(
            id=request_id,
            status_url=f"{response_url}/status",
            response_url=response_url,
            cancel_url=f"{response_url}/cancel",
        )


class StorageUrls:
    """Forms and checks the URLs of fal's storage. Raises ValueError if that of fal's API cannot be used."""

    def __init__(self, rest_url: str) -> None:
        url = _parsed(rest_url, "REST ")
        self.token = f"{url.origin}{url.path}/storage/auth/token?storage_type=fal-cdn-v3"
        # The simulator has everything under one address.
        self._local_origin = url.origin if is_this_machine(urlsplit(url.origin).hostname or "") else None

    def upload(self, base_url: object) -> str | None:
        """Where to upload to, with the token that came with `base_url`. None: the token must not go there."""
        url = f"{base_url.rstrip('/')}/files/upload" if isinstance(base_url, str) else None
        return url if self.is_of_files(url) else None

    def is_of_files(self, url: object) -> TypeGuard[str]:
        """Compare text, as QueueUrls does."""
        if not isinstance(url, str) or len(url) > URL_LENGTH_MAX:
            return False
        if self._local_origin is not None and url.startswith(self._local_origin):
            return bool(_PATH_AND_QUERY.fullmatch(url, len(self._local_origin)))
        origin = _MEDIA_ORIGIN.match(url)
        return origin is not None and bool(_PATH_AND_QUERY.fullmatch(url, origin.end()))


def host_of(url: object) -> str | None:
    """Return the host for a log line; the rest of a refused URL is nobody's business."""
    try:
        host = urlsplit(url).hostname if isinstance(url, str) else None
    except ValueError:
        return None
    return host[:255] if host else None


@dataclass(frozen=True, slots=True)
class _BaseUrl:
    origin: str
    path: str


def _parsed(given: str, what: str) -> _BaseUrl:
    url = given.strip()
    try:
        # urlsplit drops line breaks and tabs without a word.
        if any(character.isascii() and not character.isprintable() for character in url):
            raise ValueError("there is a control character")
        parts = urlsplit(url)
        userinfo, _, host_and_port = parts.netloc.rpartition("@")
        authority = _authority(parts.scheme, host_and_port)
    except ValueError as error:
        raise ValueError(f"the {what}URL is not a URL") from error
    if parts.scheme not in _DEFAULT_PORTS or not authority:
        raise ValueError(f"the {what}URL must begin with http:// or https:// and name a host")
    if userinfo or parts.query or parts.fragment:
        raise ValueError(f"the {what}URL must not carry credentials, a query or a fragment")
    path = parts.path.rstrip("/")
    if not _BASE_PATH.fullmatch(path):
        raise ValueError(f"the {what}URL must have a plain path, without . or .. or escaped slashes")
    return _BaseUrl(f"{parts.scheme}://{authority}", path)


def _authority(scheme: str, host_and_port: str) -> str:
    """Return the host in ASCII, with the port unless it is the scheme's own; empty if there is no host."""
    match = _HOST_AND_PORT.fullmatch(host_and_port)
    if match is None:
        raise ValueError("there is no host and port")
    host = _ascii_host(match["host"])
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port <= PORT_MAX:
        raise ValueError("there is no such port")
    return host if not host or port in (None, _DEFAULT_PORTS.get(scheme)) else f"{host}:{port}"


def _ascii_host(given: str) -> str:
    """Names in other alphabets follow the strict rules of IDNA 2008, so that no look-alike becomes another host."""
    host = given.lower()
    if not host.isascii() or host.startswith("xn--"):
        return idna.encode(host).decode("ascii")
    if host.startswith("["):
        IPv6Address(host[1:-1])
    elif _IPV4_FORM.fullmatch(host):
        IPv4Address(host)
    elif host and not _HOST_NAME.fullmatch(host):
        raise ValueError("there is a character that no host has in its name")
    return host
