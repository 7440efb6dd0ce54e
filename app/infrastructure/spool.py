"""Where files wait that are being received or looked at. What a process that died has left there goes after a day."""

import asyncio
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.domain.file_errors import FilesUnavailable

log = structlog.get_logger(__name__)

LEFT_SECONDS = 24 * 3600.0
FREE_BYTES_MIN = 1_000_000_000


@dataclass(frozen=True, slots=True)
class DirectorySpool:
    path: Path

    @asynccontextmanager
    async def new(self) -> AsyncIterator[Path]:
        """Raises FilesUnavailable where the disk is nearly full: the database may be on the same one."""
        await asyncio.to_thread(self.path.mkdir, 0o700, parents=True, exist_ok=True)
        if (await asyncio.to_thread(shutil.disk_usage, self.path)).free < FREE_BYTES_MIN:
            log.error("spool_full", free_bytes_min=FREE_BYTES_MIN)
            raise FilesUnavailable
        file = self.path / secrets.token_hex(16)
        try:
            yield file
        finally:
            # Not in a thread: a cancel would leave it there.
            file.unlink(missing_ok=True)

    def remove_left(self) -> None:
        """Several processes may share the directory, so that only age tells what nobody needs."""
        if not self.path.is_dir():
            return
        for file in self.path.iterdir():
            try:
                if file.stat().st_mtime < time.time() - LEFT_SECONDS:
                    file.unlink(missing_ok=True)
            except FileNotFoundError:
                continue
