"""A folder as a store of media: of one machine, or on a file system that several share.

obstore's LocalStore is not used. It shows an object under its key before the bytes are on the disk, leaves the modes to
the umask, and hides what an interrupted write left behind; what is here would have to stand around it.

A file is written beside its place, as `<name>.<random>.part`, and moved there once it is on the disk. Directories stay
when they are empty: to remove one would race with a write into it, and there are only as many as keys are spread over.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

from app.application.ports.media_store import ObjectMissing, StoredObject, StoreUnavailable
from app.infrastructure.media_store.keys import assert_inside, probe

T = TypeVar("T")

# Each of hundreds of readers may hold so much for as long as he reads slowly. With less, a file of 1 GiB takes longer,
# because each read is handed to a thread; with this, a sixth at most longer than with a megabyte.
_READ_BYTES = 128 * 1024
_LISTED_AT_ONCE = 1000
# Not the event loop's own threads, which also resolve names: those must not wait for a file system that hangs.
_THREADS_MAX = 8


class Folder:
    def __init__(self, root: Path) -> None:
        """Made where it is not there. What cannot be made is a store that is away: whoever uses it is told."""
        self._root = root
        self._threads = ThreadPoolExecutor(_THREADS_MAX, "media")
        with suppress(OSError):
            if not root.is_dir():
                root.mkdir(0o700, parents=True, exist_ok=True)
                _sync_directory(root.parent)

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        path = self._path(key)
        staged = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        size_bytes = 0
        try:
            with ExitStack() as opened:
                file = await self._run(lambda: opened.enter_context(self._create(staged)))
                async for chunk in chunks:
                    size_bytes += await self._run(partial(_write, file, chunk))
                await self._run(partial(self._finish, file, staged, path))
        except BaseException:
            await self._run(partial(_remove_if_possible, staged))
            raise
        return size_bytes

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        path = self._path(key)
        if start >= end:
            return
        with ExitStack() as opened:
            file = await self._run(lambda: opened.enter_context(self._open(path, start)))
            while start < end:
                chunk = await self._run(partial(file.read, min(_READ_BYTES, end - start)))
                if not chunk:
                    raise ObjectMissing(f"{key} ends at {start}.")
                start += len(chunk)
                yield chunk

    async def delete(self, key: str) -> None:
        await self._run(partial(self._delete, self._path(key)))

    async def each(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        found = self._walk(self._path(prefix) if prefix else self._root)
        while some := await self._run(lambda: list(islice(found, _LISTED_AT_ONCE))):
            for each in some:
                yield each

    async def presigned_url(self, key: str, *, content_type: str, disposition: str, seconds: int) -> None:  # noqa: ARG002
        return None

    async def check(self) -> None:
        await probe(self)

    def _path(self, key: str) -> Path:
        assert_inside(key)
        return self._root / key

    async def _run(self, call: Callable[[], T]) -> T:
        """In a thread, which has ended when this has, also by a cancel: no file is closed under its hands."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            with self._translated():
                return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(f"The folder {self._root} cannot be used: {error.strerror}.") from error

    # Below here everything runs in threads and raises OSError.

    def _create(self, path: Path) -> FileIO:
        for directory in reversed(self._directories_of(path)[:-1]):
            directory.mkdir(0o700, exist_ok=True)
        return FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")

    def _finish(self, file: FileIO, staged: Path, path: Path) -> None:
        os.fsync(file)
        file.close()
        staged.replace(path)
        # All of them, and not only those that were made now: another write may have made them, and not be so far yet.
        for directory in self._directories_of(path):
            _sync_directory(directory)

    def _directories_of(self, path: Path) -> list[Path]:
        """From its own to the root, which is never made again: without it, a disk is not mounted."""
        return [self._root / directory for directory in path.relative_to(self._root).parents]

    def _open(self, path: Path, start: int) -> FileIO:
        try:
            file = FileIO(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            self._assert_that_root_is_there(error)
            raise ObjectMissing(f"{path.relative_to(self._root)} is not there.") from error
        file.seek(start)
        return file

    def _delete(self, path: Path) -> None:
        """Not durable: what is there again after a power cut is found by `each` again."""
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError) as error:
            self._assert_that_root_is_there(error)

    def _walk(self, directory: Path) -> Iterator[StoredObject]:
        waiting = [str(directory)]
        while waiting:
            try:
                entries = list(os.scandir(waiting.pop()))
            except (FileNotFoundError, NotADirectoryError) as error:
                self._assert_that_root_is_there(error)
                continue
            # Links are not followed and not shown: what they lead to is not in the store.
            waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        yield self._found(entry)

    def _found(self, entry: os.DirEntry[str]) -> StoredObject:
        status = entry.stat(follow_symlinks=False)
        key = Path(entry.path).relative_to(self._root).as_posix()
        return StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def _assert_that_root_is_there(self, error: OSError) -> None:
        """Raises `error`: where the folder itself is away, nothing is known of what is in it."""
        if not self._root.is_dir():
            raise error


def _write(file: FileIO, chunk: bytes) -> int:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]
    return len(chunk)


def _remove_if_possible(path: Path) -> None:
    """Whoever calls it has an error to pass on already."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
