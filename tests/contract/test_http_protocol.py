"""What reaches a caller's socket, from the real server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app import serving
from app.presentation.http.connections import Connections
from app.serving import Server
from tests.builders import until
from tests.contract.http_callers import HANG_SECONDS, http_of

BODY = b'{"balance_tokens":120}'
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
LAST_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
LARGE = b"x" * (8 * 1024 * 1024)


Run = Callable[[Coroutine[Any, Any, None]], None]
# The service runs on uvloop, whose transports raise where asyncio's say nothing.
both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    large = Request(scope).url.path == "/large"
    await Response(LARGE if large else BODY, media_type="application/json")(scope, receive, send)


@asynccontextmanager
async def server(app: ASGIApp = app) -> AsyncIterator[int]:
    """Its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, http=http_of(Connections(1_000)), log_config=None, access_log=False, lifespan="off"
        )
        running = uvicorn.Server(config)
        task = asyncio.create_task(running._serve([listener]))  # `serve` would take the signals
        while not running.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            await task


class Caller(asyncio.Protocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.something = asyncio.Event()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.something.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()


@both_loops
def test_an_answer_arrives_in_one_packet(run: Run) -> None:
    run(_an_answer_arrives_in_one_packet())


async def _an_answer_arrives_in_one_packet() -> None:
    async with server() as port:
        transport, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", port)
        for _ in range(50):
            transport.write(REQUEST)
            await asyncio.wait_for(caller.something.wait(), HANG_SECONDS)
            caller.something.clear()
        transport.close()

    assert len(caller.received) == 50
    assert all(answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(BODY) for answer in caller.received)


@both_loops
def test_the_last_answer_of_a_connection_arrives_whole(run: Run) -> None:
    run(_the_last_answer_of_a_connection_arrives_whole())


async def _the_last_answer_of_a_connection_arrives_whole() -> None:
    async with server() as port:
        transport, caller = await asyncio.get_running_loop().create_connection(Caller, "127.0.0.1", port)
        transport.write(REQUEST.replace(b"GET / ", b"GET /large ") + LAST_REQUEST)
        await asyncio.wait_for(caller.closed.wait(), HANG_SECONDS)

    first, last = b"".join(caller.received).split(b"HTTP/1.1 200 ")[1:]
    assert first.endswith(b"\r\n\r\n" + LARGE)
    assert last.endswith(b"\r\n\r\n" + BODY)


@both_loops
def test_a_caller_who_has_nothing_more_to_say_gets_its_answer(run: Run) -> None:
    run(_a_caller_who_has_nothing_more_to_say_gets_its_answer())


async def _a_caller_who_has_nothing_more_to_say_gets_its_answer() -> None:
    """Where the answer needs no wait: after one, uvicorn has closed the connection."""
    async with server() as port:
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), HANG_SECONDS)
            writer.close()
            assert answer.endswith(BODY)


@both_loops
def test_callers_who_go_away_at_any_moment_leave_no_error(run: Run) -> None:
    run(_callers_who_go_away_at_any_moment_leave_no_error())


async def _callers_who_go_away_at_any_moment_leave_no_error() -> None:
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with server() as port:
        for turn in range(60):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST * (1 + turn % 3))
            for _ in range(turn % 6):
                await asyncio.sleep(0)
            if turn % 2:
                # Not a farewell but a reset.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            reader.feed_eof()

    assert errors == []


@both_loops
def test_whoever_writes_to_a_caller_that_does_not_read_is_told_to_pause(run: Run) -> None:
    """Otherwise a long answer would be in memory as a whole."""
    made_bytes = 0

    async def long_answer(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made_bytes
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while made_bytes < 64 * 2**20:
            made_bytes += 2**20
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})

    async def check() -> None:
        async with server(long_answer) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(REQUEST)
            await until(lambda: asyncio.sleep(0, made_bytes > 0), seconds=HANG_SECONDS)
            await asyncio.sleep(0.5)
            writer.transport.abort()
            assert 0 < made_bytes < 64 * 2**20

    run(check())


@both_loops
def test_who_is_connected_but_not_accepted_when_the_server_stops_is_answered(run: Run) -> None:
    run(_who_is_connected_but_not_accepted_is_answered())


async def _who_is_connected_but_not_accepted_is_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Server(
            uvicorn.Config(app, http=http_of(Connections(1_000)), log_config=None, access_log=False, lifespan="off")
        )
        task = asyncio.create_task(running.serve([listener]))
        while not running.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        callers = [socket.create_connection(listener.getsockname(), timeout=HANG_SECONDS) for _ in range(8)]
        for caller in callers:
            caller.sendall(REQUEST)
        # The loop has not run since: all of them wait to be accepted.
        await running.shutdown([listener])
        for caller in callers:
            with caller:
                assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")
        running.should_exit = True
        await task


def test_no_more_are_accepted_at_a_stop_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "ACCEPTED_AT_STOP_MAX", 3)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        listener.setblocking(False)
        for _ in range(5):
            stack.enter_context(socket.create_connection(listener.getsockname()))

        accepted = [stack.enter_context(connection) for connection in serving._accept_all(listener)]

    assert len(accepted) == 3
