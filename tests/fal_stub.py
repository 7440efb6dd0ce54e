"""A raw HTTP/1.1 server on loopback whose every answer, or lack of one, the test writes down beforehand.

It keeps no state of fal's: a behaviour gets the connection and does what the test needs, bytes and all.
"""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

from app.application.ports.provider import ProviderRequest

MODEL_ID = "fal-ai/wan-25-preview/text-to-image"
NGINX_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
MARK = {"x-fal-request-id": "r-1"}


def request_at(url: str) -> ProviderRequest:
    base = f"{url}/fal-ai/wan-25-preview/requests/r-1"
    return ProviderRequest(id="r-1", status_url=f"{base}/status", response_url=base, cancel_url=f"{base}/cancel")


def accepted(url: str, **changes: Any) -> dict[str, Any]:
    """fal's answer to a submission."""
    request = request_at(url)
    urls = {name: getattr(request, name) for name in ("status_url", "response_url", "cancel_url")}
    return {"status": "IN_QUEUE", "request_id": request.id, "queue_position": 0, **urls, **changes}


@dataclass(frozen=True, slots=True)
class Seen:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


# True: the connection stays open for the next request.
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


def reply(status: int = 200, body: Any = b"", headers: Mapping[str, str] | None = None) -> Behaviour:
    """Bytes go out as they are, everything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return raw(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + content, stays_open=True)


def raw(data: bytes, *, stays_open: bool = False) -> Behaviour:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await writer.drain()
        return stays_open

    return behave


async def drop(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> bool:
    return False


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    # Without lingering the system sends RST in place of FIN.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> bool:
    await asyncio.Event().wait()
    return False


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Always something new before a read limit strikes, and never an end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"[" * 65536)
        await writer.drain()


def reply_then_drop_the_next(behaviour: Behaviour) -> Behaviour:
    """An idle connection that the server closes at the very moment when the client uses it again."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await behaviour(reader, writer)
        await reader.read(1)
        return False

    return behave


@dataclass
class FalStub:
    url: str = ""
    script: deque[Behaviour] = field(default_factory=deque)
    otherwise: Behaviour = field(default_factory=lambda: reply(501))
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    reads_bodies: bool = True
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def then(self, *behaviours: Behaviour) -> None:
        self.script.extend(behaviours)

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(request.method, request.target) for request in self.seen]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        try:
            while request := await self._read_request(reader, connection):
                self.seen.append(request)
                self.arrived.set()
                behaviour = self.script.popleft() if self.script else self.otherwise
                if not await behaviour(reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _read_request(self, reader: asyncio.StreamReader, connection: int) -> Seen | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0)) if self.reads_bodies else 0
        return Seen(method, target, headers, await reader.readexactly(length), connection)


@asynccontextmanager
async def running_stub(ssl_context: SSLContext | None = None) -> AsyncIterator[FalStub]:
    stub = FalStub()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(stub.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=ssl_context)
    scheme = "https" if ssl_context else "http"
    stub.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield stub
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
