"""uvicorn's HTTP protocol with bounds on what one connection may send, hold and leave unread."""

import asyncio
from enum import Enum, auto
from typing import Any, cast

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.presentation.http.connection_refusals import refusal
from app.presentation.http.connections import Connections
from app.presentation.http.errors import (
    InvalidHttp,
    RefusedRequest,
    RequestHeadersTooLarge,
    RequestTimeout,
    TooManyConnections,
)
from app.presentation.http.transports import JoinedWrites

log = structlog.get_logger(__name__)

# Also of what stands around the parts of a chunked body, and of anything else that brings a request no further.
HEAD_BYTES_MAX = 64 * 1024
HEADERS_MAX = 256
# From its first byte, or from the beginning of the connection. Only a body may take longer.
HEAD_SECONDS_MAX = 10.0
# A longer number is read in one way by the parser and in another one behind it.
LENGTH_DIGITS_MAX = 20
_OF_A_BODY = frozenset({b"content-length", b"transfer-encoding"})
# Some hundred of the shortest requests fit in: no more are parsed before the first of them is answered.
PIECE_BYTES = 4 * 1024
# What is still sent to us after the last answer is thrown away; closed at once, the caller would lose that answer.
LINGER_SECONDS_MAX = 5.0
LINGER_BYTES_MAX = 17 * 1024 * 1024
# In a stop, for a request that is on its way while its connection looks idle.
FAREWELL_SECONDS = 0.5


class _Stage(Enum):
    IDLE = auto()
    HEAD = auto()
    BODY = auto()


_IDLE, _HEAD, _BODY = _Stage.IDLE, _Stage.HEAD, _Stage.BODY


