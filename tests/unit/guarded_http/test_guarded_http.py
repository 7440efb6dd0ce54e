"""What the guarded client does with hosts that it may reach, and with what comes of them."""

import asyncio
import itertools
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from app.infrastructure.egress import Egress
from app.infrastructure.guarded_http.client import ANSWER_BYTES_MAX, GuardedClient
from tests.certificates import self_signed
from tests.fal_stub import FalStub, drip, drop, endless, hang, raw, reply
from tests.unit.guarded_http.stand_ins import HANG_SECONDS, NAME, NameServer, port_of, reason


async def test_posts_over_https_and_gives_the_answer_as_it_came(stub: FalStub, local: GuardedClient) -> None:
    stub.then(reply(201, b"\x1f\x8b\x08", {"Content-Encoding": "gzip", "X-Answer": "1", "Set-Cookie": "a=b"}), reply())
    url = f"https://{NAME}:{port_of(stub)}/hook?x=1"

    answer = await local.post(url, b'{"a": 1}', {"Content-Type": "application/json"}, seconds_max=HANG_SECONDS)
    await local.post(url, b"", {}, seconds_max=HANG_SECONDS)

    assert (answer.status, answer.body, answer.headers["x-answer"]) == (201, b"\x1f\x8b\x08", "1")
    first, second = stub.seen
    assert (first.method, first.target, first.body) == ("POST", "/hook?x=1", b'{"a": 1}')
    assert first.headers == {
        "host": f"{NAME}:{port_of(stub)}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "Tollgate",
        "content-type": "application/json",
        "content-length": "8",
    }
    assert "cookie" not in second.headers
    assert second.connection == first.connection


async def test_wants_a_certificate_for_the_host(stub: FalStub, local: GuardedClient, tmp_path: Path) -> None:
    assert (
        await reason(local, f"https://other.example:{port_of(stub)}/") == "The certificate is not valid for the host."
    )
    assert await reason(local, f"https://127.0.0.1:{port_of(stub)}/") == "The certificate is not valid for the host."
    other = Egress(certificates_file=self_signed(tmp_path / "other.pem", NAME))
    async with GuardedClient.open(egress=other, allows_loopback=True) as client:
        said = await reason(client, f"https://{NAME}:{port_of(stub)}/")

    assert said.startswith("The certificate is not from an authority that is trusted")
    assert stub.seen == []


async def test_follows_no_redirect(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(*(reply(status, b"", {"Location": plain_stub.url}) for status in (301, 302, 303, 307, 308)))

    statuses = [(await local.post(plain_stub.url, b"{}", {}, seconds_max=HANG_SECONDS)).status for _ in range(5)]

    assert statuses == [301, 302, 303, 307, 308]
    assert len(plain_stub.seen) == 5


async def test_reads_the_first_of_an_endless_answer_and_hangs_up(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(endless, reply(200, b"x" * ANSWER_BYTES_MAX), reply(200, b"x" * 2**20), reply())

    answers = [await local.post(plain_stub.url, b"{}", {}, seconds_max=HANG_SECONDS) for _ in range(4)]

    assert [len(answer.body) for answer in answers] == [ANSWER_BYTES_MAX, ANSWER_BYTES_MAX, ANSWER_BYTES_MAX, 0]
    first, second, third, fourth = (seen.connection for seen in plain_stub.seen)
    assert first < second <= third < fourth


@pytest.mark.alone
@pytest.mark.parametrize("behaviour", [drip, hang])
async def test_ends_at_the_time_limit(behaviour: Any, plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(behaviour)
    begun = time.monotonic()

    assert await reason(local, plain_stub.url, seconds_max=0.3) == "No answer came within 0.3 s."
    assert time.monotonic() - begun < 2


async def test_says_why_no_answer_came(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(drop, raw(b"SSH-2.0-OpenSSH_9.6\r\n"), raw(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n1"))
    plain_stub.then(raw(b"HTTP/1.1 200 X\r\nA: " + b"b" * 100_000 + b"\r\n\r\n"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert await reason(local, f"http://127.0.0.1:{unused.getsockname()[1]}/") == "The connection was refused."

    assert await reason(local, "https://unknown.example/") == "The name could not be resolved."
    assert await reason(local, plain_stub.url) == "The connection broke before the answer came."
    assert await reason(local, plain_stub.url) == "What came was not an answer of HTTP."
    assert await reason(local, plain_stub.url) == "The answer broke off."
    assert await reason(local, plain_stub.url) == "What came was not an answer of HTTP."


async def test_says_that_there_is_no_tls(local: GuardedClient) -> None:
    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await reason(local, url) == "No TLS connection could be made."


async def test_keeps_a_connection_for_its_own_host_and_only_so_many(plain_stub: FalStub, names: NameServer) -> None:
    hosts = ["a.example", "b.example"]
    names.answers.update({host: itertools.repeat(["127.0.0.1"]) for host in hosts})
    first, second = (f"http://{host}:{port_of(plain_stub)}/" for host in hosts)
    plain_stub.otherwise = reply()

    for connections_max in (2, 1):
        plain_stub.seen.clear()
        plain_stub.connections = 0
        async with GuardedClient.open(egress=Egress(), allows_loopback=True, connections_max=connections_max) as client:
            for url in (first, first, second, second, first):
                await client.post(url, b"{}", {}, seconds_max=HANG_SECONDS)
                # The connection that is not kept is gone a moment later.
                await asyncio.sleep(0.01)
        expected = {2: [1, 1, 2, 2, 1], 1: [1, 1, 2, 3, 1]}[connections_max]
        assert [seen.connection for seen in plain_stub.seen] == expected
