"""`python -m app media verify` with files: whatever differs between rows, counts and store is named."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from app.application.media_audit import MediaAudit, RemoveOrphans
from app.cli import app as command_line
from app.domain.files import FileId, KeptFile
from app.domain.outputs import DeletedBecause
from app.infrastructure.media_store.folder import Folder
from app.infrastructure.postgres.media.records import PostgresMediaRecords
from tests.builders import Connection, Customer, open_account, run_with_engine
from tests.kept_files import CONTENT, content, files_of, kept_file, new_file
from tests.media import FILES_BYTES_MAX


class Stage:
    def __init__(self, database: str, directory: Path) -> None:
        self.database = database
        self.folder = directory / "media"
        self.store = Folder(self.folder)
        self._environment = {"DATABASE_URL": database, "DATA_DIR": str(directory), "APP_ENV": "development"}

    def path(self, file: KeptFile) -> Path:
        return self.folder / FileId(file.id).store_key

    def verify(self, *options: str, is_sound: bool = False) -> list[str]:
        done = CliRunner().invoke(command_line, ["media", "verify", *options], env=self._environment)
        assert done.exit_code == int(not is_sound), done.output
        return done.output.splitlines()

    def keep(self, count: int) -> list[KeptFile]:
        async def keep(engine: AsyncEngine) -> list[KeptFile]:
            customer = await open_account(engine)
            return [await kept_file(engine, customer, self.store) for _ in range(count)]

        return run_with_engine(self.database, keep)

    def sql(self, statement: str) -> None:
        async def execute(engine: AsyncEngine) -> None:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(statement)

        run_with_engine(self.database, execute)


@pytest.fixture
def stage(database: str, tmp_path: Path) -> Stage:
    return Stage(database, tmp_path)


def total(objects: int, *, orphans: int = 0, damaged: int = 0, rows: int, missing: int = 0, accounts: int = 0) -> str:
    return (
        f"{objects} objects: {orphans} orphans, 0 unknown, {damaged} damaged. "
        f"{rows} stored outputs and files: {missing} missing. {accounts} accounts miscounted."
    )


def age(path: Path, days: int = 2) -> None:
    os.utime(path, (time.time() - days * 86400,) * 2)


def test_says_of_files_that_all_is_well(stage: Stage) -> None:
    stage.keep(2)

    assert stage.verify(is_sound=True) == [total(2, rows=2)]


def test_names_files_that_are_missing_damaged_or_orphans(stage: Stage) -> None:
    missing, damaged, orphan, sound = stage.keep(4)
    stage.path(missing).unlink()
    stage.path(damaged).write_bytes(CONTENT[:-1])
    stage.sql(
        "UPDATE files SET deleted_at = now(), deleted_because = 'requested', erased_at = now()"
        f" WHERE id = '{orphan.id}'"
    )
    assert stage.verify() == [
        f"damaged  {FileId(damaged.id).store_key}  {len(CONTENT) - 1} bytes",
        f"missing  {FileId(missing.id).store_key}",
        total(3, damaged=1, rows=3, missing=1),
    ]

    stage.path(damaged).write_bytes(CONTENT)
    stage.path(missing).write_bytes(CONTENT)
    age(stage.path(orphan))
    assert stage.verify() == [
        f"orphan  {FileId(orphan.id).store_key}  {len(CONTENT)} bytes",
        total(4, orphans=1, rows=3),
    ]
    stage.verify("--remove", is_sound=True)
    assert not stage.path(orphan).exists()
    assert stage.path(sound).exists()


@pytest.mark.parametrize("change", [-1, 1])
def test_names_an_account_whose_files_come_to_another_sum(stage: Stage, change: int) -> None:
    file, _ = stage.keep(2)
    counted = 2 * len(CONTENT) + change
    stage.sql(f"UPDATE accounts SET files_bytes = {counted}")

    assert stage.verify() == [
        f"miscounted  {file.account_id}  {counted} bytes, and its files {2 * len(CONTENT)}",
        total(2, rows=2, accounts=1),
    ]
    assert len(stage.verify("--remove")) == 2


def test_names_an_account_that_counts_files_and_has_none(stage: Stage) -> None:
    (file,) = stage.keep(1)
    stage.path(file).unlink()
    stage.sql("UPDATE files SET deleted_at = now(), deleted_because = 'expired', erased_at = now()")
    stage.sql("UPDATE accounts SET files_bytes = 5")

    assert stage.verify()[0] == f"miscounted  {file.account_id}  5 bytes, and its files 0"


async def test_orphans_of_files_are_taken_out_after_a_day_and_nothing_else(
    engine: AsyncEngine, sql: Connection, tmp_path: Path
) -> None:
    customer, files, store = await open_account(engine), files_of(engine), Folder(tmp_path)
    kept, fresh, orphan = [await kept_file(engine, customer, store) for _ in range(3)]
    for file in (fresh, orphan):
        await files.delete(file.id, DeletedBecause.REQUESTED)
        assert await files.record_erased(file.id)
    coming = await reserved(engine, customer)
    await store.put(coming.store_key, content())
    foreign = FileId(uuid7())
    await store.put(foreign.store_key, content())
    remaining = [FileId(kept.id), coming, foreign]
    for file_id in (*remaining, FileId(orphan.id)):
        age(tmp_path / file_id.store_key)
    remove = RemoveOrphans(MediaAudit(PostgresMediaRecords(engine), store))

    assert await remove() == 1

    left = {found.key async for found in store.each("files")}
    assert left == {file_id.store_key for file_id in (*remaining, FileId(fresh.id))}


async def reserved(engine: AsyncEngine, customer: Customer) -> FileId:
    return FileId((await files_of(engine).reserve(new_file(customer), FILES_BYTES_MAX)).id)
