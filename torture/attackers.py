"""What strangers do to the service over raw sockets, and what others see of it meanwhile."""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import psutil

from tests.service_process import PROJECT_DIR

ANSWER_SECONDS_MAX = 40.0
SAMPLE_SECONDS = 0.05
# For somebody else to start, and to be served a while before the attack begins.
HEAD_START_SECONDS = 2.5
# What is freed goes back at once; this is for answers that are still on their way.
REST_SECONDS = 3.0


@dataclass(slots=True)
class Seen:
    """What an attack did to everybody else."""

    attackers: Counter[str] = field(default_factory=Counter)
    others_seconds: list[float] = field(default_factory=list)
    others_failures: list[str] = field(default_factory=list)
    seconds: float = 0
    processor_seconds: float = 0
    before_mb: float = 0
    peak_mb: float = 0
    after_mb: float = 0

    def p99_ms(self) -> float:
        ordered = sorted(self.others_seconds)
        return ordered[int(len(ordered) * 0.99)] * 1000 if ordered else 0.0

    @property
    def figures(self) -> dict[str, float | int | str]:
        return {
            "attackers": ", ".join(f"{count} {what}" for what, count in self.attackers.most_common()),
            "others": len(self.others_seconds),
            "others_p99_ms": round(self.p99_ms(), 1),
            "others_max_ms": round(max(self.others_seconds, default=0) * 1000, 1),
            "others_failed": len(self.others_failures),
            "seconds": round(self.seconds, 1),
            "processor_seconds": round(self.processor_seconds, 1),
            "mb_before_peak_after": f"{self.before_mb:.0f} {self.peak_mb:.0f} {self.after_mb:.0f}",
        }


async def exchange(port: int, request: bytes, rest: AsyncIterator[bytes] | None = None) -> str:
    """The status of the answer, on a connection of its own; or in a word why there is none."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                sending = asyncio.create_task(_send(writer, rest)) if rest is not None else None
                line = await reader.readline()
                if sending is not None:
                    sending.cancel()
                return line.split(b" ")[1].decode() if line.count(b" ") > 1 else "closed"
            finally:
                writer.close()
    except TimeoutError:
        return "unanswered"
    except OSError as error:
        return type(error).__name__


async def _send(writer: asyncio.StreamWriter, rest: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(OSError):
        async for part in rest:
            writer.write(part)
            await writer.drain()


def post(path: str, size_bytes: int, **headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {size_bytes}",
        "Content-Type: application/json",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def suffer_attack(
    process: psutil.Process, port: int, api_key: str, attack: Callable[[], Awaitable[Counter[str]]]
) -> Seen:
    seen = Seen()

    async def look_at_memory() -> None:
        while True:
            seen.peak_mb = max(seen.peak_mb, _mb(process))
            await asyncio.sleep(SAMPLE_SECONDS)

    somebody_else = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "torture.bystander", str(port), api_key),
        cwd=PROJECT_DIR,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    await asyncio.sleep(HEAD_START_SECONDS)
    looking = asyncio.create_task(look_at_memory())
    seen.before_mb, began, used = _mb(process), time.monotonic(), _processor_seconds(process)
    seen.attackers = await attack()
    seen.seconds, seen.processor_seconds = time.monotonic() - began, _processor_seconds(process) - used
    await asyncio.sleep(REST_SECONDS)
    looking.cancel()
    output, _ = await somebody_else.communicate(b"")
    seen.others_seconds, seen.others_failures = json.loads(output)
    seen.after_mb = _mb(process)
    return seen


def _mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
