"""HTTP until a signal, and what the signals do."""

import asyncio
import gc
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from app.bootstrap import Runtime
from app.domain.catalogue import Catalogue
from app.infrastructure.background.runner import Runner
from app.infrastructure.settings import Settings
from app.main import create_app
from app.presentation.http.connections import Connections
from app.presentation.http.protocol import HttpProtocol

log = structlog.get_logger(__name__)

BACKLOG = 2048
# Connections that nobody has admitted yet: fewer than the descriptors that are left for everything else.
ACCEPTED_AT_STOP_MAX = 200
# Also where nobody looks at /readyz: requests that were on their way at the signal are still answered.
DRAIN_SECONDS_MIN = 0.3
STOP_SECONDS_MAX = 30
STOP_NOW_SECONDS_MAX = 5
# For the requests that still run when the drain is over.
REQUEST_SECONDS_MAX = 10
YOUNG_OBJECTS_MAX = 5_000
# `make` passes on a SIGTERM that its whole process group has got, and so do some supervisors.
SAME_SIGNAL_SECONDS = 1


def handle_stop_signals(stop: Callable[[], object], stop_now: Callable[[], object]) -> None:
    """Call `stop` at the first SIGTERM or Ctrl-C, and `stop_now` from the second on. Replaces earlier handlers.

    Whatever then hangs, the process ends STOP_SECONDS_MAX after the first, and STOP_NOW_SECONDS_MAX after the second.
    """
    loop = asyncio.get_running_loop()
    stopping_since: float | None = None

    def handle() -> None:
        nonlocal stopping_since
        if stopping_since is None:
            stopping_since = loop.time()
            _exit_after(STOP_SECONDS_MAX)
            stop()
        elif loop.time() - stopping_since > SAME_SIGNAL_SECONDS:
            _exit_after(STOP_NOW_SECONDS_MAX)
            stop_now()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle)


def _exit_after(seconds: float) -> None:
    """From a thread of its own: it must work also where the event loop hangs."""

    def end() -> None:
        log.error("stop_overdue", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def spare_the_collector() -> None:
    """What lives once the process is ready lives as long as it does. Python's garbage collector would walk through all
    of it again and again, for a third of the time that a request takes.
    """
    gc.collect()
    gc.freeze()
    # Requests that are being served hold so many objects: to walk through them each time finds nothing.
    gc.set_threshold(YOUNG_OBJECTS_MAX, 10, 10)


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals are ours: uvicorn would stop accepting at the first one."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes in first whoever has connected and is not accepted yet: closing the listener would reset them."""
        waiting = [connection for listener in sockets or () for connection in _accept_all(listener)]
        for server in self.servers:
            server.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """`listener` does not block, as the event loop has set it."""
    with suppress(OSError):
        for _ in range(ACCEPTED_AT_STOP_MAX):
            yield listener.accept()[0]


class _Stop:
    """The runner stops at the signal, and /readyz says so. Requests are served on until proxies have seen that."""

    def __init__(self, api: FastAPI, server: Server, drain_seconds: float) -> None:
        self._api = api
        self._server = server
        self._drain_seconds = drain_seconds
        self._runner: Runner | None = None

    def include(self, runner: Runner) -> None:
        """The signal may have come before there was a runner."""
        self._runner = runner
        if self._api.state.is_stopping:
            runner.begin_stop()

    def begin(self) -> None:
        log.info("stop_begun", drain_seconds=self._drain_seconds)
        self._api.state.is_stopping = True
        self._api.state.streams.end_all()
        if self._runner is not None:
            self._runner.begin_stop()
        asyncio.get_running_loop().call_later(max(self._drain_seconds, DRAIN_SECONDS_MIN), self._close)

    def _close(self) -> None:
        self._server.should_exit = True

    def force(self) -> None:
        log.warning("stop_forced")
        self._server.should_exit = self._server.force_exit = True
        if self._runner is not None:
            self._runner.begin_stop(at_once=True)


async def serve_until_stopped(
    settings: Settings,
    catalogue: Catalogue,
    listener: socket.socket,
    on_ready: Callable[[Runtime], Awaitable[None]],
    *,
    connections_max: int,
) -> bool:
    """False if it could not start."""

    async def get_ready(runtime: Runtime) -> None:
        stop.include(runtime.runner)
        await on_ready(runtime)
        spare_the_collector()

    api = create_app(settings, catalogue, on_ready=get_ready)
    # The others are for requests: a stream takes its connection for as long as it likes.
    api.state.streams.streams_max = connections_max * 2 // 3
    server = Server(_configuration(api, Connections(connections_max), settings))
    stop = _Stop(api, server, settings.seconds_to_drain)
    handle_stop_signals(stop.begin, stop.force)
    await server.serve(sockets=[listener])
    if server.force_exit:
        # uvicorn then leaves out what closes our connections.
        await server.lifespan.shutdown()
    return server.started


def _configuration(api: FastAPI, connections: Connections, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        api,
        # uvicorn only calls it, once for each connection.
        http=cast(type[asyncio.Protocol], partial(HttpProtocol, connections=connections)),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # The caller is then whom X-Forwarded-For names last that is none of them.
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=list(settings.trusted_proxies or ()),
        timeout_graceful_shutdown=REQUEST_SECONDS_MAX,
        timeout_keep_alive=settings.keep_alive_seconds,
        backlog=BACKLOG,
    )
