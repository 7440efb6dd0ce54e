"""However an address that is not public is spelled, nothing connects to it."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any

import psutil
import pytest

from app.infrastructure.egress import Egress
from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.guarded_http.reasons import NotReached
from tests.unit.guarded_http.stand_ins import NameServer

# Long enough that only a refusal ends an attempt, however busy the machine is.
SECONDS_MAX = 20
REFUSALS = {
    "The host leads to an address that is not public.",
    "The host of the URL is neither a name nor an address.",
    "The URL holds a user name or a password.",
    "The URL does not begin with https://.",
    "The URL is not valid.",
}
IPV4_TEXT = """
127.0.0.1 127.0.0.2 127.255.255.254 0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 168.63.129.16 169.254.169.254
172.16.0.1 192.0.0.192 192.0.2.2 192.88.99.1 192.168.0.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255
"""
IPV6_TEXT = """
:: ::1 0:0:0:0:0:0:0:1 0000:0000:0000:0000:0000:0000:0000:0001 ::0001 ::1%25lo ::1%lo ::1%251 100::1 2001::1 2001:10::1
2001:20::1 2001:db8::1 2002::1 3fff::1 5f00::1 FC00::1 fd00::2 fd00:ec2::254 FE80::1 fe80::1%25eth0 fe80::1%eth0
fec0::1 ff02::1 ff0e::1 64:ff9b:1::1 2606:4700:4700::1111%25eth0
"""
NAMES_TEXT = """
localhost LOCALHOST LocalHost localhost. a.localhost a.b.LOCALHOST ⓛⓞⓒⓐⓛⓗⓞⓢⓣ \N{FULLWIDTH LATIN SMALL LETTER L}ocalhost
loc%61lhost localhost%2e localhost%00.example.com localhost%23.example.com localhost.localdomain
"""
IPV4, IPV6, NAMES = IPV4_TEXT.split(), IPV6_TEXT.split(), NAMES_TEXT.split()
OTHER_URLS = [
    "http://127.0.0.1:{port}/",
    "http://1.1.1.1:{port}/",
    "HTTP://localhost:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "https:127.0.0.1:{port}",
    "https:/127.0.0.1:{port}/",
    "https:///127.0.0.1:{port}/",
    "https:\\\\127.0.0.1:{port}\\",
    "https://127.0.0.1\\@1.1.1.1:{port}/",
    "https://1.1.1.1\\@127.0.0.1:{port}/",
    "https://1.1.1.1@127.0.0.1:{port}/",
    "https://1.1.1.1:443@127.0.0.1:{port}/",
    "https://a@b@127.0.0.1:{port}/",
    "https://:@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}#@1.1.1.1/",
    "https://127.0.0.1:{port}?@1.1.1.1/",
    "https://127.0.0.1:{port};1.1.1.1/",
    "https://127.0.0.1 :{port}/",
    "https://127.0.0.1\t:{port}/",
    "https://127.0.\n0.1:{port}/",
    "\x00https://127.0.0.1:{port}/",
    " https://127.0.0.1:{port}/",
    "https://[127.0.0.1]:{port}/",
    "https://[::1:{port}/",
    "https://[::1]1.1.1.1:{port}/",
    "https://[v1.127.0.0.1]:{port}/",
    "https://127.0.0.1:{port}:{port}/",
    "https://127.0.0.1:+{port}/",
    "https://١٢٧.0.0.1:{port}/",
    "https://1.1.1.1,127.0.0.1:{port}/",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_",
    "unix://127.0.0.1:{port}/",
    "ws://127.0.0.1:{port}/",
    "wss://127.0.0.1:{port}/",
    "javascript://127.0.0.1:{port}/",
    "https://",
    "",
]


def spellings(text: str) -> Iterable[str]:
    """The host of a URL, as people, C libraries and old browsers write an IPv4 address, or hide it in an IPv6 one."""
    address = IPv4Address(text)
    number, (a, b, c, d) = int(address), address.packed
    high, low = f"{a:02x}{b:02x}", f"{c:02x}{d:02x}"
    yield from (text, f"{text}.", f"{text}..", f".{text}", f"{number}", f"{number}.", f"0{number:o}", f"0x{number:x}")
    yield from (f"0X{number:X}", f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}", f"{number + 2**32}")
    yield from (f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"{a:03}.{b:03}.{c:03}.{d:03}")
    yield from (f"0{a:o}.{b}.0x{c:x}.{d}", f"{a + 256}.{b}.{c}.{d}", text.replace(".", "%2e"), f"%3{text[0]}{text[1:]}")
    yield from (text.replace(".", dot) for dot in "\u3002\uff0e\uff61")
    yield from ("".join(chr(ord(each) + 0xFEE0) if each.isdigit() else each for each in text),)
    yield from ("".join(chr(ord(each) + 0x1D79E) if each.isdigit() else each for each in text),)
    yield from (f"1.1.1.1@{text}", f"a:b@{text}", f"[{text}]", f"{text}%00.example.com")
    for prefix in ("", "0:0:0:0:0:", "::", "::ffff:", "::FFFF:0:", "64:ff9b::", "64:ff9b:1::", "fe80::5efe:", "fd00::"):
        yield from (f"[{prefix}{text}]", f"[{prefix}{high}:{low}]")
    yield from (f"[2002:{high}:{low}::1]", f"[2001:0:{high}:{low}::1]", f"[2001::{high}:{low}]")


class Canary:
    """Listens on every address of this machine, and counts who comes, and who sets out for anywhere."""

    def __init__(self) -> None:
        self.port = 0
        self.accepted = 0
        self.attempts: list[Any] = []

    def accept(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self.accept, "0.0.0.0", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            async with await asyncio.start_server(self.accept, "::", self.port):
                yield


@pytest.fixture
async def canary(monkeypatch: pytest.MonkeyPatch, names: NameServer) -> AsyncIterator[Canary]:
    canary, loop = Canary(), asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        # pytest-socket would stop most of them, which is not what is under test.
        canary.attempts.append(address)
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    async with canary.listening():
        yield canary


async def reached(client: GuardedClient, urls: Iterable[str]) -> dict[str, str]:
    """What came of those URLs that were not refused."""
    others = {}
    for url in urls:
        try:
            others[url] = str(await client.post(url, b"{}", {}, seconds_max=SECONDS_MAX))
        except NotReached as error:
            if error.reason not in REFUSALS:
                others[url] = error.reason
    return others


def own_addresses() -> list[str]:
    return [each.address for each in itertools.chain(*psutil.net_if_addrs().values()) if each.family == socket.AF_INET]


def test_there_are_hundreds_of_spellings() -> None:
    assert len({spelling for address in IPV4 for spelling in spellings(address)}) >= 600


async def test_no_spelling_of_an_address_reaches_anything(canary: Canary) -> None:
    hosts = [host for address in {*IPV4, *own_addresses()} for host in spellings(address)]
    hosts += [f"[{address}]" for address in IPV6]
    urls = [f"https://{host}:{canary.port}/hook" for host in [*hosts, *NAMES]]
    urls += [url.replace("{port}", str(canary.port)) for url in OTHER_URLS]
    assert len(set(urls)) >= 600

    async with GuardedClient.open(egress=Egress()) as client:
        assert await reached(client, urls) == {}

    assert canary.attempts == []
    assert canary.accepted == 0


async def test_no_name_of_an_address_reaches_anything(canary: Canary, names: NameServer) -> None:
    plain = [address for address in IPV6 if "%" not in address]
    for number, address in enumerate([*IPV4, *own_addresses(), *plain, "::ffff:127.0.0.1", "::ffff:1.1.1.1"]):
        names.answers[f"name-{number}.example"] = itertools.repeat([address])
    urls = [f"https://{name}:{canary.port}/hook" for name in names.answers]

    async with GuardedClient.open(egress=Egress()) as client:
        assert await reached(client, urls) == {}

    assert canary.attempts == []
    assert canary.accepted == 0
    assert len(names.asked) == len(urls)


async def test_development_reaches_this_machine_and_nothing_else(canary: Canary) -> None:
    others = [host for address in IPV4 if not address.startswith("127.") for host in spellings(address)]
    urls = [f"{scheme}://{host}:{canary.port}/" for scheme in ("http", "https") for host in others]
    # What is public is reached by https alone.
    urls += [f"http://{host}:{canary.port}/" for host in spellings("1.1.1.1")]

    async with GuardedClient.open(egress=Egress(), allows_loopback=True) as client:
        assert await reached(client, urls) == {}
        assert canary.attempts == []
        assert canary.accepted == 0

        for host in ("127.0.0.1", "[::1]", "localhost"):
            assert await reached(client, [f"http://{host}:{canary.port}/"]) != {}

    assert canary.accepted == 3
