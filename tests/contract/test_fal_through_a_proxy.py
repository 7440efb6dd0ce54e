"""fal behind a proxy, as in networks that let nothing out by themselves: a real CONNECT proxy, our own authority."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.application.ports.provider import NotSubmitted, ProviderUnavailable, SubmitOutcomeUnknown
from app.infrastructure.egress import Egress, Proxy
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.history import FalHistory
from app.infrastructure.fal.webhooks import FalWebhooks
from tests.certificates import self_signed, serving_tls
from tests.contract.fal_calls import KEY, PATIENT, submit
from tests.fal_stub import MODEL_ID, FalStub, accepted, drop, reply, request_at, running_stub

HOST = "fal.example"
FAL = f"https://{HOST}"
# For a proxy that never answers.
SHORT = replace(PATIENT, connect_seconds=0.3, pool_seconds=0.3)


@dataclass
class ConnectProxy:
    """Leads every tunnel to one server. `answer` replaces what it says to CONNECT; None: nothing is said."""

    server_port: int
    answer: bytes | None = b"HTTP/1.1 200 Connection established\r\n\r\n"
    drops_connect: bool = False
    cuts_after_bytes: int | None = None
    heads: list[str] = field(default_factory=list)
    url: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.drops_connect:
            return
        if self.answer is None:
            await asyncio.sleep(60)
            return
        writer.write(self.answer)
        await writer.drain()
        if b" 200 " in self.answer and self.heads[-1].startswith("CONNECT "):
            await self._tunnel(reader, writer)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        copies = [
            asyncio.create_task(_copy(server_reader, writer, None)),
            asyncio.create_task(_copy(reader, server_writer, self.cuts_after_bytes)),
        ]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First of all, because the test may end while this waits.
            server_writer.close()
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_max: int | None) -> None:
    copied = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            copied += len(data)
            if bytes_max is not None and copied > bytes_max:
                return
            writer.write(data)
            await writer.drain()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path / "own-authority.pem", HOST)


@pytest.fixture
async def stub(certificate: Path) -> AsyncIterator[FalStub]:
    async with running_stub(serving_tls(certificate)) as server:
        yield server
    # The farewells of TLS are still on their way through what was the tunnel.
    await asyncio.sleep(0.05)


@asynccontextmanager
async def running(proxy: ConnectProxy) -> AsyncIterator[ConnectProxy]:
    async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield proxy
        for task in proxy.tasks:
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)


@pytest.fixture
async def proxy(stub: FalStub) -> AsyncIterator[ConnectProxy]:
    async with running(ConnectProxy(int(stub.url.rpartition(":")[2]))) as proxy:
        yield proxy


@pytest.fixture
def egress(proxy: ConnectProxy, certificate: Path) -> Egress:
    return Egress(https_proxy=Proxy(url=proxy.url), certificates_file=certificate)


@pytest.fixture
async def client(egress: Egress) -> AsyncIterator[FalClient]:
    async with FalClient.open(queue_url=FAL, key=KEY, egress=egress, limits=PATIENT) as client:
        yield client


async def test_reaches_fal_through_the_proxy_with_its_own_authority(
    stub: FalStub, proxy: ConnectProxy, client: FalClient
) -> None:
    stub.then(reply(200, accepted(FAL)), reply(200, accepted(FAL)))

    assert [await submit(client) for _ in range(2)] == [request_at(FAL)] * 2

    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
    assert "key-secret" not in "".join(proxy.heads)
    assert stub.seen[0].headers["authorization"] == f"Key {KEY}"


async def test_tells_the_proxy_who_we_are_and_nobody_else(stub: FalStub, proxy: ConnectProxy, egress: Egress) -> None:
    proxied = replace(egress, https_proxy=Proxy(url=proxy.url, user="üser", password=SecretStr("pass:word")))
    stub.then(reply(200, accepted(FAL)))

    async with FalClient.open(queue_url=FAL, key=KEY, egress=proxied) as client:
        await submit(client)

    told = base64.b64encode("üser:pass:word".encode()).decode()
    assert f"Proxy-Authorization: Basic {told}\r\n" in proxy.heads[0]
    assert "proxy-authorization" not in stub.seen[0].headers


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"answer": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"},
            "asks for credentials",
        ),
        ({"answer": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"}, r"refused the connection \(403\)"),
        ({"answer": b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"}, r"refused the connection \(502\)"),
        ({"answer": b"SSH-2.0-OpenSSH_9.6\r\n"}, "broke the connection"),
        ({"answer": None}, "does not answer"),
        ({"drops_connect": True}, "broke the connection"),
        ({"cuts_after_bytes": 100}, "."),
    ],
)
async def test_knows_that_nothing_left_where_the_tunnel_was_never_made(
    stub: FalStub, proxy: ConnectProxy, egress: Egress, changes: dict[str, object], reason: str
) -> None:
    for name, value in changes.items():
        setattr(proxy, name, value)

    limits = SHORT if proxy.answer is None else PATIENT
    async with FalClient.open(queue_url=FAL, key=KEY, egress=egress, limits=limits) as client:
        with capture_logs() as logs, pytest.raises(NotSubmitted, match=rf"the proxy on the way to fal {reason}"):
            await submit(client)

        assert stub.seen == []
        assert "key-secret" not in str(logs)
        with pytest.raises(ProviderUnavailable, match=rf"the proxy on the way to fal {reason}"):
            await client.cancel(request_at(FAL))


async def test_knows_that_nothing_left_where_there_is_no_proxy(certificate: Path) -> None:
    gone = Egress(https_proxy=Proxy(url="http://127.0.0.1:9"), certificates_file=certificate)

    async with FalClient.open(queue_url=FAL, key=KEY, egress=gone) as client:
        with pytest.raises(NotSubmitted, match="the proxy on the way to fal cannot be reached"):
            await submit(client)


async def test_does_not_trust_whoever_the_proxy_leads_to(stub: FalStub, egress: Egress, tmp_path: Path) -> None:
    other = self_signed(tmp_path / "other.pem", HOST)

    async with FalClient.open(queue_url=FAL, key=KEY, egress=replace(egress, certificates_file=other)) as client:
        with pytest.raises(NotSubmitted, match="leads to a server that is not trusted"):
            await submit(client)

    assert stub.seen == []


async def test_does_not_know_the_outcome_once_the_request_is_on_its_way(stub: FalStub, client: FalClient) -> None:
    stub.then(drop, reply(200, accepted(FAL)), drop)
    for _ in range(2):
        with pytest.raises(SubmitOutcomeUnknown):
            await submit(client)
        if len(stub.seen) == 1:
            # Then on a connection that is kept: it is no new tunnel.
            await submit(client)
    assert len(stub.seen) == 3


async def test_history_and_keys_go_the_same_way(stub: FalStub, proxy: ConnectProxy, egress: Egress) -> None:
    stub.then(reply(200, {"items": [], "has_more": False}), reply(200, {"keys": []}))
    now = datetime.now(UTC)

    async with FalHistory.open(api_url=f"{FAL}/v1", key=KEY, egress=egress) as history:
        found = await history.find(MODEL_ID, {}, sent_from=now - timedelta(minutes=1), sent_until=now)
    async with FalWebhooks.open(jwks_url=f"{FAL}/.well-known/jwks.json", user_id=None, egress=egress) as webhooks:
        assert not await webhooks._fetch_keys()

    assert found == []
    assert [seen.target.partition("?")[0] for seen in stub.seen] == [
        "/v1/models/requests/by-endpoint",
        "/.well-known/jwks.json",
    ]
    assert len(proxy.heads) == 2


async def test_plain_http_is_forwarded(proxy: ConnectProxy) -> None:
    proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    egress = Egress(http_proxy=Proxy(url=proxy.url, user="user"))

    async with FalClient.open(queue_url=f"http://{HOST}", key=KEY, egress=egress) as client:
        with pytest.raises(NotSubmitted) as refused:
            await submit(client)

    assert refused.value.is_operators_matter
    assert proxy.heads[0].startswith(f"POST http://{HOST}/{MODEL_ID} HTTP/1.1\r\n")
    assert proxy.heads[0].count("uthorization: ") == 2


async def test_this_machine_is_never_looked_for_behind_the_proxy() -> None:
    async with running_stub() as local, running(ConnectProxy(9)) as proxy:
        egress = Egress(https_proxy=Proxy(url=proxy.url), http_proxy=Proxy(url=proxy.url))
        local.then(reply(200, accepted(local.url)))
        async with FalClient.open(queue_url=local.url, key=KEY, egress=egress) as client:
            assert await submit(client) == request_at(local.url)
        assert proxy.heads == []
