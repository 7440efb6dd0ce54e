"""The simulator as a process: says when it listens, stops on a signal or when its parent is gone."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import typer
import uvicorn

from simulator.app import create_app
from simulator.config import SimulatorConfig
from simulator.dropping import DroppableProtocol

GRACE_SECONDS = 1
# As long as nginx: a client that reuses a connection must not find it closed all the time.
KEEP_ALIVE_SECONDS = 75
TICKS_PER_SECOND = 10


class SimulatorServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, parent: psutil.Process | None = None) -> None:
        super().__init__(config)
        self._parent = parent

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own way raises the signal again at the end; here a stop on request is a success.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()[:2]
            typer.echo(f"simulator listening on http://{f'[{host}]' if ':' in host else host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_SECOND == 0 and self._parent is not None and not _is_alive(self._parent):
            self.should_exit = True
        return await super().on_tick(counter)


def _listen(host: str, port: int, state_dir: Path | None) -> socket.socket:
    """Clients hold URLs with the port of the last start: with port 0 that one is taken again if it can be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port or state_dir is None:
        return socket.create_server((host, port), family=family)
    remembered = state_dir / "port"
    try:
        listening = socket.create_server((host, int(remembered.read_text())), family=family)
    except (OSError, ValueError):
        listening = socket.create_server((host, 0), family=family)
    state_dir.mkdir(parents=True, exist_ok=True)
    remembered.write_text(str(listening.getsockname()[1]))
    return listening


def serve(host: str, port: int, config: SimulatorConfig, parent_pid: int | None, state_dir: Path | None = None) -> None:
    """Raises: OSError when the port cannot be had; psutil.NoSuchProcess when the parent is already gone."""
    parent = psutil.Process(parent_pid) if parent_pid is not None else None
    with _listen(host, port, state_dir) as listening:
        settings = uvicorn.Config(
            create_app(config, is_stopping=lambda: server.should_exit, state_dir=state_dir),
            http=DroppableProtocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=GRACE_SECONDS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        server = SimulatorServer(settings, parent)
        server.run(sockets=[listening])


def _is_alive(process: psutil.Process) -> bool:
    # A killed process whose own parent does not wait for it stays as a zombie.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
