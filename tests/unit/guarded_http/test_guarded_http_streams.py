"""What the guarded client makes of a body that it hands over piece by piece: all of it, or an error."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.infrastructure.guarded_http.client import GuardedClient
from app.infrastructure.guarded_http.hosts import Hosts
from app.infrastructure.guarded_http.reasons import NotReached, TooLong
from app.infrastructure.guarded_http.streams import CHUNK_BYTES_MAX
from tests.fal_stub import Behaviour, FalStub, drip, drop, endless, hang, raw, reply
from tests.unit.guarded_http.stand_ins import HANG_SECONDS, NAME, fetch, fetched, port_of, unfetched

BROKE_OFF = "The answer broke off."
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def hosts_of(stub: FalStub) -> Hosts:
    return Hosts.of(f"127.0.0.1:{port_of(stub)}", f"{NAME}:{port_of(stub)}")


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES_MAX, 3 * 2**20 + 7])
async def test_hands_over_all_of_a_body(plain_stub: FalStub, local: GuardedClient, size_bytes: int) -> None:
    content = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    plain_stub.then(reply(200, content, {"Content-Type": "image/png"}))

    async with fetch(local, plain_stub.url, hosts_of(plain_stub), bytes_max=size_bytes) as answer:
        chunks = [chunk async for chunk in answer.chunks]
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")

    assert b"".join(chunks) == content
    assert all(0 < len(chunk) <= CHUNK_BYTES_MAX for chunk in chunks)


async def test_asks_without_credentials_and_for_nothing_packed(stub: FalStub, local: GuardedClient) -> None:
    stub.then(reply(200, b"a", {"Set-Cookie": "a=b"}), reply(200, b"b"))
    url = f"https://{NAME}:{port_of(stub)}/files/b/1/a.png?x=1"

    assert [await fetched(local, url, hosts_of(stub)) for _ in range(2)] == [(200, b"a"), (200, b"b")]

    first, second = stub.seen
    assert (first.method, first.target, first.body) == ("GET", "/files/b/1/a.png?x=1", b"")
    assert first.headers == {
        "host": f"{NAME}:{port_of(stub)}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "user-agent": "Tollgate",
        "connection": "close",
    }
    assert second.headers == first.headers


async def test_passes_a_range_on_and_the_part_back(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(reply(302, b"", {"Location": "/moved"}))
    plain_stub.then(reply(206, b"cde", {"Content-Range": "bytes 2-4/9", "Accept-Ranges": "bytes"}))

    async with fetch(local, plain_stub.url, hosts_of(plain_stub), headers={"Range": "bytes=2-4"}) as answer:
        assert (answer.status, answer.headers["content-range"]) == (206, "bytes 2-4/9")
        assert [chunk async for chunk in answer.chunks] == [b"cde"]

    assert [seen.headers["range"] for seen in plain_stub.seen] == ["bytes=2-4"] * 2


async def test_hands_over_a_chunked_body(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(raw(CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"))

    assert await fetched(local, plain_stub.url, hosts_of(plain_stub)) == (200, b"hello!")


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (raw(OK + b"Content-Length: 9\r\n\r\n12345678"), BROKE_OFF),
        (raw(OK + b"Content-Length: 9\r\n\r\n"), BROKE_OFF),
        (raw(CHUNKED + b"5\r\nhello\r\n"), BROKE_OFF),
        (raw(CHUNKED + b"5\r\nhell"), BROKE_OFF),
        (raw(CHUNKED + b"5\r\nhello\r\n0\r\n"), BROKE_OFF),
        (raw(CHUNKED), BROKE_OFF),
        (raw(OK + b"\r\nhello"), "The answer does not say where it ends."),
        (raw(OK + b"Connection: close\r\n\r\nhello"), "The answer does not say where it ends."),
        (raw(OK + b"Transfer-Encoding: gzip\r\n\r\nhello"), "The answer does not say where it ends."),
        (reply(200, b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}), "The answer is packed, which was not asked for."),
    ],
)
async def test_a_body_that_is_not_whole_is_an_error(
    plain_stub: FalStub, local: GuardedClient, behaviour: Behaviour, said: str
) -> None:
    plain_stub.then(behaviour)

    async with fetch(local, plain_stub.url, hosts_of(plain_stub)) as answer:
        assert answer.status == 200
        with pytest.raises(NotReached) as caught:
            _ = [chunk async for chunk in answer.chunks]

    assert caught.value.reason == said


@pytest.mark.parametrize("pause_seconds", [0, 0.05])
async def test_what_comes_beyond_the_announced_length_is_nobodys_answer(
    plain_stub: FalStub, local: GuardedClient, pause_seconds: float
) -> None:
    async def too_much(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(OK + b"Content-Length: 5\r\n\r\nhello")
        await asyncio.sleep(pause_seconds)
        writer.write(OK + b"Content-Length: 4\r\n\r\nevil")
        return True

    plain_stub.then(too_much, reply(200, b"good"))

    assert await fetched(local, plain_stub.url, hosts_of(plain_stub)) == (200, b"hello")
    await asyncio.sleep(2 * pause_seconds)
    assert await fetched(local, plain_stub.url, hosts_of(plain_stub)) == (200, b"good")
    assert [seen.connection for seen in plain_stub.seen] == [1, 2]


async def test_garbage_beyond_the_announced_length_is_an_error(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(raw(OK + b"Content-Length: 5\r\n\r\nhello and more", stays_open=True))

    assert await unfetched(local, plain_stub.url, hosts_of(plain_stub)) == "What came was not an answer of HTTP."


async def test_says_before_it_reads_that_a_body_is_too_long(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(raw(OK + b"Content-Length: 11\r\n\r\n", stays_open=True))

    async with fetch(local, plain_stub.url, hosts_of(plain_stub), bytes_max=10) as answer:
        with pytest.raises(TooLong, match="longer than 10 bytes"):
            await anext(answer.chunks)


async def test_stops_where_a_body_of_unknown_length_is_too_long(plain_stub: FalStub, local: GuardedClient) -> None:
    part = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    plain_stub.then(raw(CHUNKED + part * 3, stays_open=True))
    taken = bytearray()

    async def take_all(chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            taken.extend(chunk)

    async with fetch(local, plain_stub.url, hosts_of(plain_stub), bytes_max=10_000) as answer:
        with pytest.raises(TooLong):
            await take_all(answer.chunks)

    assert len(taken) <= 10_000


@pytest.mark.alone
async def test_a_stall_is_an_error_and_a_slow_consumer_is_not(plain_stub: FalStub, local: GuardedClient) -> None:
    async def stall(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(OK + b"Content-Length: 10\r\n\r\nhello")
        await writer.drain()
        await asyncio.Event().wait()
        return False

    plain_stub.then(stall, drip)
    begun = time.monotonic()
    async with fetch(local, plain_stub.url, hosts_of(plain_stub), stall_seconds_max=0.2) as answer:
        assert await anext(answer.chunks) == b"hello"
        with pytest.raises(NotReached, match=r"Nothing more of the answer came within 0\.2 s"):
            await anext(answer.chunks)
    assert time.monotonic() - begun < 2

    begun = time.monotonic()
    async with fetch(local, plain_stub.url, hosts_of(plain_stub), stall_seconds_max=0.2) as answer:
        for _ in range(3):
            await asyncio.sleep(0.3)
            assert await anext(answer.chunks)
    assert time.monotonic() - begun > 0.8


async def test_reads_no_faster_than_the_consumer_takes(plain_stub: FalStub, local: GuardedClient) -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        nonlocal sent
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(OK + b"Content-Length: 100000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    plain_stub.then(flood)
    async with fetch(local, plain_stub.url, hosts_of(plain_stub), bytes_max=10**9) as answer:
        taken = len(await anext(answer.chunks))
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.1)
        first_wave = sent
        while taken < 40_000_000:
            taken += len(await anext(answer.chunks))

    # What waits is in the buffers of the system for the two sockets, some megabytes, and in aiohttp's.
    assert first_wave < 20_000_000
    assert sent >= 40_000_000


async def test_who_leaves_early_closes_the_connection(plain_stub: FalStub, local: GuardedClient) -> None:
    closed = asyncio.Event()

    async def endless_until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            return await endless_chunks(reader, writer)
        finally:
            closed.set()

    async def endless_chunks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(CHUNKED)
        while True:
            writer.write(b"4\r\nabcd\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    plain_stub.then(endless_until_closed, endless_until_closed, reply(200, b"ok"))
    async with fetch(local, plain_stub.url, hosts_of(plain_stub)) as answer:
        async for _ in answer.chunks:
            break
    await asyncio.wait_for(closed.wait(), HANG_SECONDS)

    closed.clear()
    with pytest.raises(RuntimeError, match="of the consumer's own"):
        async with fetch(local, plain_stub.url, hosts_of(plain_stub)):
            raise RuntimeError("of the consumer's own")
    await asyncio.wait_for(closed.wait(), HANG_SECONDS)

    assert await fetched(local, plain_stub.url, hosts_of(plain_stub)) == (200, b"ok")
    assert [seen.connection for seen in plain_stub.seen] == [1, 2, 3]


@pytest.mark.parametrize(
    ("behaviours", "said"),
    [
        ([hang], "No answer came within 0.3 s."),
        # A GET is asked once more where the connection ended without a word.
        ([drop, drop], "The connection broke before the answer came."),
        ([raw(b"SSH-2.0-OpenSSH_9.6\r\n")], "What came was not an answer of HTTP."),
        ([raw(OK + b"Content-Length: -1\r\n\r\n")], "What came was not an answer of HTTP."),
    ],
)
async def test_says_why_no_head_came(
    plain_stub: FalStub, local: GuardedClient, behaviours: list[Any], said: str
) -> None:
    plain_stub.then(*behaviours)

    seconds_max = 0.3 if behaviours == [hang] else HANG_SECONDS
    assert await unfetched(local, plain_stub.url, hosts_of(plain_stub), seconds_max_to_answer=seconds_max) == said


async def test_an_endless_body_without_a_length_is_not_begun(plain_stub: FalStub, local: GuardedClient) -> None:
    plain_stub.then(endless)

    said = await unfetched(local, plain_stub.url, hosts_of(plain_stub))

    assert said == "The answer does not say where it ends."
