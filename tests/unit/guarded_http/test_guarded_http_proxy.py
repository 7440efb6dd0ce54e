"""Out through a proxy that must be used, which is told nothing but what was checked."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.infrastructure.egress import Egress, Proxy
from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.guarded_http.hosts import Hosts
from tests.fal_stub import FalStub, reply
from tests.unit.guarded_http.stand_ins import (
    HANG_SECONDS,
    NAME,
    NOT_PUBLIC,
    PUBLIC,
    PUBLIC_IPV6,
    NameServer,
    Ways,
    fetched,
    port_of,
    reason,
    unfetched,
)


class ConnectProxy:
    """Leads every tunnel to one server."""

    def __init__(self, server: FalStub) -> None:
        self.port = port_of(server)
        self.heads: list[str] = []
        self.answer = b"HTTP/1.1 200 OK\r\n\r\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        if b" 200 " in self.answer:
            inside, outside = await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.gather(self._copy(reader, outside), self._copy(inside, writer))
        writer.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(4096):
                sink.write(data)
        except ConnectionError:
            pass
        finally:
            sink.close()


@pytest.fixture
async def proxy(stub: FalStub) -> AsyncIterator[tuple[ConnectProxy, Proxy]]:
    proxy = ConnectProxy(stub)
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        yield proxy, Proxy.parse(f"http://user:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}")
    # The farewells of TLS are still on their way through what was the tunnel.
    await asyncio.sleep(0.05)


async def test_tells_the_proxy_an_address_that_was_checked(
    stub: FalStub, proxy: tuple[ConnectProxy, Proxy], names: NameServer, certificate: Path
) -> None:
    names.answers[NAME] = itertools.repeat([PUBLIC_IPV6, PUBLIC])
    names.answers["other.example"] = itertools.repeat([PUBLIC])
    names.answers["six.example"] = itertools.repeat([PUBLIC_IPV6])
    names.answers["private.example"] = itertools.repeat([PUBLIC, "10.0.0.1"])
    stub.otherwise = reply()
    egress = Egress(certificates_file=certificate)

    async with GuardedClient.open(egress=egress, proxy=proxy[1]) as client:
        for url in ("https://private.example/", "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.1/"):
            assert await reason(client, url) == NOT_PUBLIC
        assert proxy[0].heads == []
        for _ in range(2):
            await client.post(f"https://{NAME}/hook", b"{}", {}, seconds_max=HANG_SECONDS)
        for other in ("other.example", "six.example"):
            assert await reason(client, f"https://{other}/") == "The certificate is not valid for the host."

    first, second, third = proxy[0].heads
    assert first.startswith(f"CONNECT {PUBLIC}:443 HTTP/1.1\r\n")
    assert f"Host: {PUBLIC}\r\n" in first
    assert "Proxy-Authorization: Basic " in first
    assert "User-Agent: Tollgate\r\n" in first
    assert second.startswith(f"CONNECT {PUBLIC}:443 HTTP/1.1\r\n")
    assert third.startswith(f"CONNECT [{PUBLIC_IPV6}]:443 HTTP/1.1\r\n")
    assert "example" not in "".join(proxy[0].heads)
    assert [(seen.headers["host"], seen.connection) for seen in stub.seen] == [(NAME, stub.seen[0].connection)] * 2
    assert "proxy-authorization" not in stub.seen[0].headers


async def test_fetches_through_the_proxy_by_addresses_that_were_checked(
    stub: FalStub, proxy: tuple[ConnectProxy, Proxy], names: NameServer, certificate: Path
) -> None:
    names.answers[NAME] = itertools.repeat([PUBLIC])
    names.answers["private.example"] = itertools.repeat(["10.0.0.1"])
    listed = Hosts.of(NAME, "private.example")
    stub.then(reply(302, b"", {"Location": "/there"}), reply(200, b"here"))
    stub.then(reply(302, b"", {"Location": "https://private.example/"}))

    async with GuardedClient.open(egress=Egress(certificates_file=certificate), proxy=proxy[1]) as client:
        assert await fetched(client, f"https://{NAME}/", listed) == (200, b"here")
        assert await unfetched(client, f"https://{NAME}/", listed) == NOT_PUBLIC
        assert await unfetched(client, "https://private.example/", listed) == NOT_PUBLIC

    assert [head.split("\r\n")[0] for head in proxy[0].heads] == [f"CONNECT {PUBLIC}:443 HTTP/1.1"] * 3
    assert [(seen.headers["host"], seen.connection) for seen in stub.seen] == [(NAME, 1), (NAME, 2), (NAME, 3)]
    assert "proxy-authorization" not in stub.seen[0].headers


async def test_says_little_of_a_proxy_that_does_not_help(
    proxy: tuple[ConnectProxy, Proxy], names: NameServer, plain_stub: FalStub
) -> None:
    names.answers[NAME] = itertools.repeat([PUBLIC])
    proxy[0].answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    plain_stub.then(reply())

    async with GuardedClient.open(egress=Egress(), proxy=proxy[1], allows_loopback=True) as client:
        assert await reason(client, f"https://{NAME}/") == "The host could not be reached."
        assert (await client.post(plain_stub.url, b"{}", {}, seconds_max=HANG_SECONDS)).status == 200
        # It waits for a request, not for TLS.
        said = await reason(client, f"https://localhost:{port_of(plain_stub)}/", seconds_max=0.2)
        assert said == "No answer came within 0.2 s."
    async with GuardedClient.open(egress=Egress(), proxy=Proxy(url="http://127.0.0.1:9")) as client:
        assert await reason(client, f"https://{NAME}/") == "This service found no way out."

    assert len(proxy[0].heads) == 1


async def test_hosts_of_a_list_are_fetched_through_the_proxy_of_all_that_leaves(
    stub: FalStub, proxy: tuple[ConnectProxy, Proxy], names: NameServer, ways: Ways, certificate: Path
) -> None:
    """It is told the name, which nobody here looks up."""
    stub.otherwise = reply(body=b"file")
    url, hosts = f"https://{NAME}/file", Hosts.of(NAME)
    egress = Egress(https_proxy=proxy[1], certificates_file=certificate)

    async with GuardedClient.open(egress=egress, listed_by_egress=True) as client:
        assert await fetched(client, url, hosts) == (200, b"file")
        assert await unfetched(client, "https://other.example/", hosts) == (
            "The host of the URL is not one of those that are fetched from."
        )
        assert names.asked == []
        (head,) = proxy[0].heads
        assert head.startswith(f"CONNECT {NAME}:443 ")
        assert "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in head

        # Whose URL somebody else chose goes past it, to what was checked.
        names.answers[NAME] = itertools.repeat([PUBLIC])
        ways.public_port = port_of(stub)
        await client.post(f"https://{NAME}/hook", b"{}", {}, seconds_max=HANG_SECONDS)
        assert ways.taken[-1] == PUBLIC

    async with GuardedClient.open(egress=replace(egress, no_proxy=f".{NAME}"), listed_by_egress=True) as client:
        assert await fetched(client, url, hosts) == (200, b"file")
    async with GuardedClient.open(egress=egress) as client:
        assert await fetched(client, url, hosts) == (200, b"file")
    assert [way for way in ways.taken if way != "127.0.0.1"] == [PUBLIC] * 3
    assert len(proxy[0].heads) == 1


async def test_the_proxy_that_must_be_used_comes_before_the_one_of_all_that_leaves(
    stub: FalStub, proxy: tuple[ConnectProxy, Proxy], names: NameServer, certificate: Path
) -> None:
    names.answers[NAME] = itertools.repeat([PUBLIC])
    stub.otherwise = reply(body=b"file")
    egress = Egress(https_proxy=Proxy.parse("http://127.0.0.1:9"), no_proxy="*", certificates_file=certificate)

    async with GuardedClient.open(egress=egress, proxy=proxy[1], listed_by_egress=True) as client:
        assert await fetched(client, f"https://{NAME}/file", Hosts.of(NAME)) == (200, b"file")

    assert [head.split()[1] for head in proxy[0].heads] == [f"{PUBLIC}:443"]
