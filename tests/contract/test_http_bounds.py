"""What one connection may send, hold and leave unread, over real sockets. The service runs on uvloop."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app.presentation.http import connections, protocol, transports
from tests.builders import until
from tests.contract.http_callers import GET, HANG_SECONDS, Server, answer_to, connected, refused, serving, until_closed

MB = 2**20
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test())


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, `/read` once the body is there, `/slow` after a while, `/long` without end."""
    request = Request(scope, receive)
    path = request.url.path
    if path == "/read":
        body = await request.body()
        await Response(f"{len(body)} {scope['headers']!r}")(scope, receive, send)
    elif path == "/long":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * MB, "more_body": True})
            # A send to a caller who is gone returns at once.
            await asyncio.sleep(0.001)
    else:
        if path == "/slow":
            await asyncio.sleep(0.5)
        await PlainTextResponse(path)(scope, receive, send)


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 200_000],
        [b"GET / HTTP/1.1\r\nX-Long: ", *[b"x" * 1_000] * 200],
        [b"GET /" + b"x" * 200_000],
        [b"GET /", *[b"x" * 5_000] * 40],
        [b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A:b\r\n" * 50_000],
        [b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X" * 200_000],
        [b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 300 + b"\r\n"],
        [b"\r\n" * 100_000],
        [CHUNKED + b"1\r\na\r\n0\r\n" + b"X-Trailer: x\r\n" * 20_000],
        [CHUNKED + b"1\r\na\r\n0\r\nX-Trailer: ", *[b"x" * 1_000] * 200],
        [CHUNKED + b"1;" + b"x" * 200_000],
        [CHUNKED + b"1;a=", *[b"x" * 1_000] * 200],
    ],
    ids=[
        "header",
        "header in pieces",
        "path",
        "path in pieces",
        "tiny headers",
        "name of a header",
        "too many headers",
        "empty lines",
        "trailers",
        "trailer in pieces",
        "chunk extension",
        "chunk extension in pieces",
    ],
)
@pytest.mark.parametrize("path", [b"/", b"/read"])
def test_what_brings_a_request_no_further_is_answered_431(parts: list[bytes], path: bytes) -> None:
    async def check() -> None:
        async with serving(app) as server:
            pieces = [parts[0].replace(b"POST / ", b"POST " + path + b" "), *parts[1:]]
            answer = await answer_to(server, *pieces)
            if answer.startswith(b"HTTP/1.1 200"):
                # It was answered before its body was there; what else came was thrown away.
                assert path == b"/"
                assert b"connection: close" in answer
                assert answer.count(b"HTTP/1.1 ") == 1
            else:
                assert refused(answer) == (431, "request_headers_too_large")
            # The next one is served as if nothing had been.
            assert b" 200 " in await answer_to(server, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    on_uvloop(check)


def test_a_head_that_never_ends_costs_next_to_nothing() -> None:
    async def check() -> None:
        async with serving(app) as server, connected(server) as (reader, writer):
            answer = asyncio.create_task(until_closed(reader))
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ")
            used = time.process_time()
            with suppress(ConnectionError):
                async with asyncio.timeout(20):
                    for _ in range(300):
                        writer.write(b"x" * MB)
                        await writer.drain()
            assert time.process_time() - used < 2
            assert refused(await answer) == (431, "request_headers_too_large")

    on_uvloop(check)


def test_large_heads_within_the_bound_are_served() -> None:
    async def check() -> None:
        async with serving(app) as server:
            large = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Long: " + b"x" * 60_000 + b"\r\n\r\n"
            many = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + b"A: b\r\n" * 200 + b"\r\n"
            for request in (large, many):
                assert b" 200 " in await answer_to(server, request)

    on_uvloop(check)


def test_trailers_do_not_pass_for_headers() -> None:
    async def check() -> None:
        async with serving(app) as server:
            request = CHUNKED.replace(b" / ", b" /read ").replace(b"Host: a", b"Host: a\r\nConnection: close")
            answer = await answer_to(server, request + b"1\r\na\r\n0\r\nX-API-Key: smuggled\r\n\r\n")
            assert b"\r\n\r\n1 " in answer
            assert b"smuggled" not in answer

    on_uvloop(check)


@pytest.mark.parametrize("count", [2, 50, 5_000])
def test_pipelined_requests_are_all_answered_in_order_and_few_are_held(count: int) -> None:
    async def check() -> None:
        requests = [f"GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode() for number in range(count - 1)]
        last = f"GET /{count - 1} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        held: list[int] = []

        async def look(server: Server) -> None:
            while True:
                held.extend(len(one.pipeline) for one in server.protocols)
                await asyncio.sleep(0)

        async with serving(app) as server:
            looking = asyncio.create_task(look(server))
            answer = await answer_to(server, b"".join([*requests, last]))
            looking.cancel()
        bodies = [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
        assert bodies == [f"/{number}".encode() for number in range(count)]
        assert max(held) < 300

    on_uvloop(check)


def test_a_flood_of_pipelined_requests_is_held_back_while_earlier_ones_are_served() -> None:
    """Each of them asks for its body, and each answer makes uvicorn read on."""

    async def check() -> None:
        request = GET.replace(b"/ ", b"/read ")
        most_held = most_waiting = 0

        async def flood(writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(request * 20_000)
                await writer.drain()

        async with serving(app) as server, connected(server) as (_, writer):
            flooding = asyncio.create_task(flood(writer))
            # In each turn of the loop: between two writes there may be nothing to see.
            ends_at = time.monotonic() + 1
            async with asyncio.timeout(HANG_SECONDS):
                while time.monotonic() < ends_at or not most_held:
                    for one in server.protocols:
                        most_held = max(most_held, len(one._held))
                        most_waiting = max(most_waiting, len(one.pipeline))
                    await asyncio.sleep(0)
            flooding.cancel()
            writer.transport.abort()
        assert 0 < most_held < MB
        assert most_waiting < 300

    on_uvloop(check)


def test_a_body_and_the_requests_behind_it_are_told_apart() -> None:
    async def check() -> None:
        body = b"x" * 300_000
        post = HEAD.replace(b" / ", b" /read ") + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        last = GET.replace(b"Host: a", b"Host: a\r\nConnection: close")
        async with serving(app) as server:
            answer = await answer_to(server, post + GET * 400 + post + last)
        assert answer.count(b"HTTP/1.1 200 OK") == 403
        assert answer.count(b"\r\n\r\n300000 ") == 2

    on_uvloop(check)


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n"], ids=repr)
def test_a_head_must_come_in_time(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.3)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)

    async def check() -> None:
        async with serving(app) as server:
            with capture_logs() as logs:
                assert refused(await answer_to(server, sent)) == (408, "request_timeout")
                await asyncio.sleep(0.1)
            lines = [line for line in logs if line["event"] == "connection_refused"]
            assert [(line["code"], line["count"]) for line in lines] == [("request_timeout", 1)]

    on_uvloop(check)


def test_a_head_that_drips_does_not_buy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.3)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)

    async def check() -> None:
        async with serving(app) as server:
            drops = [bytes([byte]) for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyy"]
            assert refused(await answer_to(server, *drops, pause_seconds=0.05)) == (408, "request_timeout")

    on_uvloop(check)


def test_a_kept_connection_may_be_idle_and_a_slow_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)

    async def check() -> None:
        async with serving(app) as server, connected(server) as (reader, writer):
            for path in (b"/", b"/slow", b"/"):
                writer.write(GET.replace(b"/ ", path + b" ", 1))
                assert b" 200 " in await asyncio.wait_for(reader.read(4096), HANG_SECONDS)
                # Not for the first head: it counts from the beginning of the connection, when a machine may be busy.
                monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.2)
                await asyncio.sleep(0.4)

    on_uvloop(check)


