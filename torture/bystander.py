"""Somebody else, in a process of its own: it looks at its balance and starts jobs, each time on a new connection.

`python -m torture.bystander PORT KEY` goes on until its standard input ends, and then says what it has seen.
"""

import asyncio
import contextlib
import json
import sys
import time

from torture.attackers import exchange, post
from torture.callers import START

PAUSE_SECONDS = 0.03


async def stand_by(port: int, api_key: str) -> None:
    body = json.dumps({"prompt": "somebody else"}).encode()
    balance = f"GET /balance HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {api_key}\r\nConnection: close\r\n\r\n".encode()
    start = post(START, len(body), X_API_Key=api_key, Connection="close") + body
    seconds: list[float] = []
    failures: list[str] = []

    async def ask() -> None:
        while True:
            for request, expected in ((balance, "200"), (start, "202")):
                began = time.perf_counter()
                status = await exchange(port, request)
                seconds.append(time.perf_counter() - began)
                if status != expected:
                    failures.append(f"{status} in the place of {expected}")
                await asyncio.sleep(PAUSE_SECONDS)

    asking = asyncio.create_task(ask())
    await asyncio.to_thread(sys.stdin.read)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    sys.stdout.write(json.dumps([seconds, failures]))


if __name__ == "__main__":
    asyncio.run(stand_by(int(sys.argv[1]), sys.argv[2]))
