"""Files on disk, and uploads that are announced or arrive in parts."""

import math
import re
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PENDING_MAX = 1_000
NAME_LENGTH_MAX = 100


@dataclass(frozen=True, slots=True)
class StoredFile:
    path: Path
    content_type: str
    size_bytes: int
    expires_at: float = math.inf


class FileStore:
    """Keeps files under short keys; beyond its bounds, those that were unused the longest go."""

    def __init__(self, directory: Path, *, files_kept: int, bytes_kept: int) -> None:
        self._directory = directory
        self._files_kept = files_kept
        self._bytes_kept = bytes_kept
        self._files: dict[str, StoredFile] = {}
        self._size_bytes = 0
        directory.mkdir(exist_ok=True)

    def new_path(self) -> Path:
        """Where to write a file before it is added; names of clients never become names on disk."""
        return self._directory / secrets.token_hex(8)

    def add(self, key: str, path: Path, content_type: str, expires_at: float = math.inf) -> StoredFile:
        self._drop(key)
        file = StoredFile(path, content_type, path.stat().st_size, expires_at)
        self._files[key] = file
        self._size_bytes += file.size_bytes
        while len(self._files) > 1 and (len(self._files) > self._files_kept or self._size_bytes > self._bytes_kept):
            self._drop(next(iter(self._files)))
        return file

    def restore(self, files: Mapping[str, str], content_type: str) -> None:
        """Take over files that an earlier process left behind, by key and name; all others are removed."""
        for key, name in files.items():
            path = self._directory / name
            if path.exists():
                self.add(key, path, content_type)
        known = {file.path for file in self._files.values()}
        for path in self._directory.iterdir():
            if path not in known:
                path.unlink()

    def all(self) -> dict[str, StoredFile]:
        return dict(self._files)

    def paths(self) -> dict[str, Path]:
        return {key: file.path for key, file in self._files.items()}

    def find(self, key: str) -> StoredFile | None:
        file = self._files.pop(key, None)
        if file is not None:
            self._files[key] = file
        return file

    def clear(self) -> None:
        for key in list(self._files):
            self._drop(key)

    def _drop(self, key: str) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            self._size_bytes -= file.size_bytes
            file.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Part:
    path: Path
    etag: str


@dataclass(slots=True)
class PendingUpload:
    key: str
    content_type: str
    expires_at: float
    parts: dict[int, Part] = field(default_factory=dict)


class Storage:
    def __init__(self, files: FileStore) -> None:
        self.token = secrets.token_urlsafe(24)
        self._files = files
        self._pending: OrderedDict[str, PendingUpload] = OrderedDict()

    def new_path(self) -> Path:
        return self._files.new_path()

    def find(self, key: str, now: float) -> StoredFile | None:
        file = self._files.find(key)
        return None if file is None or now >= file.expires_at else file

    def files(self) -> dict[str, StoredFile]:
        return self._files.all()

    def add(self, key: str, path: Path, content_type: str, expires_at: float) -> None:
        self._files.add(key, path, content_type, expires_at)

    def announce(self, upload: PendingUpload, upload_id: str | None = None) -> PendingUpload:
        """Expect a file, under its own key or, in parts, under an upload id."""
        self._pending[upload_id or upload.key] = upload
        if len(self._pending) > PENDING_MAX:
            self._discard(self._pending.popitem(last=False)[1])
        return upload

    def pending(self, upload_id: str) -> PendingUpload | None:
        return self._pending.get(upload_id)

    def finish(self, upload_id: str, path: Path) -> None:
        pending = self._pending.pop(upload_id)
        self._discard(pending)
        self.add(pending.key, path, pending.content_type, pending.expires_at)

    def clear(self) -> None:
        for pending in self._pending.values():
            self._discard(pending)
        self._pending.clear()
        self._files.clear()

    @staticmethod
    def _discard(pending: PendingUpload) -> None:
        for part in pending.parts.values():
            part.path.unlink(missing_ok=True)


def new_key(name: str | None) -> str:
    """fal's form of a file's address: eight hexadecimal digits, then its name."""
    plain_name = re.sub(r"[^A-Za-z0-9._-]", "_", (name or "").rpartition("/")[2])[-NAME_LENGTH_MAX:]
    return f"{secrets.token_hex(4)}/{plain_name.lstrip('.') or 'upload.bin'}"


def join_parts(parts: list[Part], path: Path) -> None:
    with path.open("wb") as whole:
        for part in parts:
            with part.path.open("rb") as piece:
                shutil.copyfileobj(piece, whole)
