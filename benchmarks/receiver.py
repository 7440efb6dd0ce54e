"""Whoever is told: the endpoints of customers, in a process that does nothing else, and when each POST arrived.

`python -m benchmarks.receiver KEY_SET` says at which port it listens, and at each line that it reads what has arrived
since the last one, by the clock of the machine. The path says how an endpoint answers: `/hook/...` at once,
`/fail/...` with 500, `/hang/...` never. A GET is answered with the key set, by which the service knows fal.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import uvloop

from benchmarks.load import LoadError, answer_size

START_SECONDS_MAX = 30
REPORT_SECONDS_MAX = 30
# A job's view of a whole backlog is one line.
LINE_BYTES_MAX = 64 * 2**20
_JOB = re.compile(rb'"job_id":"([^"]+)"')
_HEAD_END = b"\r\n\r\n"


def _answer(status: str, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


_DELIVERED, _FAILED = _answer("200 OK"), _answer("500 Internal Server Error")


class _Arrivals:
    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.first_at: dict[str, float] = {}
        self.count: Counter[str] = Counter()


class _Endpoint(asyncio.Protocol):
    def __init__(self, arrivals: _Arrivals, key_set: bytes) -> None:
        self._arrivals = arrivals
        self._key_set = key_set
        self._received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        received = self._received + data
        if received.startswith(b"GET "):
            if received.endswith(_HEAD_END):
                self.transport.write(_answer("200 OK", self._key_set))
            return
        size = answer_size(received)
        if size is None or len(received) < size:
            self._received = received
            return
        self._received = b""
        how = received[len(b"POST /") :].partition(b"/")[0].decode()
        self._arrivals.count[how] += 1
        if how == "hook":
            if found := _JOB.search(received):
                self._arrivals.first_at.setdefault(found[1].decode(), now)
            self.transport.write(_DELIVERED)
        elif how == "fail":
            self.transport.write(_FAILED)


async def receive(key_set: bytes) -> None:
    loop = asyncio.get_running_loop()
    arrivals = _Arrivals()
    server = await loop.create_server(lambda: _Endpoint(arrivals, key_set), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"first_at": arrivals.first_at, "count": arrivals.count}), flush=True)
        arrivals.forget()


@dataclass(frozen=True, slots=True)
class Arrived:
    """Since the last report."""

    first_at: Mapping[str, float]
    """Of each job's event, at an endpoint that answers."""
    count: Mapping[str, int]
    """Of POSTs, repeated ones too, by how their endpoint answers."""


@dataclass(frozen=True, slots=True)
class Receiver:
    port: int
    _process: asyncio.subprocess.Process

    async def report(self) -> Arrived:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        async with asyncio.timeout(REPORT_SECONDS_MAX):
            answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return Arrived(**answer)


@asynccontextmanager
async def receiving(key_set: Mapping[str, Any]) -> AsyncIterator[Receiver]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.receiver",
        json.dumps(key_set),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            line = await process.stdout.readline()
        if not line:
            raise LoadError("the receiver did not start")
        yield Receiver(int(line), process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def main() -> None:
    uvloop.run(receive(sys.argv[1].encode()))


if __name__ == "__main__":
    main()
