"""A piece of wire in front of PostgreSQL that cuts a connection at its commit: before the server has it, or after it
has done it and before anybody hears of it. A commit is a COMMIT, or orders that are written by a statement alone.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

SOCKET_NAME = ".s.PGSQL.5432"
# As SQLAlchemy's driver sends them.
BEGIN = b"BEGIN"
COMMIT = b"COMMIT;\0"
ROLLBACK = b"ROLLBACK;\0"
# PostgreSQL's protocol: Parse gives a statement its name, Bind is the first message of each execution.
PREPARED_ORDERS = re.compile(rb"P.{4}(\w+)\0[^\0]*INSERT INTO jobs", re.DOTALL)
BIND = re.compile(rb"B.{4}\0(\w+)\0", re.DOTALL)
# ReadyForQuery, with no transaction open.
COMMITTED = b"Z\0\0\0\5I"


@dataclass
class _Said:
    """What a client has said on one connection so far."""

    orders: set[bytes] = field(default_factory=set)
    """Names of statements that write orders."""
    is_in_transaction: bool = False

    def commits(self, data: bytes) -> bool:
        self.orders |= set(PREPARED_ORDERS.findall(data))
        if BEGIN in data:
            self.is_in_transaction = True
        if COMMIT in data or ROLLBACK in data:
            self.is_in_transaction = False
            return COMMIT in data
        return not self.is_in_transaction and not self.orders.isdisjoint(BIND.findall(data))


@dataclass
class CommitCutter:
    upstream: str
    dsn: str
    cuts: list[int] = field(default_factory=list)
    """The numbers of the commits to cut, counted from 1."""
    is_done_first: bool = True
    commits: int = 0
    open: set[object] = field(default_factory=set)
    doomed: set[object] = field(default_factory=set)
    """Connections that look alive until the client says something, as after a failover."""
    silent: set[object] = field(default_factory=set)
    """Connections from which nothing arrives any more, and which nobody closes."""

    def cut(self, *after_commits: int, is_done_first: bool) -> None:
        """The next commit is number 1."""
        self.commits, self.cuts, self.is_done_first = 0, list(after_commits), is_done_first

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self.upstream)
        is_cut = asyncio.Event()
        said = _Said()
        self.open.add(writer)
        down = asyncio.create_task(_confirm(server_reader, writer, is_cut))
        try:
            while data := await reader.read(65536):
                if writer in self.doomed:
                    return
                if writer in self.silent:
                    continue
                if said.commits(data):
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
