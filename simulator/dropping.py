"""Ending a connection without an answer, which ASGI has no message for.

An application that raises or returns in silence makes uvicorn answer with 500, and a status line cannot be taken
back. Only the protocol has the connection's transport. `uvicorn.Config(http=...)` takes a class of one's own, and
what a protocol finds in its `app_state` reaches `request.state`: so the transport's `abort` gets to the application,
with httptools and with h11 alike.
"""

import asyncio
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

_DROP = "drop_connection"


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][_DROP]()
        # uvicorn takes silence for a mistake until it knows that the connection is gone.
        while (await receive())["type"] != "http.disconnect":
            pass
