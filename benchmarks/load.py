"""The callers: prepared requests over raw keep-alive connections, in a process of their own.

They share the machine with what they measure, so they cost as little as they can: no parsing beyond the status and
the length of an answer. An answer with another status than the expected one ends the measurement.
"""

import asyncio
import contextlib
import itertools
import json
import sys
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import uvloop

from benchmarks.figures import Figures, percentiles

ANSWER_SECONDS_MAX = 30
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_SHOWN_BYTES_MAX = 400


class LoadError(Exception):
    """What was measured did not do its work, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Load:
    port: int
    callers: int
    requests: Sequence[str]
    """Whole requests; each character is one byte."""
    status: int
    seconds: float
    is_once: bool = False
    """Send each request once, and end when all are answered; otherwise begin again with the first one."""
    per_second: float | None = None
    """Send at this pace, whatever the answers take, and count a latency from when its request was due."""
    is_dated: bool = False
    """Tell by the clock of the machine when each request was due, in the order of the requests."""


def http_request(
    method: str, path: str, headers: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
) -> str:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    content = ""
    if body is not None:
        content = json.dumps(body)
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join(lines) + "\r\n\r\n" + content


def answer_size(received: bytes) -> int | None:
    """The size of the answer that `received` begins with; None: its head is not complete yet. Raises LoadError."""
    head_end = received.find(_HEAD_END)
    if head_end < 0:
        return None
    head = received[:head_end].lower()
    found = head.find(_LENGTH)
    if found < 0:
        raise LoadError(f"an answer without a length: {received[:_SHOWN_BYTES_MAX]!r}")
    line_end = head.find(b"\r\n", found + len(_LENGTH))
    length = int(head[found + len(_LENGTH) : line_end if line_end >= 0 else head_end])
    return head_end + len(_HEAD_END) + length


class _Run:
    def __init__(self, load: Load) -> None:
        encoded = [request.encode("latin-1") for request in load.requests]
        self.requests: Iterator[bytes] = iter(encoded) if load.is_once else itertools.cycle(encoded)
        self.status = b" %d " % load.status
        self.interval_seconds = load.callers / load.per_second if load.per_second else 0.0
        self.end = 0.0
        self.latencies = array("d")
        self.due = array("d")
        self.callers_left = load.callers
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        if not self.over.done():
            self.over.set_exception(LoadError(reason))

    def leave(self) -> None:
        self.callers_left -= 1
        if not self.callers_left and not self.over.done():
            self.over.set_result(None)


class _Caller(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._due = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no instances of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._run.fail(f"a connection was closed: {error}")

    def start(self, due: float) -> None:
        self._due = due
        if self._run.interval_seconds:
            asyncio.get_running_loop().call_later(max(0.0, due - time.perf_counter()), self._send)
        else:
            self._send()

    def _send(self) -> None:
        request = next(self._run.requests, None) if self._due < self._run.end else None
        if request is None:
            self._run.leave()
            return
        self._run.due.append(self._due)
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        received = self._received + data if self._received else data
        try:
            size = answer_size(received)
        except LoadError as error:
            self._run.fail(str(error))
            return
        if size is None or len(received) < size:
            self._received = received
            return
        if received[8:13] != self._run.status or len(received) > size:
            self._run.fail(f"not the answer that was asked for: {received[:_SHOWN_BYTES_MAX]!r}")
            return
        self._received = b""
        self._run.latencies.append(now - self._due)
        if self._run.interval_seconds:
            self.start(self._due + self._run.interval_seconds)
        else:
            self._due = now
            self._send()


async def call(load: Load) -> Mapping[str, Any]:
    """Raises LoadError."""
    loop = asyncio.get_running_loop()
    run = _Run(load)
    callers: list[_Caller] = []
    try:
        for _ in range(load.callers):
            _, caller = await loop.create_connection(lambda: _Caller(run), "127.0.0.1", load.port)
            callers.append(caller)
        start, cpu_start = time.perf_counter(), time.process_time()
        run.end = start + load.seconds
        for index, caller in enumerate(callers):
            caller.start(start + run.interval_seconds * index / load.callers)
        async with asyncio.timeout(load.seconds + ANSWER_SECONDS_MAX):
            await run.over
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    except TimeoutError:
        raise LoadError(f"no answer within {ANSWER_SECONDS_MAX} s") from None
    finally:
        for caller in callers:
            caller.transport.abort()
    if not run.latencies:
        raise LoadError("nothing was asked")
    clock = time.time() - time.perf_counter()
    return {
        **({"due_at": [clock + due for due in run.due]} if load.is_dated else {}),
        "per_second": len(run.latencies) / seconds,
        "count": len(run.latencies),
        "callers_cpu_share": cpu_seconds / seconds,
        **percentiles([latency * 1000 for latency in run.latencies]),
    }


async def measure(load: Load) -> Figures:
    """Requests per second and latencies in ms, from a process that does nothing else. Raises LoadError."""
    figures: Figures = await _called(load)
    return figures


async def measure_dated(load: Load) -> tuple[Figures, Sequence[float]]:
    """The same, and when each request was due. Raises LoadError."""
    answer = await _called(replace(load, is_dated=True))
    return answer, answer.pop("due_at")


async def _called(load: Load) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate(json.dumps(asdict(load)).encode())
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise LoadError(f"the callers ended with {process.returncode}")
    answer = json.loads(output)
    if "error" in answer:
        raise LoadError(answer["error"])
    return answer


def main() -> None:
    load = Load(**json.load(sys.stdin))
    try:
        answer = uvloop.run(call(load))
    except (LoadError, OSError) as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
