"""When nothing can have left, when something may have, and where the key never goes."""

import asyncio
import json
import socket
import ssl
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.application.ports.provider import (
    NotSubmitted,
    ProviderUnavailable,
    SubmitOutcomeUnknown,
    SubmitRefused,
)
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.exchange import HttpLimits
from tests.certificates import self_signed, serving_tls
from tests.contract.fal_calls import IMAGE, KEY, PATIENT, PLAIN, SHORT_EXCHANGES, client_of, submit
from tests.fal_stub import (
    NGINX_PAGE,
    FalStub,
    accepted,
    endless,
    hang,
    raw,
    reply,
    reply_then_drop_the_next,
    request_at,
    running_stub,
)
from tests.service_process import free_port

LARGER_THAN_ALL_BUFFERS = "A" * 15_000_000


async def test_posts_once_when_a_kept_connection_breaks_under_it(stub: FalStub, client: FalClient) -> None:
    stub.then(reply_then_drop_the_next(reply(200, accepted(stub.url))), reply(200, accepted(stub.url)))
    await submit(client)
    with pytest.raises(SubmitOutcomeUnknown):
        await submit(client)
    await asyncio.sleep(0.02)
    assert stub.connections == 1


async def test_does_not_know_the_outcome_where_the_http_library_fails_in_a_way_of_its_own(stub: FalStub) -> None:
    async with FalClient.open(queue_url=stub.url, key=KEY, ssl_context=PLAIN, user_agent="two\r\nlines") as client:
        with pytest.raises(SubmitOutcomeUnknown, match=r"broke \(ValueError\)"):
            await submit(client)


async def test_takes_a_new_connection_after_the_server_closed_the_kept_one(stub: FalStub, client: FalClient) -> None:
    closing = raw(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"request_id":"r-1"}')
    stub.then(closing, reply(200, accepted(stub.url)))
    await submit(client)
    await asyncio.sleep(0.05)
    await submit(client)
    assert [request.connection for request in stub.seen] == [1, 2]


async def test_keeps_a_connection_for_the_next_request_but_not_for_long(stub: FalStub) -> None:
    stub.then(*[reply(200, accepted(stub.url))] * 4)
    # A busy machine may need seconds for the next request.
    for keepalive_seconds, pause_seconds in ((30, 0), (0.1, 0.3)):
        async with client_of(stub, replace(PATIENT, keepalive_seconds=keepalive_seconds)) as client:
            await submit(client)
            await asyncio.sleep(pause_seconds)
            await submit(client)
    assert [request.connection for request in stub.seen] == [1, 1, 2, 3]


async def test_drops_the_connection_of_an_answer_that_is_too_large(stub: FalStub, client: FalClient) -> None:
    ended = asyncio.Event()

    async def answer_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            return await endless(reader, writer)
        finally:
            ended.set()

    stub.then(answer_without_end, reply(200, accepted(stub.url)))
    with pytest.raises(SubmitOutcomeUnknown):
        await submit(client)
    async with asyncio.timeout(20):
        await ended.wait()
    await submit(client)
    assert [request.connection for request in stub.seen] == [1, 2]


async def test_knows_that_a_refused_connection_sent_nothing() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with FalClient.open(queue_url=url, key=KEY, ssl_context=PLAIN) as client:
        with pytest.raises(NotSubmitted, match="cannot be reached"):
            await submit(client)
        with pytest.raises(ProviderUnavailable, match="cannot be reached"):
            await client.observe(request_at(url), IMAGE)


async def test_knows_that_an_unknown_name_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find_nothing(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", find_nothing)
    async with FalClient.open(queue_url="http://queue.invalid", key=KEY, ssl_context=PLAIN) as client:
        with pytest.raises(NotSubmitted, match="cannot be reached"):
            await submit(client)


@pytest.mark.parametrize("limits", [replace(PATIENT, pool_seconds=0.3), replace(PATIENT, connect_seconds=0.3)])
async def test_knows_that_a_connection_never_made_sent_nothing(limits: HttpLimits) -> None:
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with FalClient.open(queue_url=url, key=KEY, limits=limits, ssl_context=PLAIN) as client:
            async with asyncio.timeout(20):
                with pytest.raises(NotSubmitted, match="no connection to fal in time"):
                    await submit(client)


async def test_knows_that_waiting_for_a_free_connection_sent_nothing(stub: FalStub) -> None:
    limits = HttpLimits(pool_seconds=0.3, connections_max=1)
    stub.then(hang)
    async with FalClient.open(queue_url=stub.url, key=KEY, limits=limits, ssl_context=PLAIN) as client:
        first = asyncio.create_task(submit(client))
        await stub.arrived.wait()
        with pytest.raises(NotSubmitted, match="no connection to fal in time"):
            await submit(client)
        first.cancel()
    assert len(stub.seen) == 1


async def test_knows_that_a_closed_client_sent_nothing(stub: FalStub) -> None:
    async with FalClient.open(queue_url=stub.url, key=KEY, ssl_context=PLAIN) as client:
        pass
    with pytest.raises(NotSubmitted):
        await submit(client)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path / "certificate.pem", "127.0.0.1")


