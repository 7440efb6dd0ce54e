"""Where the key may go: fal's queue as configured, and nowhere else."""

import re
from urllib.parse import urlencode, urlsplit

import httpx

from app.application.ports.provider import ProviderRequest

FAL_QUEUE_ORIGIN = "https://queue.fal.run"
# fal's own client switches to this host when it cannot connect to the first one.
FAL_BACKUP_ORIGIN = "https://queue.falrun.com"

URL_LENGTH_MAX = 2048
# Nothing in here can be read as part of the authority by one parser and of the path by another.
_PATH_AND_QUERY = re.compile(r"/[A-Za-z0-9._~%/-]*(\?[A-Za-z0-9._~%=&-]*)?", re.ASCII)
_KEY_PATTERN = re.compile(r"[!-9;-~]+:[!-9;-~]+", re.ASCII)
_NAMESPACES = frozenset({"workflows", "comfy"})


def checked_key(key: str) -> str:
    """A key copied with a line break would fail on every request, or before it. Raises ValueError."""
    stripped = key.strip()
    if not _KEY_PATTERN.fullmatch(stripped):
        raise ValueError("must look like <key id>:<key secret>")
    return stripped


def checked_base_url(url: str) -> str:
    """Without a slash at the end. Raises ValueError."""
    parsed = _parsed(url, "API")
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}{parsed.path.rstrip('/')}"


class QueueUrls:
    """The URLs of one queue. Raises ValueError for a queue URL that cannot be used."""

    def __init__(self, queue_url: str) -> None:
        url = _parsed(queue_url, "queue")
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        self._base = origin + url.path.rstrip("/")
        self._allowed = {origin, FAL_BACKUP_ORIGIN} if origin == FAL_QUEUE_ORIGIN else {origin}

    def submit(self, model_id: str, webhook_url: str | None = None) -> str:
        query = "" if webhook_url is None else "?" + urlencode({"fal_webhook": webhook_url})
        return f"{self._base}/{model_id}{query}"

    def is_allowed(self, url: object) -> bool:
        """Compares text, not parsed parts: an allowed origin, then a path of harmless characters."""
        if not isinstance(url, str) or len(url) > URL_LENGTH_MAX:
            return False
        return any(url.startswith(origin) and _PATH_AND_QUERY.fullmatch(url, len(origin)) for origin in self._allowed)

    def rebuild(self, model_id: str, request_id: str) -> ProviderRequest:
        """fal drops the sub-path of a model after the submission: `owner/app/requests/{id}`."""
        segments = model_id.split("/")
        app_path = "/".join(segments[: 3 if segments[0] in _NAMESPACES else 2])
        response_url = f"{self._base}/{app_path}/requests/{request_id}"
        return ProviderRequest(
            id=request_id,
            status_url=f"{response_url}/status",
            response_url=response_url,
            cancel_url=f"{response_url}/cancel",
        )


def host_of(url: object) -> str | None:
    """For a log line; the rest of a refused URL is nobody's business."""
    try:
        host = urlsplit(url).hostname if isinstance(url, str) else None
    except ValueError:
        return None
    return host[:255] if host else None


def _parsed(given: str, what: str) -> httpx.URL:
    try:
        url = httpx.URL(given.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"the {what} URL is not a URL") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"the {what} URL must begin with http:// or https:// and name a host")
    if url.userinfo or url.query or url.fragment:
        raise ValueError(f"the {what} URL must not carry credentials, a query or a fragment")
    return url
