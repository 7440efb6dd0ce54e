"""Secrets that nobody has to choose: development makes them once and keeps them with its other files."""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.infrastructure.settings import Settings, SettingsError
from app.infrastructure.settings.secrets import live_values

_KEPT = re.compile(r"[0-9a-f]{64}\n?", re.ASCII)


def signing_secrets(settings: Settings) -> Sequence[str]:
    """The newest first. Raises SettingsError if there is none and none can be kept."""
    given = live_values(settings.signing_secret)
    if given:
        return given
    if settings.is_production:
        raise SettingsError("SIGNING_SECRET: must be set in production")
    file = settings.data_dir / "signing-secret"
    try:
        return [_kept(file)]
    except OSError as error:
        raise SettingsError(f"SIGNING_SECRET is not set, and {file} cannot be kept ({error.strerror})") from None
    except ValueError:
        raise SettingsError(f"SIGNING_SECRET is not set, and {file} has no secret of ours: delete it") from None


def _kept(file: Path) -> str:
    """The file's secret, made if there is none. Of processes that make one at once, all get that of the first."""
    if not file.exists():
        _make(file)
    text = file.read_text("ascii")
    if not _KEPT.fullmatch(text):
        raise ValueError("another form")
    return text.strip()


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(f"{secrets.token_hex(32)}\n")
            opened.flush()
            os.fsync(opened.fileno())
        _give_name(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _give_name(unfinished: Path, file: Path) -> None:
    """A name is given to a whole file, and only if no other process was faster."""
    try:
        os.link(unfinished, file)
    except FileExistsError:
        return
    except OSError:
        # FAT, and some that are mounted over a network or by a program, know no second name of a file.
        with _locked(file.with_name(f"{file.name}.lock")):
            if not file.exists():
                unfinished.replace(file)


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """For one process at a time. The lock ends with its process; its file stays, as another one may wait for it."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