@pytest.mark.parametrize("size_bytes", [100_000, 3 * MB])
def test_an_answer_that_comes_before_the_body_arrives_and_is_the_last(size_bytes: int) -> None:
    async def check() -> None:
        head = HEAD + f"Content-Length: {size_bytes}\r\n\r\n".encode()
        async with serving(app) as server:
            answer = await answer_to(server, head, *[b"x" * 50_000] * (size_bytes // 50_000 - 1))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
            # Neither is what follows the body taken for a request.
            parts = [b"x" * 50_000] * (size_bytes // 50_000 - 1)
            answer = await answer_to(server, head, *parts, GET, pause_seconds=0.01)
            assert answer.count(b"HTTP/1.1 ") == 1

    on_uvloop(check)


def test_who_goes_on_sending_after_the_last_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECONDS_MAX", 0.3)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)

    async def check() -> None:
        async with serving(app) as server, connected(server) as (_, writer):
            writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
            with suppress(ConnectionError):
                async with asyncio.timeout(HANG_SECONDS):
                    while server.protocols:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(0.01)
            assert server.protocols == []

    on_uvloop(check)


def test_an_answer_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "TAKEN_SECONDS", 0.3)
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)

    async def check() -> None:
        async with serving(app) as server:
            with capture_logs() as logs:
                async with connected(server) as (reader, writer):
                    reader._transport.pause_reading()  # type: ignore[attr-defined]
                    writer.write(GET.replace(b"/ ", b"/long "))
                    await until(lambda: asyncio.sleep(0, server.protocols != []), seconds=HANG_SECONDS)
                    await until(lambda: asyncio.sleep(0, server.protocols == []), seconds=HANG_SECONDS)
            assert [line["code"] for line in logs] == ["answer_not_read"]
            for task in server.running.server_state.tasks:
                task.cancel()

    on_uvloop(check)


@pytest.mark.parametrize(
    "garbage", [b"zanzibar\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 10, b"GET  HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_answered_in_our_form_and_logged_once(garbage: bytes) -> None:
    async def check() -> None:
        async with serving(app) as server:
            with capture_logs() as logs:
                assert refused(await answer_to(server, garbage)) == (400, "invalid_http")
                await asyncio.sleep(1.2)
            assert [line["code"] for line in logs if line["event"] == "connection_refused"] == ["invalid_http"]

    on_uvloop(check)


def test_garbage_behind_a_request_does_not_take_the_place_of_its_answer() -> None:
    async def check() -> None:
        async with serving(app) as server:
            answer = await answer_to(server, GET.replace(b"/ ", b"/slow ") + b"zanzibar\r\n\r\n")
            assert answer.count(b"HTTP/1.1 ") == 1
            assert answer.endswith(b"/slow")
            broken = CHUNKED.replace(b" / ", b" /read ") + b"5\r\nabcde\r\nzanzibar\r\n"
            assert refused(await answer_to(server, broken)) == (400, "invalid_http")

    on_uvloop(check)


def test_another_protocol_is_not_spoken() -> None:
    async def check() -> None:
        upgrade = GET.replace(b"Host: a", b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c")
        async with serving(app) as server:
            answer = await answer_to(server, upgrade, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", GET)
            assert answer.count(b"HTTP/1.1 ") == 1
            assert b"connection: close" in answer

    on_uvloop(check)


@pytest.mark.parametrize("length", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_body_beside_an_upgrade_is_refused_and_not_overlooked(length: bytes) -> None:
    async def check() -> None:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + length + b"\r\n\r\n"
        async with serving(app) as server:
            answer = await answer_to(server, head, b"hello")
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"Upgrade: leave that header out" in answer

    on_uvloop(check)


@pytest.mark.parametrize("digits", [b"0" * 25 + b"5", b"0" * 5_000 + b"5", b"1" * 21])
def test_a_length_that_is_read_in_two_ways_is_refused(digits: bytes) -> None:
    async def check() -> None:
        async with serving(app) as server:
            answer = await answer_to(
                server, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + digits + b"\r\n\r\nhello"
            )
            assert answer.startswith(b"HTTP/1.1 400 ")

    on_uvloop(check)


def test_an_error_keeps_the_name_that_the_caller_gave_the_request() -> None:
    async def check() -> None:
        async with serving(app) as server:
            head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\nX-Long: " + b"x" * 100_000
            assert b'"request_id":"mine-1"' in await answer_to(server, head)

    on_uvloop(check)
