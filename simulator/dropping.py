"""Ending a connection without an answer, which ASGI has no message for.

An application that raises or returns in silence makes uvicorn answer with 500, and a status line cannot be taken
back. Only the protocol has the connection's transport. `uvicorn.Config(http=...)` takes a class of one's own, and
what a protocol finds in its `app_state` reaches `request.state`: so the transport's `abort` gets to the application,
with httptools and with h11 alike.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

_DROP = "drop_connection"
FLUSH_SECONDS = 0.01


class LendsItsConnection(asyncio.Protocol):
    """To be mixed into a protocol of uvicorn."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, _DROP: transport.abort}
        super().connection_made(transport)


class DroppableProtocol(LendsItsConnection, AutoHTTPProtocol):  # type: ignore[valid-type,misc]
    """What the simulator's server has to use."""


class NoAnswer(Response):
    """Stands where a response does; the client sees the connection end before a single byte of an answer."""

    async def __call__(self, scope: Scope, receive: Receive, _: Send) -> None:
        scope["state"][_DROP]()
        # uvicorn takes silence for a mistake until it knows that the connection is gone.
        while (await receive())["type"] != "http.disconnect":
            pass


class CutAnswer(Response):
    """Half of the body that its length announces, then the connection ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        # What is in the transport's buffer would be thrown away.
        await asyncio.sleep(FLUSH_SECONDS)
        await NoAnswer()(scope, receive, send)


class SlowAnswer(StreamingResponse):
    def __init__(
        self,
        content: bytes,
        status_code: int,
        headers: Mapping[str, str],
        bytes_per_second: int,
        is_stopping: Callable[[], bool],
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(content), bytes_per_second):
                if is_stopping():
                    return
                yield content[start : start + bytes_per_second]
                await asyncio.sleep(1)

        super().__init__(pieces(), status_code, {**headers, "content-length": str(len(content))})
