import asyncio
from collections.abc import Callable
from typing import Any

JOINED_BYTES_MAX = 64 * 1024
# Whoever does not even take so much of an answer in so long is not reading it.
TAKEN_BYTES_MIN = 16 * 1024
TAKEN_SECONDS = 30.0


def _nothing() -> None: ...


class JoinedWrites:
    """A transport that sends together what is written to it in one turn of the loop.

    uvicorn writes the head of an answer and its body separately, and uvloop makes a packet of each. The caller then
    wakes up for the head alone, which costs a sixth of the time of a request.
    `end` closes the connection once everything is sent.
    """

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.transport = transport
        self._end = end
        self._written: list[bytes] = []
        self._size_bytes = 0
        self._is_closed = False
        self._sent_bytes = 0
        self._unread_since: float | None = None
        self._taken_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            asyncio.get_running_loop().call_soon(self.send)
        self._written.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > JOINED_BYTES_MAX:
            # From here on the transport must tell whoever writes to pause if the caller does not read.
            self.send()

    def is_closing(self) -> bool:
        return self._is_closed or self.transport.is_closing()

    def close(self) -> None:
        self.send()
        self._is_closed = True
        self._end()

    def forget(self) -> None:
        """The connection is lost: there is nothing left to end."""
        self._end = _nothing

    def send(self) -> None:
        # Nobody reads any more if the caller has closed the connection in the meantime.
        if self._written and not self.transport.is_closing():
            self._sent_bytes += self._size_bytes
            self.transport.write(b"".join(self._written))
        self._written.clear()
        self._size_bytes = 0

    def is_unread(self, now: float) -> bool:
        """Whether the caller has stopped to take what was sent. To be asked again and again."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if not unsent_bytes:
            self._unread_since = None
            return False
        taken_bytes = self._sent_bytes - unsent_bytes
        if self._unread_since is not None and now - self._unread_since < TAKEN_SECONDS:
            return False
        is_unread = self._unread_since is not None and taken_bytes - self._taken_bytes < TAKEN_BYTES_MIN
        self._unread_since, self._taken_bytes = now, taken_bytes
        return is_unread
