"""The callers against servers that answer what they should not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from benchmarks.load import Load, LoadError, answer_size, call, http_request

OK = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def answering(answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A server that lets `answer` see each request; its port."""
    connections = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                await answer(await reader.readuntil(b"\r\n\r\n"), writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]
        await asyncio.gather(*filter(None, connections))


@asynccontextmanager
async def server(*parts: bytes, asked: list[bytes] | None = None) -> AsyncIterator[int]:
    """Answers each request with `parts`, one write each."""

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if asked is not None:
            asked.append(request)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)

    async with answering(answer) as port:
        yield port


def once(port: int, requests: Sequence[str], callers: int = 2) -> Load:
    return Load(port, callers, requests, 202, 10.0, is_once=True)


async def test_each_request_is_sent_once_and_counted() -> None:
    asked: list[bytes] = []
    requests = [http_request("GET", f"/{number}") for number in range(20)]

    async with server(OK, asked=asked) as port:
        figures = await call(once(port, requests))

    assert figures["count"] == 20
    assert sorted(asked) == sorted(request.encode() for request in requests)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]


@pytest.mark.alone
async def test_callers_ask_until_the_time_is_over() -> None:
    async with server(OK) as port:
        figures = await call(Load(port, 4, [http_request("GET", "/")], 202, 0.2))

    assert figures["count"] > 8
    assert figures["per_second"] == pytest.approx(figures["count"] / 0.2, rel=0.5)


async def test_an_answer_in_pieces_is_one_answer() -> None:
    async with server(OK[:10], OK[10:-1], OK[-1:]) as port:
        figures = await call(once(port, [http_request("GET", "/")] * 3, callers=1))

    assert figures["count"] == 3
    # A first piece that counted as an answer would come sooner than the pauses between the pieces take.
    assert figures["p50_ms"] > 2


@pytest.mark.parametrize("status", [b"200 OK", b"402 Payment Required", b"500 Internal Server Error"])
async def test_another_status_ends_the_measurement(status: bytes) -> None:
    async with server(OK.replace(b"202 Accepted", status)) as port:
        with pytest.raises(LoadError, match="not the answer that was asked for"):
            await call(once(port, [http_request("GET", "/")]))


async def test_more_than_one_answer_ends_the_measurement() -> None:
    async with server(OK + OK) as port:
        with pytest.raises(LoadError, match="not the answer that was asked for"):
            await call(once(port, [http_request("GET", "/")]))


async def test_a_connection_that_ends_is_no_answer() -> None:
    async def close(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with answering(close) as port:
        with pytest.raises(LoadError, match="closed"):
            await call(once(port, [http_request("GET", "/")]))


@pytest.mark.alone
async def test_at_a_pace_the_wait_of_requests_behind_a_late_answer_counts() -> None:
    """One caller, 100 requests a second, answers after 30 ms: the tenth waits for the nine before it."""

    async def answer_late(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.03)
        writer.write(OK)

    async with answering(answer_late) as port:
        figures = await call(Load(port, 1, [http_request("GET", "/")], 202, 0.095, per_second=100))

    assert figures["count"] == 10
    assert figures["p99_ms"] > 150


def test_the_size_of_an_answer_is_its_head_and_its_content() -> None:
    assert answer_size(OK) == len(OK)
    assert answer_size(OK + b"more") == len(OK)
    assert answer_size(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\n") == len(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello"
    )
    assert answer_size(OK[:20]) is None


def test_an_answer_without_a_length_is_refused() -> None:
    with pytest.raises(LoadError, match="without a length"):
        answer_size(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