async def test_trusts_only_the_certificates_it_was_given(certificate: Path) -> None:
    serving = serving_tls(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with running_stub(serving) as stub:
        stub.then(reply(200, accepted(stub.url)))
        async with FalClient.open(queue_url=stub.url, key=KEY, ssl_context=trusting) as client:
            assert await submit(client) == request_at(stub.url)
        async with FalClient.open(queue_url=stub.url, key=KEY) as client:
            with pytest.raises(NotSubmitted, match="cannot be reached"):
                await submit(client)
        assert len(stub.seen) == 1


async def test_knows_that_a_failed_tls_handshake_sent_nothing() -> None:
    async def speak_no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_no_tls, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with FalClient.open(queue_url=url, key=KEY, ssl_context=PLAIN) as client:
            with pytest.raises(NotSubmitted, match="cannot be reached"):
                await submit(client)


async def test_sends_a_large_body_whole(stub: FalStub, client: FalClient) -> None:
    picture = "data:image/png;base64," + "A" * 3_000_000
    stub.then(reply(200, accepted(stub.url)))
    await submit(client, image_url=picture)
    (request,) = stub.seen
    assert json.loads(request.body)["image_url"] == picture
    assert "transfer-encoding" not in request.headers


async def test_gives_up_on_a_server_that_does_not_read(stub: FalStub) -> None:
    stub.reads_bodies = False
    stub.then(hang)
    async with client_of(stub, SHORT_EXCHANGES) as client:
        with pytest.raises(SubmitOutcomeUnknown, match="no answer from fal within 1 s"):
            await submit(client, image_url=LARGER_THAN_ALL_BUFFERS)
    assert len(stub.seen) == 1


async def test_hears_a_refusal_that_comes_before_the_body_was_read(stub: FalStub, client: FalClient) -> None:
    async def refuse_then_wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await reply(413, NGINX_PAGE)(reader, writer)
        return await hang(reader, writer)

    stub.reads_bodies = False
    stub.then(refuse_then_wait)
    with pytest.raises(SubmitRefused):
        await submit(client, image_url=LARGER_THAN_ALL_BUFFERS)


async def test_closes_the_connection_of_a_cancelled_submission(stub: FalStub, client: FalClient) -> None:
    closed = asyncio.Event()

    async def wait_for_the_end(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> bool:
        assert await reader.read() == b""
        closed.set()
        return False

    stub.then(wait_for_the_end, reply(200, accepted(stub.url)))
    task = asyncio.create_task(submit(client))
    await stub.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        await closed.wait()
    assert await submit(client) == request_at(stub.url)


async def test_serves_many_at_once(stub: FalStub, client: FalClient) -> None:
    stub.then(*[reply(200, accepted(stub.url))] * 300)
    await asyncio.gather(*(submit(client) for _ in range(300)))
    assert len(stub.seen) == 300
    assert stub.connections <= HttpLimits().connections_max


async def test_follows_no_redirect_with_the_key(stub: FalStub, client: FalClient) -> None:
    async with running_stub() as elsewhere:
        moved = {"Location": f"{elsewhere.url}/r-1"}
        stub.then(*(reply(status, b"", moved) for status in (301, 302, 303, 307, 308)))
        for _ in range(2):
            with pytest.raises(SubmitOutcomeUnknown):
                await submit(client)
        for call in (client.observe(request_at(stub.url), IMAGE), client.cancel(request_at(stub.url))):
            with pytest.raises(ProviderUnavailable):
                await call
        assert elsewhere.connections == 0


async def test_uses_no_stored_url_that_leads_elsewhere(stub: FalStub, client: FalClient) -> None:
    async with running_stub() as elsewhere:
        tampered = request_at(elsewhere.url)
        mixed = replace(tampered, status_url=request_at(stub.url).status_url)
        stub.then(reply(200, {"status": "COMPLETED"}))
        for call in (client.observe(tampered, IMAGE), client.observe(mixed, IMAGE), client.cancel(tampered)):
            with capture_logs() as logs, pytest.raises(ProviderUnavailable):
                await call
            assert logs == [{"event": "fal_stored_url_refused", "log_level": "error", "host": "127.0.0.1"}]
        assert elsewhere.connections == 0


async def test_uses_no_proxy_and_no_credentials_of_the_environment(
    stub: FalStub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with running_stub() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        stub.then(reply(200, accepted(stub.url)))
        async with FalClient.open(queue_url=stub.url, key=KEY, ssl_context=PLAIN) as client:
            await submit(client)
        assert proxy.connections == 0
    assert stub.seen[0].headers["authorization"] == f"Key {KEY}"