class _Flow(FlowControl):
    """uvicorn reads on whenever a request asks for its body, and with each answer. While requests of this connection
    wait that would only add to them.
    """

    is_held = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.is_held:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """Whatever is refused here never reaches the application: it is answered, logged, and ends the connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections
        self._stage = _HEAD
        self._since = self.loop.time()
        self._has_progress = False
        self._bytes_without_progress = 0
        self._body_bytes = 0
        self._held = b""
        self._keeps_alive = True
        # Nothing more is read of what the caller sends; the bytes of it that came since the last answer.
        self._is_deaf = False
        self._lingered_bytes: int | None = None
        self._fault: RefusedRequest | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._joined = JoinedWrites(transport, self._end)
        super().connection_made(cast(asyncio.Transport, self._joined))
        self.flow: _Flow = _Flow(cast(asyncio.Transport, self._joined))
        if self._connections.admit(self):
            return
        if self._connections.may_turn_away(self):
            self._refuse(TooManyConnections())
        else:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.lost(self)
        self._held = b""
        super().connection_lost(exc)
        # Otherwise each would refer to the other, and what was received would stay until the collector comes.
        self._joined.forget()

    def eof_received(self) -> None:
        """Sends what is left, because asyncio closes the transport after this call."""
        self._joined.send()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._throw_away(len(data))
            return
        self._unset_keepalive_if_required()
        if self._held or self.pipeline:
            self._hold(self._held + data)
            return
        if self._stage is _IDLE:
            self._stage, self._since = _HEAD, self.loop.time()
        if len(data) <= PIECE_BYTES:
            self._feed(data)
        else:
            self._feed_in_pieces(memoryview(data))

    def _feed_in_pieces(self, data: memoryview) -> None:
        while data and not self._is_deaf:
            if self.pipeline:
                self._hold(bytes(data))
                return
            size_bytes = max(PIECE_BYTES, self._rest_of_body_bytes())
            self._feed(data[:size_bytes])
            data = data[size_bytes:]

    def _hold(self, data: bytes) -> None:
        """Keep it unparsed until the requests that wait already are answered, and take no more."""
        self._held, self.flow.is_held = data, True
        self.flow.pause_reading()

    def _rest_of_body_bytes(self) -> int:
        if self._stage is not _BODY:
            return 0
        declared = next((value for name, value in self.headers if name == b"content-length"), b"0")
        return int(declared) - self._body_bytes

    def _feed(self, piece: bytes | memoryview) -> None:
        self._has_progress = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # We speak nothing else: the request is answered, and what follows it is in another protocol.
            self._is_deaf, self._keeps_alive = True, False
            self.cycle.keep_alive = False
            return
        except httptools.HttpParserError as error:
            self._refuse(self._fault or _invalid(error))
            return
        if self._has_progress:
            self._bytes_without_progress = 0
            return
        # The parser and uvicorn put the pieces of a line together again and again, which takes quadratic time.
        self._bytes_without_progress += len(piece)
        if self._bytes_without_progress > HEAD_BYTES_MAX:
            self._refuse(
                RequestHeadersTooLarge(f"A request line with its headers must have at most {HEAD_BYTES_MAX} bytes.")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage is _BODY:
            # A trailer: nothing here expects one, and behind the head it would pass for a header.
            return
        if len(self.headers) >= HEADERS_MAX:
            self._fault = RequestHeadersTooLarge(f"A request must have at most {HEADERS_MAX} headers.")
            raise self._fault
        # As uvicorn does it: a call for each header of each request costs more than all that it does.
        name = name.lower()
        if len(value) > LENGTH_DIGITS_MAX and name == b"content-length":
            self._fault = InvalidHttp("The Content-Length has too many digits.")
            raise self._fault
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._has_progress = True
        self._connections.asks(self)
        if self.parser.should_upgrade() and any(name in _OF_A_BODY and value != b"0" for name, value in self.headers):
            # The parser would take the body for the other protocol, and the request for one without a body.
            self._fault = InvalidHttp("A request with a body must not ask for an Upgrade: leave that header out.")
            raise self._fault
        super().on_headers_complete()
        self._stage, self._body_bytes = _BODY, 0
        # Until the body is there: an answer that comes before it is the last one of the connection.
        self._keeps_alive, self.cycle.keep_alive = self._keeps_alive and self.cycle.keep_alive, False

    def on_body(self, body: bytes) -> None:
        self._has_progress = True
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_progress = True
        self._stage = _IDLE
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keeps_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._connections.idles(self)
        if self._held and not self.pipeline and not self.transport.is_closing():
            held, self._held, self.flow.is_held = self._held, b"", False
            self.data_received(held)
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """A connection that looks idle may have a request on its way, which a close would reset."""
        self._keeps_alive = False
        if self._is_waiting():
            self.loop.call_later(FAREWELL_SECONDS, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        if self._is_waiting():
            self.transport.close()

    def _is_waiting(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def check(self, now: float) -> None:
        if self._lingered_bytes is not None:
            if now - self._since > LINGER_SECONDS_MAX:
                self.cut()
        elif self._joined.is_unread(now):
            self._note("answer_not_read", "The caller does not read its answer.")
            self.cut()
        elif self._stage is _HEAD and now - self._since > HEAD_SECONDS_MAX and not (self._is_deaf or self.pipeline):
            self._refuse(RequestTimeout())

    def cut(self) -> None:
        self._joined.transport.abort()

    def _refuse(self, error: RefusedRequest) -> None:
        """Answers it, unless somebody still waits for the answer to an earlier request."""
        self._is_deaf, self._keeps_alive = True, False
        request_id, answer = refusal(error, self.headers or ())
        self._note(error.code, error.detail, status=error.status, request_id=request_id)
        cycle = self.cycle
        if not self._is_waiting():
            cycle.keep_alive = False
            if self._stage is not _BODY:
                return
            # Its own body is at fault: whoever reads that is told that the caller is gone.
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
        self.transport.write(answer)
        self.transport.close()

    def _note(self, code: str, reason: str, *, status: int | None = None, request_id: str | None = None) -> None:
        address = self.client[0] if self.client else None
        self._connections.refusals.note(code, reason, status=status, request_id=request_id, address=address)

    def _end(self) -> None:
        """Closes the connection, or first lets the caller read the last answer while we throw away what it sends."""
        transport = self._joined.transport
        if transport.is_closing():
            return
        if self._stage is _IDLE and not self._is_deaf:
            transport.close()
            return
        self._is_deaf, self._lingered_bytes, self._since = True, 0, self.loop.time()
        if self.cycle is not None:
            self.cycle.body = bytearray()
        self._connections.idles(self)
        transport.write_eof()
        self.flow.is_held = False
        self.flow.resume_reading()

    def _throw_away(self, size_bytes: int) -> None:
        if self._lingered_bytes is None:
            return
        self._lingered_bytes += size_bytes
        if self._lingered_bytes > LINGER_BYTES_MAX:
            self.cut()


def _invalid(error: httptools.HttpParserError) -> InvalidHttp:
    cause = error.__context__
    if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(cause, httptools.HttpParserError):
        log.error("protocol_failed", exc_info=cause)
    return InvalidHttp()
