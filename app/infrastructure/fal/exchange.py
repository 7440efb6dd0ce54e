"""One HTTP exchange: one request, one bounded answer, and, where there is none, whether the request can have left.

What the transport below does, read from the code of httpx-aiohttp 0.2.0 and aiohttp 3.14.5 and held by tests:
- Its exception types mislead. A server that drops the connection *after* reading the request is reported as
  httpx.ConnectTimeout, as is every other ClientConnectionError of aiohttp. Only the cause tells.
- aiohttp repeats a dropped GET or PUT once, on a new connection; a POST never.
- There is no write limit, and none for the whole exchange: asyncio.timeout around it is both.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from app.infrastructure.fal.wire import Answer

# Larger bodies go out in slices: aiohttp copies and warns about a single large one.
SLICE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """`pool_seconds` is for a free connection and all connecting together, the look-up of the name included.

    `keepalive_seconds` stays below the shortest idle limit common among servers (5 s): a POST on a connection
    that the server is just closing has an unknown outcome.
    """

    connect_seconds: float = 5.0
    pool_seconds: float = 10.0
    read_seconds: float = 15.0
    submit_seconds: float = 20.0
    exchange_seconds: float = 15.0
    keepalive_seconds: float = 4.0
    connections_max: int = 100
    body_bytes_max: int = 1024 * 1024
    header_bytes_max: int = 16 * 1024


class Unanswered(Exception):
    """`never_left`: provably not one byte of the request was sent."""

    def __init__(self, reason: str, *, never_left: bool = False) -> None:
        super().__init__(reason)
        self.never_left = never_left


class Exchange:
    def __init__(self, http: httpx.AsyncClient, limits: HttpLimits) -> None:
        self._http = http
        self._limits = limits

    async def get(self, url: str) -> Answer:
        """Raises Unanswered."""
        return await self._send(self._http.build_request("GET", url), self._limits.exchange_seconds)

    async def put(self, url: str) -> Answer:
        """Raises Unanswered."""
        return await self._send(self._http.build_request("PUT", url), self._limits.exchange_seconds)

    async def post(self, url: str, body: bytes) -> Answer:
        """Raises Unanswered."""
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        content = body if len(body) <= SLICE_BYTES else _slices(body)
        request = self._http.build_request("POST", url, content=content, headers=headers)
        return await self._send(request, self._limits.submit_seconds)

    async def _send(self, request: httpx.Request, seconds: float) -> Answer:
        if self._http.is_closed:
            raise Unanswered("the connection to fal is closed", never_left=True)
        try:
            async with asyncio.timeout(seconds):
                return await self._receive(request)
        except TimeoutError as error:
            raise Unanswered(f"no answer from fal within {seconds:g} s") from error
        except Exception as error:
            # Whatever a broken or hostile answer makes the libraries raise: it is no answer.
            raise _unanswered(error) from error

    async def _receive(self, request: httpx.Request) -> Answer:
        response = await self._http.send(request, stream=True)
        try:
            body = await self._read(response)
        finally:
            await response.aclose()
        return Answer(response.status_code, response.headers, body)

    async def _read(self, response: httpx.Response) -> bytes | None:
        """Raw bytes: nothing is ever unpacked, so nothing small can become large. None: more than the limit."""
        size_bytes = 0
        chunks = []
        async for chunk in response.aiter_raw():
            size_bytes += len(chunk)
            if size_bytes > self._limits.body_bytes_max:
                return None
            chunks.append(chunk)
        return b"".join(chunks)


@asynccontextmanager
async def open_exchange(
    *, key: str, limits: HttpLimits, ssl_context: SSLContext | None, user_agent: str
) -> AsyncIterator[Exchange]:
    ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
    connector = aiohttp.TCPConnector(
        limit=limits.connections_max, keepalive_timeout=limits.keepalive_seconds, ssl=ssl_context
    )
    session = aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), max_field_size=limits.header_bytes_max
    )
    http = httpx.AsyncClient(
        transport=AiohttpTransport(client=session, verify=ssl_context),
        headers={
            "Authorization": f"Key {key}",
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        },
        timeout=httpx.Timeout(
            connect=limits.connect_seconds, pool=limits.pool_seconds, read=limits.read_seconds, write=None
        ),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        trust_env=False,
    )
    # The session is closed by the client's transport.
    async with http:
        yield Exchange(http, limits)


def _unanswered(error: Exception) -> Unanswered:
    cause = error.__cause__ if isinstance(error, httpx.HTTPError) else error
    name = type(cause or error).__name__
    if isinstance(cause, aiohttp.ConnectionTimeoutError):
        return Unanswered("no connection to fal in time", never_left=True)
    if isinstance(cause, aiohttp.ClientConnectorError):
        return Unanswered(f"fal cannot be reached ({name})", never_left=True)
    if isinstance(cause, aiohttp.SocketTimeoutError):
        return Unanswered("fal stopped answering")
    return Unanswered(f"the connection to fal broke ({name})")


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]
