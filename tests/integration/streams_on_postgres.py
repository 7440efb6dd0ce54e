"""Open streams over real connections, and whoever reads them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import uvicorn
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.presentation.http.connections import Connections
from app.presentation.http.state import ApiState
from tests.builders import until
from tests.contract.http_callers import http_of
from tests.integration.api_on_postgres import api_of
from tests.service_process import free_port

# Less than a wait may take, and longer than a busy machine needs.
HANG_SECONDS = 20


class Served:
    def __init__(self, http: httpx.AsyncClient, state: ApiState) -> None:
        self.http = http
        self.state = state

    @asynccontextmanager
    async def stream(self, key: str, path: str = "/events/stream", **headers: str) -> AsyncIterator["Messages"]:
        async with self.http.stream("GET", path, headers={"X-API-Key": key, **headers}) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-accel-buffering"] == "no"
            messages = Messages(answer)
            await messages.begun()
            yield messages


class Messages:
    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def begun(self) -> None:
        assert await anext(self._lines) == ": listening"
        assert await anext(self._lines) == "retry: 2000"
        self.place = int((await anext(self._lines)).removeprefix("id: "))
        assert await anext(self._lines) == ""

    async def next(self) -> dict[str, Any]:
        """The next message that is no comment; empty where the stream has ended."""
        found: dict[str, Any] = {}
        async with asyncio.timeout(HANG_SECONDS):
            async for line in self._lines:
                if not line and "data" in found:
                    return {**found, "data": json.loads(found["data"])}
                if not line:
                    # A place alone, with a comment.
                    found = {}
                    continue
                name, _, value = line.partition(": ")
                if name:
                    found[name] = value
        return {}

    async def next_place(self) -> int:
        """Of the next comment."""
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if name == "id":
                return int(value)
        raise AssertionError

    async def ends(self) -> None:
        assert await self.next() == {}


@asynccontextmanager
async def open_served(engine: AsyncEngine) -> AsyncIterator[Served]:
    api, port = api_of(engine), free_port()
    config = uvicorn.Config(
        api, port=port, lifespan="off", log_config=None, http=http_of(Connections(1_000)), ws="none"
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve())
    await until(lambda: asyncio.sleep(0, server.started))
    async with (
        EventSequencer(engine).working(),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        yield Served(http, cast(ApiState, api.state))
        api.state.streams.end_all()
        server.should_exit = True
        await running
