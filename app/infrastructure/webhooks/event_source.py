"""The events of a service, read from its `GET /events/stream`, wherever it is."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from app.infrastructure.egress import Egress
from app.infrastructure.webhooks.reasons import why_not_connected

CONNECT_SECONDS = 10.0
# A service says something at least every 15 s: whoever has heard nothing for so long is not connected any more.
SILENCE_SECONDS_MAX = 45.0
# Far above any event: a server that goes on without a line's end is none of ours.
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
PROBLEM_BYTES_MAX = 64 * 1024
# What may be answered otherwise a moment later, beside everything from 500 on.
_PASSING = (408, 425, 429)
# What every event has, as a text.
_NAMES = ("id", "type", "created_at")


class StreamLost(Exception):
    """There is no connection, or no more: to be tried again."""


class StreamRefused(Exception):
    """Trying again would not help."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Message:
    place: str
    """From where a reader goes on who has read this."""
    event: Mapping[str, Any] | None
    """None: the place alone."""


class EventSource:
    def __init__(self, session: aiohttp.ClientSession, egress: Egress, server: str, key: str) -> None:
        """`server` is the URL below which the API is."""
        self._session = session
        self._egress = egress
        self._url = f"{server.rstrip('/')}/events/stream"
        self._key = key

    async def messages(self, *, place: str | None, after: int | None, types: Sequence[str]) -> AsyncGenerator[Message]:
        """From `place`, else from `after`, else from now on. It raises StreamLost at its end, StreamRefused."""
        headers = {"X-API-Key": self._key, "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if place is not None:
            headers["Last-Event-ID"] = place
        query = [("type", name) for name in types] + ([] if after is None else [("after", str(after))])
        try:
            async with self._asking(query, headers) as response:
                await _check(response)
                async for message in _messages(response.content):
                    yield message
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StreamLost(_reason(error)) from error
        raise StreamLost("the stream ended")

    @asynccontextmanager
    async def _asking(
        self, query: Sequence[tuple[str, str]], headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        proxy = self._egress.proxy_for(self._url)
        way_in = {} if proxy is None else dict(proxy.headers)
        is_tunnel = self._url.startswith("https:")
        async with self._session.get(
            self._url,
            params=query,
            # With each request, not with the session: aiohttp would send the key to the proxy, too.
            headers=headers if is_tunnel else {**headers, **way_in},
            proxy=None if proxy is None else proxy.url,
            proxy_headers=way_in if is_tunnel else None,
            # The key goes where it was meant for, and nowhere else.
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS_MAX),
        ) as response:
            yield response


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raises StreamRefused, StreamLost."""
    status = response.status
    if status == 200 and response.content_type == "text/event-stream":
        return
    if status >= 500 or status in _PASSING:
        raise StreamLost(f"the server answers {status}: {(await _problem(response))[1]}")
    if status in (200, 204) or 300 <= status < 400:
        raise StreamRefused(status, "", f"the server answers {status}, and not with events")
    raise StreamRefused(status, *(await _problem(response)))


async def _problem(response: aiohttp.ClientResponse) -> tuple[str, str]:
    """The code and the detail of a problem, with the fields that are wrong."""
    try:
        problem = json.loads(await response.content.read(PROBLEM_BYTES_MAX))
        wrong = [str(error["detail"]) for error in problem.get("errors", ())]
        return str(problem["code"]), " ".join([str(problem["detail"]), *wrong])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", response.reason or "no reason given"


async def _messages(content: aiohttp.StreamReader) -> AsyncIterator[Message]:
    """Server-sent events as the service writes them. A message without its end is none: it is told again."""
    received = b""
    fields: dict[bytes, bytes] = {}
    async for chunk in content.iter_any():
        *lines, received = (received + chunk).split(b"\n")
        if len(received) > MESSAGE_BYTES_MAX:
            raise _no_events()
        for line in lines:
            name, _, value = line.removesuffix(b"\r").partition(b":")
            if name:
                fields[name] = value.removeprefix(b" ")
                continue
            if not value and fields.get(b"id"):
                yield _message(fields)
            if not value:
                fields = {}


def _message(fields: Mapping[bytes, bytes]) -> Message:
    """Raises StreamRefused."""
    try:
        place = str(int(fields[b"id"]))
        event = json.loads(fields[b"data"]) if b"data" in fields else None
    except ValueError:
        raise _no_events() from None
    if event is None:
        return Message(place, None)
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in _NAMES):
        raise _no_events()
    return Message(place, event)


def _no_events() -> StreamRefused:
    return StreamRefused(200, "", "the server tells something, but not events as this service has them")


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "no connection in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return f"the server is not trusted: {error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the server cannot be reached: {why_not_connected(error)}"
    if isinstance(error, TimeoutError):
        return "the server has stopped answering"
    return f"the connection broke ({type(error).__name__})"
