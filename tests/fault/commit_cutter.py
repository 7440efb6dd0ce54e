"""A piece of wire in front of PostgreSQL that cuts a connection at its COMMIT: before the server has it, or after it
has done it and before anybody hears of it.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

SOCKET_NAME = ".s.PGSQL.5432"
# As SQLAlchemy's driver sends it, and as the server confirms it.
COMMIT = b"COMMIT;\0"
COMMITTED = b"COMMIT\0"


@dataclass
class CommitCutter:
    upstream: str
    dsn: str
    cuts: list[int] = field(default_factory=list)
    """The numbers of the COMMITs to cut, counted from 1."""
    is_done_first: bool = True
    commits: int = 0
    open: set[object] = field(default_factory=set)
    doomed: set[object] = field(default_factory=set)
    """Connections that look alive until the client says something, as after a failover."""
    silent: set[object] = field(default_factory=set)
    """Connections from which nothing arrives any more, and which nobody closes."""

    def cut(self, *after_commits: int, is_done_first: bool) -> None:
        """The next COMMIT is number 1."""
        self.commits, self.cuts, self.is_done_first = 0, list(after_commits), is_done_first

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self.upstream)
        is_cut = asyncio.Event()
        self.open.add(writer)
        down = asyncio.create_task(_confirm(server_reader, writer, is_cut))
        try:
            while data := await reader.read(65536):
                if writer in self.doomed:
                    return
                if writer in self.silent:
                    continue
                if COMMIT in data:
                    self.commits += 1
                    if self.commits in self.cuts:
                        if not self.is_done_first:
                            return
                        is_cut.set()
                server_writer.write(data)
                await server_writer.drain()
                if is_cut.is_set():
                    await down
                    return
        except ConnectionError:
            return
        finally:
            self.open.discard(writer)
            down.cancel()
            writer.close()
            server_writer.close()
            with suppress(asyncio.CancelledError, ConnectionError):
                await down


async def _confirm(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_cut: asyncio.Event) -> None:
    """What the server says goes on to the client, until the cut; then only until the server has committed."""
    while data := await reader.read(65536):
        if is_cut.is_set():
            if COMMITTED in data:
                return
            continue
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def commit_cutter(dsn: str) -> AsyncIterator[CommitCutter]:
    parts = urlsplit(dsn)
    (directory,) = parse_qs(parts.query)["host"]
    with tempfile.TemporaryDirectory() as ours:
        through = urlunsplit(parts._replace(query=urlencode({"host": ours})))
        cutter = CommitCutter(str(Path(directory) / SOCKET_NAME), through)
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(cutter.serve(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_unix_server(connected, str(Path(ours) / SOCKET_NAME))
        try:
            yield cutter
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()
