"""Names and ways that lead where a test wants, below all that is under test, and what the client says of them."""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.guarded_http.hosts import Hosts
from app.infrastructure.guarded_http.reasons import NotReached
from app.infrastructure.guarded_http.streams import StreamedAnswer
from tests.fal_stub import FalStub

# Only what hangs comes to it, however busy the machine is.
HANG_SECONDS = 20
NAME = "hook.example"
PUBLIC, OTHER_PUBLIC, PUBLIC_IPV6 = "93.184.216.34", "1.1.1.1", "2606:4700:4700::1111"
NOT_PUBLIC = "The host leads to an address that is not public."
REAL = socket.getaddrinfo


class NameServer:
    """Answers for the names that a test gives it, and leaves spellings of addresses to the C library."""

    def __init__(self) -> None:
        self.answers: dict[str, Iterator[Sequence[str]]] = {}
        self.asked: list[str] = []
        self.hanging = threading.Event()

    def getaddrinfo(self, host: str, port: int | None, **hints: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("hanging"):
            self.hanging.wait(30)
        if host in self.answers:
            return [found for address in next(self.answers[host]) for found in REAL(address, port, **hints)]
        if host.rstrip(".").endswith(("localhost", "localdomain")):
            return [*REAL("127.0.0.1", port, **hints), *REAL("::1", port, **hints)]
        return REAL(host, port, **{**hints, "flags": socket.AI_NUMERICHOST})


class Ways:
    """Where connections set out for. Those to a public address arrive at a server of the test, if there is one."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.public_port: int | None = None


def port_of(stub: FalStub) -> int:
    return int(stub.url.rpartition(":")[2])


async def reason(client: GuardedClient, url: str, seconds_max: float = HANG_SECONDS) -> str:
    with pytest.raises(NotReached) as caught:
        await client.post(url, b"{}", {}, seconds_max=seconds_max)
    return caught.value.reason


def fetch(
    client: GuardedClient, url: str, hosts: Hosts, headers: Mapping[str, str] | None = None, **limits: Any
) -> AbstractAsyncContextManager[StreamedAnswer]:
    defaults = {"seconds_max_to_answer": HANG_SECONDS, "stall_seconds_max": HANG_SECONDS, "bytes_max": 10**6}
    return client.get(url, headers or {}, hosts=hosts, **{**defaults, **limits})


async def fetched(client: GuardedClient, url: str, hosts: Hosts) -> tuple[int, bytes]:
    async with fetch(client, url, hosts) as answer:
        return answer.status, b"".join([chunk async for chunk in answer.chunks])


async def unfetched(client: GuardedClient, url: str, hosts: Hosts, **limits: Any) -> str:
    with pytest.raises(NotReached) as caught:
        async with fetch(client, url, hosts, **limits) as answer:
            _ = [chunk async for chunk in answer.chunks]
    return caught.value.reason
