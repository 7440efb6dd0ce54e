"""aiohttp's sessions, which connect to permitted addresses only and keep a bounded number of connections.

What holds a connection back from other addresses, read from the code of aiohttp 3.14.5 and held by tests:
- The connector asks our resolver once for each connection, as long as it keeps no addresses of its own
  (`use_dns_cache`), and connects to nothing but what that answered. A name with one address that is not permitted is
  refused whole. Of several addresses the connection goes to the one that answers first.
- It does not ask the resolver about what is an address itself. But every socket comes from our `socket_factory`, which
  is told the very address that is connected to next: nothing goes past it.
- It reuses a connection only for the same host, port, scheme, proxy and name in the certificate.
- It limits the connections in use, but not those that it keeps: see _request_class.
- What a host sends on a connection that is kept, unasked, is taken for the answer to the next request on it. A request
  that says `Connection: close` is answered on a connection that nothing else will use.
- It takes a proxy of the session for every request that names none.
"""

import socket
import ssl
from contextlib import AbstractAsyncContextManager
from weakref import WeakSet

import aiohttp
from aiohttp.connector import AddrInfoType, Connection

from app.infrastructure.egress import Proxy
from app.infrastructure.guarded_http.lookups import CheckingResolver, NotPermitted, Permission

# Below the shortest idle limit common among servers (5 s): a request on a connection that is just being closed fails.
KEEPALIVE_SECONDS = 4.0


class Sockets:
    """Makes the sockets of one connector, for permitted addresses only, and knows how many are open."""

    def __init__(self, permits: Permission) -> None:
        self._permits = permits
        self._made: WeakSet[socket.socket] = WeakSet()

    def __call__(self, destination: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = destination
        if not self._permits(address[0]):
            raise NotPermitted
        made = socket.socket(family=family, type=kind, proto=protocol)
        self._made.add(made)
        return made

    @property
    def open_count(self) -> int:
        return sum(made.fileno() >= 0 for made in self._made)


def open_session(
    tls: ssl.SSLContext, way: CheckingResolver | Proxy, connections_max: int
) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    """Directly to what the resolver permits, or through a proxy to wherever a request says.

    Up to `connections_max` connections are in use at a time, and as many more are kept for later requests.
    """
    resolver, proxy = (None, way.url) if isinstance(way, Proxy) else (way, None)
    # The proxy is the operator's, wherever it is.
    sockets = Sockets(_permit if resolver is None else resolver.permits)
    connector = aiohttp.TCPConnector(
        ssl=tls,
        resolver=resolver,
        use_dns_cache=resolver is None,
        socket_factory=sockets,
        limit=connections_max,
        keepalive_timeout=KEEPALIVE_SECONDS,
    )
    return aiohttp.ClientSession(
        connector=connector,
        request_class=_request_class(sockets, connections_max),
        proxy=proxy,
        # The one limit is that of the whole request, which is around all of this.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def _request_class(sockets: Sockets, connections_max: int) -> type[aiohttp.ClientRequest]:
    class Request(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            """Is called once the connection is there."""
            if self.server_hostname is not None:
                # Until now the URL's own host, which is an address, because CONNECT took its Host header from here.
                named = self.url.with_host(self.server_hostname)
                self.headers["Host"] = named.host_port_subcomponent or ""
            if sockets.open_count > connections_max:
                self.headers["Connection"] = "close"
            if self.headers.get("Connection") == "close" and conn.protocol is not None:
                conn.protocol.force_close()
            return await super().send(conn)

    return Request


def _permit(_: str) -> bool:
    return True
