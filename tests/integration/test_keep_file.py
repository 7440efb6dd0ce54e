"""An upload from the decoder to the store: what counts is there, and what does not come whole counts no more."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.application import files as application_files
from app.application.files import KeepFile
from app.application.ports.media_decoder import DecoderUnavailable, ExaminedMedia
from app.application.ports.media_store import MediaStore, StoreUnavailable
from app.domain.errors import Unavailable
from app.domain.file_errors import FilesFull, FilesNotKept, FilesUnavailable
from app.domain.files import FileId, FileOrigin
from app.domain.outputs import DeletedBecause
from app.infrastructure import spool
from app.infrastructure.media_store.folder import Folder
from app.infrastructure.spool import DirectorySpool
from tests.builders import Connection, open_account
from tests.kept_files import CONTENT, files_of, miscounted
from tests.media import FILES_BYTES_MAX

STATE = "SELECT stored_at IS NOT NULL, deleted_because FROM files"


class Decoder:
    """Keeps a file as it came."""

    async def examine(self, source: Path, cleaned: Path, *, owner: Hashable) -> ExaminedMedia:
        return self._copy(source, cleaned)

    def _copy(self, source: Path, cleaned: Path) -> ExaminedMedia:
        data = source.read_bytes()
        if data == b"nothing can be looked at":
            raise DecoderUnavailable("There is no sandbox.")
        cleaned.write_bytes(data)
        digest = sha256(data).hexdigest()
        return ExaminedMedia(
            content_type="image/png", size_bytes=len(data), width=3, height=2, duration_seconds=None, sha256=digest
        )


@dataclass
class Watched:
    """A store, and what happens once an object is there."""

    store: MediaStore
    then: Callable[[str], Awaitable[None]]

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        size_bytes = await self.store.put(key, chunks)
        await self.then(key)
        return size_bytes


@dataclass
class Stage:
    engine: AsyncEngine
    directory: Path
    store: Folder

    def keep(self, store: MediaStore | None, bytes_max: int = FILES_BYTES_MAX) -> KeepFile:
        return KeepFile(files_of(self.engine), Decoder(), store, DirectorySpool(self.directory / "spool"), bytes_max)

    def watched(self, then: Callable[[str], Awaitable[None]]) -> KeepFile:
        return self.keep(cast(MediaStore, Watched(self.store, then)))

    def source(self, data: bytes = CONTENT) -> Path:
        path = self.directory / "source"
        path.write_bytes(data)
        return path

    def spooled(self) -> list[Path]:
        return list((self.directory / "spool").glob("*"))

    async def objects(self) -> list[str]:
        return [found.key async for found in self.store.each("files")]


@pytest.fixture
def stage(engine: AsyncEngine, tmp_path: Path) -> Stage:
    return Stage(engine, tmp_path, Folder(tmp_path / "media"))


async def test_a_file_can_be_used_once_it_is_in_the_store_and_not_before(stage: Stage, sql: Connection) -> None:
    customer = await open_account(stage.engine)
    seen = []

    async def look(key: str) -> None:
        seen.append([key, *(await sql.fetch(STATE))[0]])

    file = await stage.watched(look)(customer.account_id, stage.source())

    assert seen == [[FileId(file.id).store_key, False, None]]
    assert (file.is_stored, file.origin, file.sha256) == (True, FileOrigin.UPLOAD, sha256(CONTENT).hexdigest())
    assert await stage.objects() == [FileId(file.id).store_key]
    assert stage.spooled() == []


async def test_the_file_of_a_data_uri_names_its_job(stage: Stage, sql: Connection) -> None:
    customer, job_id = await open_account(stage.engine), uuid7()

    file = await stage.keep(stage.store)(customer.account_id, stage.source(), job_id=job_id)

    assert file.origin is FileOrigin.DATA
    assert await sql.fetchval("SELECT job_id FROM files") == job_id


@pytest.mark.parametrize(
    "error", [StoreUnavailable("It is away."), RuntimeError("a mistake"), asyncio.CancelledError()]
)
async def test_what_does_not_come_into_the_store_counts_no_more(
    stage: Stage, sql: Connection, error: BaseException
) -> None:
    customer = await open_account(stage.engine)

    async def fail(_: str) -> None:
        raise error

    with pytest.raises(FilesUnavailable if isinstance(error, StoreUnavailable) else type(error)):
        await stage.watched(fail)(customer.account_id, stage.source())

    assert [tuple(row) for row in await sql.fetch(STATE)] == [(False, "requested")]
    assert await sql.fetchval("SELECT files_bytes FROM accounts") == 0
    assert await miscounted(sql) == []
    assert stage.spooled() == []


async def test_a_store_that_hangs_is_given_up(stage: Stage, sql: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it does not let go of whoever waits for it."""
    monkeypatch.setattr(application_files, "PUT_SECONDS_MAX", 0.05)
    customer, freed = await open_account(stage.engine), asyncio.Event()

    async def hang(_: str) -> None:
        while not freed.is_set():
            with suppress(asyncio.CancelledError):
                await freed.wait()

    with pytest.raises(FilesUnavailable):
        await stage.watched(hang)(customer.account_id, stage.source())

    assert tuple((await sql.fetch(STATE))[0]) == (False, "requested")
    assert await miscounted(sql) == []
    assert stage.spooled() == []
    freed.set()
    await asyncio.sleep(0)


async def test_nothing_is_received_while_the_disk_is_nearly_full(
    stage: Stage, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "FREE_BYTES_MIN", 2**60)
    customer = await open_account(stage.engine)

    with pytest.raises(FilesUnavailable):
        await stage.keep(stage.store)(customer.account_id, stage.source())

    assert await sql.fetchval("SELECT count(*) FROM files") == 0


async def test_what_was_given_up_while_it_was_put_cannot_be_used(stage: Stage, sql: Connection) -> None:
    customer = await open_account(stage.engine)

    async def expire(_: str) -> None:
        file_id = await sql.fetchval("SELECT id FROM files")
        await files_of(stage.engine).delete(file_id, DeletedBecause.EXPIRED)

    with pytest.raises(FilesUnavailable):
        await stage.watched(expire)(customer.account_id, stage.source())

    assert [tuple(row) for row in await sql.fetch(STATE)] == [(False, "expired")]
    assert await miscounted(sql) == []


async def test_what_does_not_fit_leaves_nothing(stage: Stage, sql: Connection) -> None:
    customer = await open_account(stage.engine)

    with pytest.raises(FilesFull):
        await stage.keep(stage.store, bytes_max=len(CONTENT) - 1)(customer.account_id, stage.source())

    assert await sql.fetchval("SELECT count(*) FROM files") == 0
    assert await stage.objects() == []
    assert stage.spooled() == []


async def test_without_a_store_or_a_decoder_nothing_is_kept(stage: Stage, sql: Connection) -> None:
    customer = await open_account(stage.engine)

    with pytest.raises(FilesNotKept):
        await stage.keep(None)(customer.account_id, stage.source())
    with pytest.raises(Unavailable):
        await stage.keep(stage.store)(customer.account_id, stage.source(b"nothing can be looked at"))

    assert await sql.fetchval("SELECT count(*) FROM files") == 0
