"""One HTTP exchange: one request and one bounded answer or, without an answer, whether the request can have left.

This is what aiohttp does, read from the code of 3.14.5 and held by tests:
- ConnectionTimeoutError and ClientConnectorError, TLS included, come from making a connection: before the head of
  the request is written. Every other error may come after it, ServerDisconnectedError too.
- Its time limits raise what is both a ClientError and a TimeoutError, asyncio.timeout only the latter.
- It repeats a dropped GET or PUT once, on another connection; a POST never.
- It limits neither the time of writing nor that of the whole exchange: asyncio.timeout around it does both.
- Behind a proxy it connects to the proxy, asks it for a tunnel (CONNECT), and makes the TLS connection through it, all
  before the head of the request is written; but what breaks in between raises the same errors as later. So there we
  note when a connection is there.
- Leaving the response gives a connection back, and closes it if the answer was not received to its end, or the body
  not sent to its end, of which no more is sent then.
- URLs are normalised on their way: `%3A` of a query goes out as `:`, which means the same.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

from app.application.execution.limits import POST_SECONDS_MAX, PROVIDER_CONNECTIONS_MAX
from app.infrastructure.egress import Egress, Proxy
from app.infrastructure.fal.wire import Answer

USER_AGENT = "tollgate"
# A larger body goes out in slices, because aiohttp copies a single large one and warns about it.
SLICE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How long and how large the parts of an exchange may be.

    `pool_seconds` limits the wait for a free connection and all connecting together, the look-up of the name included.
    `keepalive_seconds` stays below the shortest idle limit common among servers (5 s): a POST on a connection that the
    server is just closing has an unknown outcome.
    """

    connect_seconds: float = 5.0
    pool_seconds: float = 10.0
    read_seconds: float = 15.0
    submit_seconds: float = POST_SECONDS_MAX
    exchange_seconds: float = 15.0
    keepalive_seconds: float = 4.0
    connections_max: int = PROVIDER_CONNECTIONS_MAX
    body_bytes_max: int = 1024 * 1024
    header_bytes_max: int = 16 * 1024


class Unanswered(Exception):
    """No usable answer came. `never_left`: provably not one byte of the request, or of its repetition, was sent."""

    def __init__(self, reason: str, *, never_left: bool = False) -> None:
        super().__init__(reason)
        self.never_left = never_left


class _Way:
    """Through which proxy a request leaves, and whether it ever had a connection to go out on."""

    def __init__(self, proxy: Proxy | None) -> None:
        self.proxy = proxy
        self.is_open = False


