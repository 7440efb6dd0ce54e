"""A PostgreSQL that asks for passwords, and ways to stand before it."""

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from devtools.embedded_postgres import embedded_postgres_blocking
from tests.conftest import TEST_SERVER_SETTINGS, scratch_dir

# Who may come in how. PostgreSQL takes the first line that fits.
HBA = """
local all postgres trust
local all nobody_from_here reject
local all all scram-sha-256
"""


@contextmanager
def strict_postgres(**settings: str) -> Iterator[str]:
    """The DSN of the superuser; everybody else needs a password, over the same socket."""
    with tempfile.TemporaryDirectory(dir=scratch_dir()) as directory:
        hba = Path(directory) / "pg_hba.conf"
        hba.write_text(HBA)
        hba.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        os.chmod(directory, 0o711)
        given = {**TEST_SERVER_SETTINGS, "hba_file": str(hba), **settings}
        with embedded_postgres_blocking(Path(directory) / "data", given) as dsn:
            yield dsn


def socket_of(dsn: str) -> str:
    return dsn.partition("?host=")[2]


def dsn_of(dsn: str, role: str, password: str = "right", database: str = "postgres") -> str:
    return f"postgresql://{role}:{password}@/{database}?host={socket_of(dsn)}"


def execute(dsn: str, *statements: str) -> Any:
    """The value of the last statement."""

    async def run() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """A port where something that is not PostgreSQL answers whatever comes with `reply`, and closes."""
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(2)
                try:
                    connection.recv(64)
                    connection.sendall(reply)
                    connection.recv(64)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        is_over.set()
        listener.close()
