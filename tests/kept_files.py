"""Files as tests need them: kept without a decoder, and jobs that name them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from hashlib import sha256
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.application.ports.media_store import MediaStore
from app.domain.files import FileId, FileOrigin, KeptFile, NewFile
from app.domain.jobs import NewJob
from app.infrastructure.postgres.files.records import PostgresFiles
from tests.builders import Connection, Customer, jobs_of, new_job
from tests.media import FILES_BYTES_MAX, MEDIA_DAYS

CONTENT = b"\x89PNG\r\n\x1a\n what stands for a picture"


def files_of(engine: AsyncEngine) -> PostgresFiles:
    return PostgresFiles(engine, MEDIA_DAYS)


def new_file(customer: Customer, *, job_id: UUID | None = None, size_bytes: int = len(CONTENT)) -> NewFile:
    """`job_id`: the file came as a data: URI of this job."""
    return NewFile(
        id=uuid7(),
        account_id=customer.account_id,
        origin=FileOrigin.UPLOAD if job_id is None else FileOrigin.DATA,
        content_type="image/png",
        size_bytes=size_bytes,
        width=300,
        height=200,
        duration_seconds=None,
        sha256=sha256(CONTENT).hexdigest(),
        job_id=job_id,
    )


async def kept_file(
    engine: AsyncEngine, customer: Customer, store: MediaStore | None = None, *, job_id: UUID | None = None
) -> KeptFile:
    """In the store, if there is one."""
    file = new_file(customer, job_id=job_id)
    await files_of(engine).reserve(file, FILES_BYTES_MAX)
    if store is not None:
        await store.put(FileId(file.id).store_key, content())
    kept = await files_of(engine).record_stored(file.id)
    assert kept is not None
    return kept


async def content() -> AsyncIterator[bytes]:
    yield CONTENT


def job_with(customer: Customer, *files: KeptFile) -> NewJob:
    """As the row of a job has kept files."""
    named = {"prompt": "a lighthouse at dawn", "image_urls": [file.as_input for file in files]}
    return replace(new_job(customer), parameters=named, file_ids=tuple(file.id for file in files))


async def accept_with(engine: AsyncEngine, customer: Customer, *files: KeptFile) -> UUID:
    return (await jobs_of(engine).accept(job_with(customer, *files))).job.id


async def miscounted(sql: Connection) -> Sequence[tuple[UUID, int, int]]:
    """Accounts whose count is not the sum of their live files."""
    rows = await sql.fetch(
        "SELECT accounts.id, files_bytes, coalesce(sum(size_bytes), 0) FROM accounts LEFT JOIN files"
        " ON account_id = accounts.id AND deleted_at IS NULL AND origin <> 'output'"
        " GROUP BY accounts.id HAVING files_bytes <> coalesce(sum(size_bytes), 0)"
    )
    return [(row[0], row[1], int(row[2])) for row in rows]