class Exchange:
    def __init__(
        self, session: aiohttp.ClientSession, limits: HttpLimits, egress: Egress, headers: Mapping[str, str]
    ) -> None:
        self._session = session
        self._limits = limits
        self._egress = egress
        self._headers = headers

    async def get(self, url: str) -> Answer:
        """Raises Unanswered."""
        return await self._send("GET", url, self._limits.exchange_seconds)

    async def put(self, url: str) -> Answer:
        """Raises Unanswered."""
        return await self._send("PUT", url, self._limits.exchange_seconds)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises Unanswered."""
        content, data = _content(body)
        return await self._send("POST", url, self._limits.submit_seconds, data, {**content, **headers})

    async def upload(
        self, url: str, body: AsyncIterable[bytes], headers: Mapping[str, str], *, size_bytes: int, seconds: float
    ) -> Answer:
        """POST a body that is read no faster than it leaves. `seconds` counts what it takes to come by the body, too.

        Raises Unanswered, also for whatever the body raises.
        """
        return await self._send("POST", url, seconds, body, {**headers, "Content-Length": str(size_bytes)})

    async def _send(
        self,
        method: str,
        url: str,
        seconds: float,
        data: bytes | AsyncIterable[bytes] | None = None,
        own: Mapping[str, str] | None = None,
    ) -> Answer:
        if self._session.closed:
            raise Unanswered("the connection to fal is closed", never_left=True)
        way = _Way(self._egress.proxy_for(url))
        try:
            async with asyncio.timeout(seconds):
                return await self._receive(method, url, data, own or {}, way)
        except Exception as error:
            if way.proxy is not None and not way.is_open:
                raise _no_way(error) from error
            # Whatever a broken or hostile answer makes the library raise, it means that there is no answer.
            raise _unanswered(error, seconds) from error

    async def _receive(
        self, method: str, url: str, data: bytes | AsyncIterable[bytes] | None, own: Mapping[str, str], way: _Way
    ) -> Answer:
        proxy = way.proxy
        way_in = {} if proxy is None else proxy.headers
        is_tunnel = url.startswith("https:")
        async with self._session.request(
            method,
            url,
            headers={**self._headers, **own, **({} if is_tunnel else way_in)},
            data=data,
            allow_redirects=False,
            proxy=None if proxy is None else proxy.url,
            proxy_headers=way_in if is_tunnel else None,
            trace_request_ctx=way,
        ) as response:
            return Answer(response.status, response.headers, await self._read(response.content))

    async def _read(self, content: aiohttp.StreamReader) -> bytes | None:
        """Return the bytes as they came, or None if they are more than the limit.

        Nothing is ever unpacked, so that nothing small can become large.
        """
        size_bytes = 0
        chunks = []
        async for chunk in content.iter_any():
            size_bytes += len(chunk)
            if size_bytes > self._limits.body_bytes_max:
                return None
            chunks.append(chunk)
        return b"".join(chunks)


@asynccontextmanager
async def open_exchange(
    *,
    limits: HttpLimits,
    key: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    user_agent: str = USER_AGENT,
    egress: Egress | None = None,
) -> AsyncIterator[Exchange]:
    """Open connections for one host: `key` goes out with every request. None: the host needs no key, and gets none.

    `ssl_context` replaces that of `egress` in tests.
    """
    egress = egress or Egress()
    connector = aiohttp.TCPConnector(
        limit=limits.connections_max,
        keepalive_timeout=limits.keepalive_seconds,
        ssl=ssl_context or egress.verifying_tls(),
    )
    headers = {
        "Connection": "keep-alive",
        **({} if key is None else {"Authorization": f"Key {key}"}),
        "User-Agent": user_agent,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }
    # Not the session's headers: aiohttp sends those with CONNECT, too, and the proxy would get the key.
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(
            total=None, connect=limits.pool_seconds, sock_connect=limits.connect_seconds, sock_read=limits.read_seconds
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_field_size=limits.header_bytes_max,
        trust_env=False,
        trace_configs=_traces() if egress.has_proxy else None,
    ) as session:
        yield Exchange(session, limits, egress, headers)


def _traces() -> list[aiohttp.TraceConfig]:
    async def note(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.is_open = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(note)
    trace.on_connection_reuseconn.append(note)
    return [trace]


def _no_way(error: Exception) -> Unanswered:
    """The proxy did not let us through: not one byte of the request was written."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        reason = "asks for credentials" if error.status == 407 else f"refused the connection ({error.status})"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        reason = "cannot be reached"
    elif isinstance(error, aiohttp.ClientSSLError):
        reason = f"leads to a server that is not trusted ({type(error).__name__})"
    elif isinstance(error, TimeoutError):
        reason = "does not answer"
    else:
        reason = f"broke the connection ({type(error).__name__})"
    return Unanswered(f"the proxy on the way to fal {reason}", never_left=True)


def _unanswered(error: Exception, seconds: float) -> Unanswered:
    name = type(error).__name__
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unanswered("no connection to fal in time", never_left=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unanswered(f"fal cannot be reached ({name})", never_left=True)
    if isinstance(error, aiohttp.SocketTimeoutError):
        return Unanswered("fal stopped answering")
    if isinstance(error, TimeoutError):
        return Unanswered(f"no answer from fal within {seconds:g} s")
    return Unanswered(f"the connection to fal broke ({name})")


def _content(body: bytes) -> tuple[Mapping[str, str], bytes | AsyncIterator[bytes]]:
    """Name the length of the body, because aiohttp would send slices of unknown length chunked."""
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return headers, body if len(body) <= SLICE_BYTES else _slices(body)


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]
