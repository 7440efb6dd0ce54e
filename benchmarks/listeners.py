"""Whoever listens: many open streams, in a process that does nothing else, and how late what they hear is.

`python -m benchmarks.listeners`: reads what it shall do as JSON, says `open` when all streams are, and at its next
line what came of them.
"""

import asyncio
import json
import re
import sys
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, cast

import uvloop

from benchmarks.figures import Figures, percentiles
from benchmarks.load import LoadError

# Opened so many at a time: a listener's backlog is bounded.
OPENED_AT_ONCE = 100
OPEN_SECONDS_MAX = 120
END_SECONDS_MAX = 10
_END = re.compile(rb'"type":"generation\.completed".*?"updated_at":"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Listeners:
    port: int
    requests: Sequence[str]
    """One for each listener."""


class _Listener(asyncio.Protocol):
    """Open once its answer has begun; notes of each end how long ago it was committed, by the clock of the machine."""

    def __init__(self, request: bytes, lags: "array[float]") -> None:
        self._request = request
        self._lags = lags
        self._received = b""
        self.is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.is_open.done():
            self.is_open.set_exception(LoadError(f"a stream was closed: {error}"))

    def data_received(self, data: bytes) -> None:
        now = time.time()
        received = self._received + data
        if not self.is_open.done():
            if received[9:12] != b"200":
                self.is_open.set_exception(LoadError(f"no stream: {received[:400]!r}"))
                return
            self.is_open.set_result(None)
        for found in _END.finditer(received):
            ended_at = datetime.fromisoformat(found[1].decode()).timestamp()
            self._lags.append((now - ended_at) * 1000)
        # A message may come in pieces: what follows its last blank line is not whole yet.
        self._received = received[received.rfind(b"\n\n") + 2 :] if b"\n\n" in received else received


async def _open(listener: _Listener, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: listener, "127.0.0.1", port)
    await listener.is_open


async def listen(listeners: Listeners) -> None:
    lags = array("d")
    found: list[_Listener] = []
    for start in range(0, len(listeners.requests), OPENED_AT_ONCE):
        some = [_Listener(request.encode("latin-1"), lags) for request in listeners.requests[start:][:OPENED_AT_ONCE]]
        await asyncio.gather(*(_open(one, listeners.port) for one in some))
        found += some
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    lost = sum(one.transport.is_closing() for one in found)
    print(json.dumps({"lost": lost, "count": len(lags), **(percentiles(sorted(lags)) if lags else {})}), flush=True)


@asynccontextmanager
async def listening(listeners: Listeners, heard: Figures) -> AsyncIterator[None]:
    """All of them are open meanwhile; what came of them is in `heard` afterwards. Raises LoadError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.listeners", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(listeners)).encode() + b"\n")
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            if await process.stdout.readline() != b"open\n":
                raise LoadError("not all streams could be opened")
        yield
        process.stdin.write(b"\n")
        async with asyncio.timeout(END_SECONDS_MAX):
            answer: dict[str, Any] = json.loads(await process.stdout.readline())
        if answer["lost"]:
            raise LoadError(f"{answer['lost']} streams were closed")
        heard.update(answer)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def main() -> None:
    uvloop.run(listen(Listeners(**json.loads(sys.stdin.readline()))))


if __name__ == "__main__":
    main()
