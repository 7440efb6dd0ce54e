"""Requests to URLs that others choose: to public addresses only, and bounded in time and size.

Customers choose where their webhooks go. Where media are, fal says, and there the host has to be one of a list as well.

The URL is read once, by yarl, and what was read is what is checked, resolved and connected to. `sessions` tells what
holds a connection back from other addresses.

Through a proxy that must be used it is the proxy that connects, so it is told an address that we checked, and never a
name: the request's URL holds the address, and TLS and the Host header the name. The proxy of all that leaves this
machine is told names, and so it is used for nothing but the hosts of a list.

In development (`allows_loopback`) this machine may be reached, too, by plain http as well, and never through the proxy.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Hashable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from yarl import URL

from app.infrastructure.egress import Egress, Proxy
from app.infrastructure.guarded_http.addresses import is_loopback, is_public, parse_address
from app.infrastructure.guarded_http.hosts import Hosts
from app.infrastructure.guarded_http.lookups import CheckingResolver, Lookups, on_behalf_of
from app.infrastructure.guarded_http.reasons import NotReached
from app.infrastructure.guarded_http.sessions import open_session
from app.infrastructure.guarded_http.streams import Chunks, StreamedAnswer

USER_AGENT = "Tollgate"
ANSWER_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 100
REDIRECTS_MAX = 2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Labels of letters, digits, hyphens and underscores, the last one of which begins with a letter. What ends in a number
# is an address or, to the C library, another spelling of one, such as 0x7f.1.
_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` are case-insensitive. `body` is what came of it first, undecoded, and at most ANSWER_BYTES_MAX."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class _Way:
    session: aiohttp.ClientSession
    url: URL
    # What else aiohttp is to know of the request.
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Listed:
    """The way that the operator's own hosts are fetched by, where the egress has a proxy for them."""

    session: aiohttp.ClientSession
    egress: Egress

    def to(self, url: URL) -> _Way | None:
        proxy = self.egress.proxy_for(str(url)) if url.scheme == "https" else None
        return None if proxy is None else _Way(self.session, url, {"proxy_headers": _told_to(proxy)})


