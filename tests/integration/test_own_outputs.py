"""Outputs that are used again: one row for each, only for its owner, and not for longer than the output is there."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.files import FileOrigin
from app.domain.jobs import JobStatus
from app.domain.media_errors import MediaDeleted, MediaUnavailable
from app.domain.outputs import DeletedBecause, OutputId
from app.infrastructure.postgres.files.own_outputs import PostgresOwnOutputs
from app.infrastructure.postgres.files.sending import PostgresFilesToSend
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from tests.builders import Connection, job_in, open_account
from tests.integration.test_outputs import COPY, URLS, completed, copies_of
from tests.kept_files import accept_with, files_of, miscounted

SENT = "SELECT sent_url, deleted_because, erased_at IS NOT NULL FROM files"


def own_outputs(engine: AsyncEngine) -> PostgresOwnOutputs:
    return PostgresOwnOutputs(engine, copies_of(engine))


async def test_many_jobs_that_use_an_output_at_once_make_one_row(crowd: AsyncEngine, sql: Connection) -> None:
    owner = await open_account(crowd, 100)
    output_id = OutputId(await completed(crowd, owner), 1)
    assert await copies_of(crowd).record_stored(output_id, COPY)

    used = await asyncio.gather(*(own_outputs(crowd).as_file(owner.account_id, output_id) for _ in range(20)))

    (file,) = {each.id: each for each in used if each is not None}.values()
    assert len(used) == 20
    assert all(each == file for each in used)
    assert (file.origin, file.content_type, file.size_bytes) == (FileOrigin.OUTPUT, "image/png", COPY.size_bytes)
    assert await sql.fetchval("SELECT count(*) FROM files") == 1
    assert await sql.fetchval("SELECT files_bytes FROM accounts") == 0
    assert await miscounted(sql) == []


async def test_an_output_of_somebody_else_is_none_and_leaves_no_row(engine: AsyncEngine, sql: Connection) -> None:
    owner, other = await open_account(engine, 100), await open_account(engine, 100)
    job_id = await completed(engine, owner)
    unfinished = await job_in(engine, owner, JobStatus.IN_PROGRESS)
    outputs = own_outputs(engine)

    assert await outputs.as_file(other.account_id, OutputId(job_id, 0)) is None
    assert await outputs.as_file(owner.account_id, OutputId(job_id, 2)) is None
    assert await outputs.as_file(owner.account_id, OutputId(unfinished, 0)) is None
    assert await outputs.as_file(owner.account_id, OutputId(uuid4(), 0)) is None
    assert await sql.fetchval("SELECT count(*) FROM files") == 0


async def test_the_row_of_an_output_is_no_file_that_can_be_asked_for_or_deleted(
    engine: AsyncEngine, sql: Connection
) -> None:
    owner = await open_account(engine, 100)
    file = await own_outputs(engine).as_file(owner.account_id, OutputId(await completed(engine, owner), 0))
    assert file is not None
    files = files_of(engine)

    assert await files.find(file.id) is None
    assert await files.of_account(owner.account_id, [file.id]) == {}
    assert (await files.list(owner.account_id, limit=10, before=None)).files == []
    assert await files.delete(file.id, DeletedBecause.REQUESTED) is None
    assert await files.delete_over() == 0
    assert await sql.fetchval("SELECT deleted_at FROM files") is None


@pytest.mark.parametrize("because", [DeletedBecause.REQUESTED, DeletedBecause.LOST])
async def test_with_an_output_the_url_that_fal_got_for_it_goes(
    engine: AsyncEngine, sql: Connection, because: DeletedBecause
) -> None:
    owner = await open_account(engine, 100)
    kept, gone = [OutputId(job_id, 0) for job_id in [await completed(engine, owner) for _ in range(2)]]
    outputs, sending = own_outputs(engine), PostgresFilesToSend(engine, copies_of(engine))
    for output_id in (kept, gone):
        file = await outputs.as_file(owner.account_id, output_id)
        assert file is not None
        (to_send,) = await sending.of_job(await accept_with(engine, owner, file))
        assert to_send.provider_url == URLS[0]
        assert to_send.provider_url_until is not None
        await sending.record_sent(file.id, URLS[0], to_send.provider_url_until)

    await PostgresMediaDeletion(engine).delete(None, gone.job_id, because)

    rows = await sql.fetch(f"{SENT} ORDER BY created_at")
    assert [tuple(row) for row in rows] == [(URLS[0], None, False), (None, because.value, True)]
    with pytest.raises(MediaDeleted):
        await outputs.as_file(owner.account_id, gone)
    assert await outputs.as_file(owner.account_id, kept) is not None


async def test_an_output_that_a_process_of_the_release_before_deletes_is_used_no_more(
    engine: AsyncEngine, sql: Connection
) -> None:
    """It knows nothing of files."""
    owner = await open_account(engine, 100)
    file = await own_outputs(engine).as_file(owner.account_id, OutputId(await completed(engine, owner), 0))
    assert file is not None
    until = datetime.now(UTC) + timedelta(days=3)
    await PostgresFilesToSend(engine, copies_of(engine)).record_sent(file.id, URLS[0], until)

    await sql.execute("UPDATE outputs SET deleted_at = now(), deleted_because = 'requested'")

    assert tuple((await sql.fetch(SENT))[0]) == (None, "requested", True)


async def test_an_output_that_only_fal_has_and_not_for_long_is_refused_before_the_debit(
    engine: AsyncEngine, sql: Connection
) -> None:
    owner = await open_account(engine, 100)
    output_id = OutputId(await completed(engine, owner), 0)
    await sql.execute(
        "SET session_replication_role = replica; UPDATE outputs SET expires_at = now() + interval '24 hours';"
        " RESET session_replication_role"
    )

    with pytest.raises(MediaUnavailable):
        await own_outputs(engine).as_file(owner.account_id, output_id)
    assert await copies_of(engine).record_stored(output_id, COPY)
    assert await own_outputs(engine).as_file(owner.account_id, output_id) is not None


async def test_an_output_that_is_deleted_before_its_first_use_leaves_no_row(
    engine: AsyncEngine, sql: Connection
) -> None:
    owner = await open_account(engine, 100)
    output_id = OutputId(await completed(engine, owner), 0)
    await PostgresMediaDeletion(engine).delete(None, output_id.job_id, DeletedBecause.REQUESTED)

    with pytest.raises(MediaDeleted):
        await own_outputs(engine).as_file(owner.account_id, output_id)
    assert await sql.fetchval("SELECT count(*) FROM files") == 0
