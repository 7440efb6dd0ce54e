"""The server's process: its pid file, its socket and its end."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import structlog

logger = structlog.get_logger()

POLL_SECONDS = 0.01
# Fast shutdown, immediate shutdown (the next start recovers), and the end of patience.
SHUTDOWN_STEPS = ((signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 5))

SOCKET_PREFIX = "tollgate-postgres-"
# A socket's path ends at 107 bytes on Linux and 103 on macOS, and PostgreSQL adds `/.s.PGSQL.` and the port.
SOCKET_DIRECTORY_BYTES_MAX = 85
# Short everywhere and open to root's server user; TMPDIR may be neither. mkdtemp makes private directories in it.
SOCKET_PARENT = Path("/tmp")  # noqa: S108


def dsn_of(socket_directory: Path) -> str:
    return f"postgresql://postgres@/postgres?host={socket_directory}"


@dataclass(frozen=True, slots=True)
class PidFile:
    """What a server says of itself while it runs; None is what it has not said yet."""

    pid: int | None = None
    socket_directory: Path | None = None
    is_ready: bool = False

    @classmethod
    def read(cls, cluster: Path) -> Self:
        """Line 1 is the pid, 5 the socket directory, 8 the state.

        https://www.postgresql.org/docs/18/storage-file-layout.html
        """
        try:
            lines = (cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return cls()
        return cls(
            pid=int(lines[0]) if lines and lines[0].strip().isdecimal() else None,
            socket_directory=Path(lines[4]) if len(lines) > 4 else None,
            is_ready=len(lines) == 8 and lines[7].strip() == "ready",
        )


def postmaster_pid(cluster: Path) -> int | None:
    """The pid in the server's pid file, if that process really is a server on `cluster`."""
    import psutil  # noqa: PLC0415 - a development dependency

    pid = PidFile.read(cluster).pid
    if pid is None:
        return None
    try:
        # The server works in its data directory; after a reboot the pid may belong to anybody.
        return pid if psutil.Process(pid).cwd() == str(cluster) else None
    except psutil.Error:
        return None


def stop_orphan(cluster: Path) -> None:
    """Stop the server of an owner that was killed.

    It is not taken over: a server of our own has our settings and this version's binaries, and is ours to wait for.
    """
    left = PidFile.read(cluster)
    pid = postmaster_pid(cluster)
    if pid is not None:
        shut_down(pid, lambda: postmaster_pid(cluster) == pid)
        logger.warning("orphaned_postgres_stopped", directory=str(cluster), pid=pid)
    if left.socket_directory is not None:
        remove_socket_directory(left.socket_directory)
    # PostgreSQL takes any living process with the pid in this file for a server on these files.
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def shut_down(pid: int, is_running: Callable[[], bool]) -> None:
    for number, patience_seconds in SHUTDOWN_STEPS:
        deadline_seconds = time.monotonic() + patience_seconds
        if is_running():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while is_running() and time.monotonic() < deadline_seconds:
            time.sleep(POLL_SECONDS)


def remove_socket_directory(directory: Path) -> None:
    if directory.parent == SOCKET_PARENT and directory.name.startswith(SOCKET_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def is_plain(path: Path) -> bool:
    """Whether `path` needs no quoting, neither in a list of directories nor in a DSN."""
    return re.fullmatch(r"[\w./-]+", str(path), re.ASCII) is not None


def reason_in(output: str) -> str:
    lines = output.strip().splitlines() or ["no output"]
    return next((line for line in reversed(lines) if "FATAL" in line), lines[-1])
