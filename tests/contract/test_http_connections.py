"""How many may be connected, and who makes room."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from app.presentation.http import connections, protocol
from tests.builders import until
from tests.contract.http_callers import GET, HANG_SECONDS, answer_to, connected, refused, serving, until_closed

CONNECTIONS_MAX = 5
LAST = GET.replace(b"Host: a", b"Host: a\r\nConnection: close")


def on_uvloop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    uvloop.run(test())


class App:
    """Answers at once, and `/slow` when it may."""

    def __init__(self) -> None:
        self.slow = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            self.slow += 1
            await self.may_answer.wait()
        await PlainTextResponse(scope["path"])(scope, receive, send)

    async def until_busy(self, count: int) -> None:
        """So many wait for their answers."""
        await until(lambda: asyncio.sleep(0, self.slow == count), seconds=HANG_SECONDS)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n"], ids=["silent", "half a head"])
def test_who_asks_for_nothing_makes_room_the_oldest_first(sent: bytes) -> None:
    async def check() -> None:
        async with serving(App(), connections_max=CONNECTIONS_MAX) as server, AsyncExitStack() as stack:
            with capture_logs() as logs:
                waiting = []
                for _ in range(CONNECTIONS_MAX):
                    reader, writer = await stack.enter_async_context(connected(server))
                    writer.write(sent)
                    await asyncio.sleep(0.01)
                    waiting.append(reader)
                for _ in range(3):
                    assert b" 200 " in await answer_to(server, LAST)
                assert await until_closed(waiting[0]) == b""
                assert not waiting[-1].at_eof()
            full = [line for line in logs if line["event"] == "connections_full"]
            assert [(line["connections_max"], line["cut_off"]) for line in full] == [(CONNECTIONS_MAX, 1)]

    on_uvloop(check)


def test_idle_ones_go_after_silent_ones_and_busy_ones_never() -> None:
    async def check() -> None:
        app = App()
        async with serving(app, connections_max=CONNECTIONS_MAX) as server, AsyncExitStack() as stack:
            idle, idle_writer = await stack.enter_async_context(connected(server))
            idle_writer.write(GET)
            assert b" 200 " in await idle.read(4096)
            busy = []
            for _ in range(CONNECTIONS_MAX - 2):
                reader, writer = await stack.enter_async_context(connected(server))
                writer.write(LAST.replace(b"/ ", b"/slow ", 1))
                busy.append(reader)
            await app.until_busy(CONNECTIONS_MAX - 2)
            silent, _ = await stack.enter_async_context(connected(server))
            await until(lambda: asyncio.sleep(0, len(server.protocols) == CONNECTIONS_MAX), seconds=HANG_SECONDS)

            first, writer = await stack.enter_async_context(connected(server))
            writer.write(LAST.replace(b"/ ", b"/slow ", 1))
            assert await until_closed(silent) == b""
            assert not idle.at_eof()
            second, writer = await stack.enter_async_context(connected(server))
            writer.write(LAST.replace(b"/ ", b"/slow ", 1))
            assert await until_closed(idle) == b""
            await app.until_busy(CONNECTIONS_MAX)
            assert refused(await answer_to(server, LAST)) == (503, "too_many_connections")
            assert refused(await answer_to(server)) == (503, "too_many_connections")
            app.may_answer.set()
            for reader in (*busy, first, second):
                assert b" 200 " in await until_closed(reader)
            assert b" 200 " in await answer_to(server, LAST)

    on_uvloop(check)


def test_a_crowd_is_turned_away_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(protocol, "LINGER_SECONDS_MAX", 0.2)

    async def check() -> None:
        app = App()
        async with serving(app, connections_max=CONNECTIONS_MAX) as server, AsyncExitStack() as stack:
            busy = []
            for _ in range(CONNECTIONS_MAX):
                reader, writer = await stack.enter_async_context(connected(server))
                writer.write(LAST.replace(b"/ ", b"/slow ", 1))
                busy.append(reader)
            await app.until_busy(CONNECTIONS_MAX)
            answers = await asyncio.gather(*(answer_to(server, LAST) for _ in range(300)), return_exceptions=True)
            answered = [answer for answer in answers if isinstance(answer, bytes) and answer]
            # Those who were turned away make no room for the next ones.
            assert {answer.split(b" ")[1] for answer in answered} == {b"503"}
            app.may_answer.set()
            for reader in busy:
                assert b" 200 " in await until_closed(reader)
            await until(lambda: asyncio.sleep(0, server.protocols == []), seconds=HANG_SECONDS)
            left = (server.connections._all, server.connections._turned_away, server.connections._idle)
            assert not any(left)

    on_uvloop(check)


@pytest.mark.alone
def test_a_request_on_its_way_at_a_stop_is_still_answered() -> None:
    async def check() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(App()))
            (fresh, fresh_writer), (kept, kept_writer) = [
                await stack.enter_async_context(connected(server)) for _ in range(2)
            ]
            kept_writer.write(GET)
            assert b" 200 " in await kept.read(4096)
            server.running.should_exit = True
            await asyncio.sleep(0.25)
            fresh_writer.write(GET)
            kept_writer.write(GET)
            for reader in (fresh, kept):
                answer = await until_closed(reader)
                assert b" 200 " in answer
                assert b"connection: close" in answer

    on_uvloop(check)
