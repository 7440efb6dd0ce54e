"""A queue of fal whose runs are over at once, and whose outputs are as large and as fast as their prompt says.

`python -m benchmarks.film_server` says at which port it listens. The prompt `8000000 25` asks for one output of eight
million bytes that comes at 25 MB/s; without the second number it comes as fast as it is taken. Any other prompt is
answered with a small file.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

import uvloop
from aiohttp import web

from benchmarks.load import LoadError

START_SECONDS_MAX = 30
SMALL_BYTES = "20000"
CHUNK = b"\x00\x00\x00\x20ftypisom" + bytes(256 * 1024 - 12)


def application() -> web.Application:
    prompts: dict[str, str] = {}

    async def submit(request: web.Request) -> web.Response:
        asked = await request.json()
        request_id = str(uuid4())
        prompts[request_id] = asked["prompt"]
        url = f"http://{request.host}{request.path}/requests/{request_id}"
        urls = {"status_url": f"{url}/status", "response_url": url, "cancel_url": f"{url}/cancel"}
        return web.json_response({"status": "IN_QUEUE", "request_id": request_id, "queue_position": 0, **urls})

    async def status(request: web.Request) -> web.Response:
        url = f"http://{request.host}{request.path.removesuffix('/status')}"
        return web.json_response(
            {"status": "COMPLETED", "request_id": request.match_info["id"], "response_url": url, "metrics": {}}
        )

    async def result(request: web.Request) -> web.Response:
        size, _, pace = prompts[request.match_info["id"]].partition(" ")
        size, pace = (size, pace or "0") if size.isdigit() else (SMALL_BYTES, "0")
        url = f"http://{request.host}/file/{size}/{pace}/film.mp4"
        answer = {"images": [{"url": url, "content_type": "video/mp4", "width": 64, "height": 64}], "seeds": [1]}
        return web.json_response(answer, headers={"x-fal-request-id": request.match_info["id"]})

    routes = [
        web.get("/file/{size}/{pace}/{name}", _file),
        web.get("/{owner}/{app}/{rest:.+}/requests/{id}/status", status),
        web.get("/{owner}/{app}/{rest:.+}/requests/{id}", result),
        web.get("/{owner}/{app}/requests/{id}/status", status),
        web.get("/{owner}/{app}/requests/{id}", result),
        web.post("/{endpoint:.+}", submit),
    ]
    serving = web.Application()
    serving.add_routes(routes)
    return serving


async def _file(request: web.Request) -> web.StreamResponse:
    left, pace = int(request.match_info["size"]), float(request.match_info["pace"]) * 1e6
    answer = web.StreamResponse(headers={"Content-Type": "video/mp4", "Content-Length": str(left)})
    await answer.prepare(request)
    began_at, sent = time.monotonic(), 0
    while left > 0:
        chunk = CHUNK[:left]
        await answer.write(chunk)
        left, sent = left - len(chunk), sent + len(chunk)
        if pace and (early := sent / pace - (time.monotonic() - began_at)) > 0:
            await asyncio.sleep(early)
    return answer


async def serve() -> None:
    runner = web.AppRunner(application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(json.dumps(runner.addresses[0][1]), flush=True)
    # Until whoever started it has ended.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@dataclass(frozen=True, slots=True)
class FilmServer:
    url: str


@asynccontextmanager
async def filming() -> AsyncIterator[FilmServer]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.film_server"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            line = await process.stdout.readline()
        if not line:
            raise LoadError("the film server did not start")
        yield FilmServer(f"http://127.0.0.1:{int(line)}")
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(serve())
