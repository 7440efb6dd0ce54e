"""A server in this process, and callers who speak to it byte by byte."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from app.presentation.http.connections import Connections
from app.presentation.http.protocol import HttpProtocol

READ_SECONDS_MAX = 60
# Only what hangs comes to it, however busy the machine is.
HANG_SECONDS = 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Server:
    def __init__(self, port: int, running: uvicorn.Server, connections: Connections) -> None:
        self.port = port
        self.running = running
        self.connections = connections

    @property
    def protocols(self) -> list[HttpProtocol]:
        return cast(list[HttpProtocol], [*self.running.server_state.connections])


def http_of(connections: Connections) -> type[asyncio.Protocol]:
    return cast(type[asyncio.Protocol], partial(HttpProtocol, connections=connections))


@asynccontextmanager
async def serving(app: ASGIApp, *, connections_max: int = 1_000) -> AsyncIterator[Server]:
    connections = Connections(connections_max)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        config = uvicorn.Config(
            app,
            http=http_of(connections),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        running = uvicorn.Server(config)
        task = asyncio.create_task(running._serve([listener]))  # `serve` would take the signals
        while not running.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        try:
            yield Server(listener.getsockname()[1], running, connections)
        finally:
            running.should_exit = True
            await task


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Whatever comes until the server closes the connection."""
    received = bytearray()
    with suppress(ConnectionError):
        async with asyncio.timeout(READ_SECONDS_MAX):
            while part := await reader.read(65536):
                received += part
    return bytes(received)


async def answer_to(server: Server, *parts: bytes, pause_seconds: float = 0) -> bytes:
    async with connected(server) as (reader, writer):
        with suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
                if pause_seconds:
                    await asyncio.sleep(pause_seconds)
        return await until_closed(reader)


def refused(answer: bytes) -> tuple[int, str]:
    """Status and code of an answer that must be the only one and the last one, after a look at its form."""
    head, _, content = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1, answer[:500]
    assert b"connection: close" in lines
    assert b"content-type: application/problem+json" in lines
    problem: dict[str, Any] = json.loads(content)
    assert f"x-request-id: {problem['request_id']}".encode() in lines
    assert f"content-length: {len(content)}".encode() in lines
    assert int(head.split(b" ")[1]) == problem["status"]
    return problem["status"], problem["code"]
