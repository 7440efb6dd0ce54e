import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.infrastructure.egress import Egress
from app.infrastructure.guarded_http.client import GuardedClient
from tests.certificates import self_signed, serving_tls
from tests.fal_stub import FalStub, running_stub
from tests.unit.guarded_http.stand_ins import NAME, NameServer, Ways


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    return server


@pytest.fixture
async def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    ways, loop = Ways(), asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        ways.taken.append(address[0])
        is_public = not address[0].startswith("127.")
        if is_public and ways.public_port is None:
            raise ConnectionRefusedError
        await connect(sock, ("127.0.0.1", ways.public_port) if is_public else address)

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    return ways


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path / "hook.pem", NAME)


@pytest.fixture
async def stub(certificate: Path) -> AsyncIterator[FalStub]:
    async with running_stub(serving_tls(certificate)) as server:
        yield server


@pytest.fixture
async def plain_stub() -> AsyncIterator[FalStub]:
    async with running_stub() as server:
        yield server


@pytest.fixture
async def local(certificate: Path, names: NameServer) -> AsyncIterator[GuardedClient]:
    """A client of the development's, and names that lead to this machine."""
    names.answers.update({name: itertools.repeat(["127.0.0.1"]) for name in (NAME, "other.example")})
    async with GuardedClient.open(egress=Egress(certificates_file=certificate), allows_loopback=True) as client:
        yield client