class GuardedClient:
    """`outside` leads to public addresses, directly or through the proxy; `local` only to this machine, if at all."""

    def __init__(
        self,
        outside: aiohttp.ClientSession,
        local: aiohttp.ClientSession | None,
        resolver: CheckingResolver,
        proxy: Proxy | None,
        listed: _Listed | None,
    ) -> None:
        self._outside = outside
        self._local = local
        self._resolver = resolver
        self._proxy = proxy
        self._listed = listed

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        egress: Egress,
        allows_loopback: bool = False,
        proxy: Proxy | None = None,
        listed_by_egress: bool = False,
        connections_max: int = CONNECTIONS_MAX,
    ) -> AsyncIterator[Self]:
        """`egress` says whom to trust, and nothing about the way: `proxy` is one that must be used.

        `listed_by_egress`: where none must be used, hosts of a list are fetched through the proxy of `egress`, if any.
        `connections_max` counts separately for this machine.
        """
        lookups = Lookups()
        resolver = CheckingResolver(lookups, _is_public_or_loopback if allows_loopback else is_public)
        tls = egress.verifying_tls()
        async with AsyncExitStack() as stack:
            outside = await stack.enter_async_context(open_session(tls, proxy or resolver, connections_max))
            local = None
            if allows_loopback:
                of_this_machine = CheckingResolver(lookups, is_loopback)
                local = await stack.enter_async_context(open_session(tls, of_this_machine, connections_max))
            listed = None
            if listed_by_egress and proxy is None and egress.https_proxy is not None:
                way = await stack.enter_async_context(open_session(tls, egress.https_proxy, connections_max))
                listed = _Listed(way, egress)
            yield cls(outside, local, resolver, proxy, listed)

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, seconds_max: float, owner: Hashable = None
    ) -> Answer:
        """Raises NotReached, also for an answer that has not come to its end within `seconds_max`.

        `owner` is whose URL it is, the account say: see LOOKUPS_PER_OWNER_MAX.
        """
        target = self._read(url)
        try:
            async with asyncio.timeout(seconds_max):
                with on_behalf_of(owner):
                    return await self._send(await self._choose(target), body, headers)
        except TimeoutError as error:
            raise NotReached(f"No answer came within {seconds_max:g} s.") from error
        except Exception as error:
            # Whatever a broken or hostile answer makes the library raise, it means that there is no answer.
            raise NotReached.because_of(error) from error

    @asynccontextmanager
    async def get(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        hosts: Hosts,
        seconds_max_to_answer: float,
        stall_seconds_max: float,
        bytes_max: int,
    ) -> AsyncIterator[StreamedAnswer]:
        """Fetch what is on one of `hosts`, and hand it over as it is read.

        Raises NotReached, from the chunks as well: see Chunks. `seconds_max_to_answer` is for all that comes before the
        body, up to REDIRECTS_MAX redirects included, each of them to one of `hosts`. The body as a whole has no time
        limit. Who leaves before its end closes the connection.

        No connection is used twice: what a host sends too much after one file can never be taken for another one.
        """
        own = {**headers, "Connection": "close"}
        response = await self._answered(self._read(url), own, hosts, seconds_max_to_answer)
        async with response:
            yield StreamedAnswer(response.status, response.headers, Chunks(response, stall_seconds_max, bytes_max))

    async def _answered(
        self, target: URL, headers: Mapping[str, str], hosts: Hosts, seconds_max: float
    ) -> aiohttp.ClientResponse:
        """Raises NotReached."""
        try:
            async with asyncio.timeout(seconds_max):
                for _ in range(1 + REDIRECTS_MAX):
                    if not hosts.permits(target):
                        raise NotReached("The host of the URL is not one of those that are fetched from.")
                    listed = None if self._listed is None else self._listed.to(target)
                    response = await self._begin("GET", listed or await self._choose(target), headers)
                    if response.status not in _REDIRECTS:
                        return response
                    response.close()
                    target = self._checked(_redirected(target, response))
        except NotReached:
            raise
        except TimeoutError as error:
            raise NotReached(f"No answer came within {seconds_max:g} s.") from error
        except Exception as error:
            raise NotReached.because_of(error) from error
        raise NotReached(f"There were more than {REDIRECTS_MAX} redirects.")

    def _read(self, text: str) -> URL:
        try:
            url = URL(text)
        except ValueError as error:
            raise NotReached("The URL is not valid.") from error
        return self._checked(url)

    def _checked(self, url: URL) -> URL:
        if url.scheme != "https" and (url.scheme != "http" or self._local is None):
            raise NotReached("The URL does not begin with https://.")
        if url.raw_user is not None or url.raw_password is not None:
            raise NotReached("The URL holds a user name or a password.")
        host = url.raw_host or ""
        if not parse_address(host) and not _NAME.fullmatch(host):
            raise NotReached("The host of the URL is neither a name nor an address.")
        return url

    async def _choose(self, url: URL) -> _Way:
        """Raises OSError."""
        if url.scheme == "http" and self._local is not None:
            return _Way(self._local, url)
        host = url.raw_host
        if self._proxy is None or host is None:
            return _Way(self._outside, url)
        found = await self._resolver.addresses(host)
        # Whether the proxy has IPv6 cannot be known from here.
        address = next((each for each in found if ":" not in each), found[0])
        if is_loopback(address) and self._local is not None:
            return _Way(self._local, url)
        arguments = {"server_hostname": host, "proxy_headers": _told_to(self._proxy)}
        return _Way(self._outside, url.with_host(address), arguments)

    async def _send(self, way: _Way, body: bytes, headers: Mapping[str, str]) -> Answer:
        # What is not read to its end is not kept: leaving the response closes the connection.
        async with await self._begin("POST", way, headers, body) as response:
            return Answer(response.status, response.headers, await _read_first(response.content))

    async def _begin(
        self, method: str, way: _Way, headers: Mapping[str, str], body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        return await way.session.request(
            method,
            way.url,
            data=body,
            headers={**headers, "User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            allow_redirects=False,
            **way.arguments,
        )


def _told_to(proxy: Proxy) -> Mapping[str, str]:
    return {"User-Agent": USER_AGENT, **proxy.headers}


async def _read_first(content: aiohttp.StreamReader) -> bytes:
    first = bytearray()
    while len(first) < ANSWER_BYTES_MAX and (chunk := await content.read(ANSWER_BYTES_MAX - len(first))):
        first += chunk
    return bytes(first)


def _redirected(url: URL, response: aiohttp.ClientResponse) -> URL:
    """Raises NotReached."""
    try:
        return url.join(URL(response.headers["Location"]))
    except (KeyError, ValueError) as error:
        raise NotReached("The redirect does not say where to.") from error


def _is_public_or_loopback(address: str) -> bool:
    return is_public(address) or is_loopback(address)
