"""Kept files: what counts, what is kept until when, and what is deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Uuid,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.execution.steps import ERASE_FILE
from app.application.ports.files import FilesPage
from app.domain.budgets import NO_LIMITS, AccountLimits
from app.domain.errors import InsufficientBalance
from app.domain.file_errors import FilesFull
from app.domain.files import FileOrigin, KeptFile, NewFile
from app.domain.outputs import DeletedBecause
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.files.rows import FILE_COLUMNS, F, file_of
from app.infrastructure.postgres.lost_steps import WaitingSubjects
from app.infrastructure.postgres.queue import enqueue
from app.infrastructure.postgres.statements import any_of
from app.infrastructure.postgres.tables import accounts, files, jobs
from app.infrastructure.postgres.writes import check_writes, count_write

OVER_AT_ONCE = 100
FORGOTTEN_AT_ONCE = 1_000
# So long it is said of a file when and why it was deleted. Whoever uploads and deletes pays nothing for the rows.
_TOLD_FOR = literal_column("interval '30 days'", INTERVAL)
# For so long bytes may be on their way to the store, or a data: URI may wait for its job to be accepted.
_TO_COME = literal_column("interval '1 hour'", INTERVAL)
_AFTER_JOB = literal_column("interval '1 day'", INTERVAL)
# So long a job may wait and run.
_FOR_A_JOB = literal_column("interval '2 days'", INTERVAL)
# A process that did not notice may go on with an upload for as long.
_MAY_COME = literal_column("interval '1 day'", INTERVAL)
_IS_THERE = F.deleted_at.is_(None)
_IS_OVER = _IS_THERE & (F.expires_at < func.now())
_IS_TO_ERASE = F.deleted_at.is_not(None) & F.erased_at.is_(None)

FILES_TO_ERASE: WaitingSubjects = select(F.id).where(_IS_TO_ERASE)


@dataclass(frozen=True, slots=True)
class PostgresFiles:
    engine: AsyncEngine
    days_kept: int
    limits: AccountLimits = NO_LIMITS

    async def admit(self, account_id: UUID, size_bytes: int, bytes_max: int) -> None:
        own = select(accounts.c.files_bytes, accounts.c.balance_tokens).where(accounts.c.id == account_id)
        async with transaction(self.engine, "admit_upload") as connection:
            await count_write(connection, account_id, self.limits)
            row = (await connection.execute(own)).one()
        if row.balance_tokens < 1:
            raise InsufficientBalance(required_tokens=1, balance_tokens=row.balance_tokens)
        if row.files_bytes >= bytes_max:
            raise FilesFull(row.files_bytes, bytes_max, size_bytes)

    async def reserve(self, file: NewFile, bytes_max: int) -> KeptFile:
        used = select(accounts.c.files_bytes).where(accounts.c.id == file.account_id).with_for_update(key_share=True)
        values = {
            "id": file.id,
            "account_id": file.account_id,
            "origin": file.origin.value,
            "expires_at": func.now() + _TO_COME,
            "content_type": file.content_type,
            "size_bytes": file.size_bytes,
            "width": file.width,
            "height": file.height,
            "duration_seconds": file.duration_seconds,
            "sha256": bytes.fromhex(file.sha256),
            "job_id": file.job_id,
        }
        async with transaction(self.engine, "reserve_file") as connection:
            used_bytes = (await connection.scalars(used)).one()
            if used_bytes + file.size_bytes > bytes_max:
                raise FilesFull(used_bytes, bytes_max, file.size_bytes)
            if file.origin is FileOrigin.DATA:
                # It counts with its job, or when it is taken back. An upload has counted when it was admitted.
                await check_writes(connection, file.account_id, self.limits)
            made = await connection.execute(insert(files).values(values).returning(*FILE_COLUMNS))
            return file_of(made.mappings().one())

    async def record_stored(self, file_id: UUID) -> KeptFile | None:
        kept_for = case(
            (F.origin == FileOrigin.DATA.value, _TO_COME), else_=func.make_interval(0, 0, 0, self.days_kept)
        )
        async with transaction(self.engine, "record_stored_file") as connection:
            stored = await connection.execute(
                update(files)
                .where(F.id == file_id, _IS_THERE)
                .values(
                    stored_at=func.coalesce(F.stored_at, func.now()),
                    expires_at=case((F.stored_at.is_(None), func.now() + kept_for), else_=F.expires_at),
                )
                .returning(*FILE_COLUMNS)
            )
            row = stored.mappings().one_or_none()
            return None if row is None else file_of(row)

    async def find(self, file_id: UUID) -> KeptFile | None:
        query = select(*FILE_COLUMNS).where(F.id == file_id, F.origin != FileOrigin.OUTPUT.value)
        async with reading(self.engine) as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else file_of(row)

    async def of_account(self, account_id: UUID, file_ids: Sequence[UUID]) -> Mapping[UUID, KeptFile]:
        query = select(*FILE_COLUMNS).where(
            any_of(F.id, "file_ids"), F.account_id == account_id, F.origin != FileOrigin.OUTPUT.value
        )
        async with reading(self.engine) as connection:
            rows = (await connection.execute(query, {"file_ids": list(file_ids)})).mappings().all()
            return {row["id"]: file_of(row) for row in rows}

    async def keep_on(self, file_id: UUID) -> None:
        async with transaction(self.engine, "keep_file_on") as connection:
            until = func.greatest(F.expires_at, func.now() + _FOR_A_JOB)
            await connection.execute(update(files).where(F.id == file_id, _IS_THERE).values(expires_at=until))

    async def balance_tokens(self, account_id: UUID) -> int:
        async with reading(self.engine) as connection:
            query = select(accounts.c.balance_tokens).where(accounts.c.id == account_id)
            return int((await connection.scalars(query)).one())

    async def list(self, account_id: UUID, *, limit: int, before: UUID | None) -> FilesPage:
        query = (
            select(*FILE_COLUMNS)
            .where(F.account_id == account_id, _IS_THERE, F.stored_at.is_not(None))
            .where(F.origin != FileOrigin.OUTPUT.value)
            .order_by(F.created_at.desc(), F.id.desc())
            .limit(limit)
        )
        if before is not None:
            # Also of one that was deleted since.
            last = select(F.created_at, F.id).where(F.id == before, F.account_id == account_id).subquery("last")
            query = query.where(tuple_(F.created_at, F.id) < select(last.c.created_at, last.c.id).scalar_subquery())
        used = select(accounts.c.files_bytes).where(accounts.c.id == account_id)
        async with reading(self.engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
            used_bytes = (await connection.scalars(used)).one()
        return FilesPage([file_of(row) for row in rows], used_bytes)

    async def delete(self, file_id: UUID, because: DeletedBecause) -> KeptFile | None:
        query = select(*FILE_COLUMNS).where(F.id == file_id, F.origin != FileOrigin.OUTPUT.value)
        async with transaction(self.engine, "delete_file") as connection:
            await _delete(connection, [file_id], because)
            row = (await connection.execute(query)).mappings().one_or_none()
            return None if row is None else file_of(row)

    async def take_back(self, account_id: UUID, file_ids: Sequence[UUID]) -> None:
        async with transaction(self.engine, "take_files_back") as connection:
            # Files before the account, as everybody locks them.
            await _delete(connection, file_ids, DeletedBecause.REQUESTED)
            await count_write(connection, account_id, self.limits, is_refusable=False)

    async def delete_over(self) -> int:
        some = select(F.account_id, F.id).where(_IS_OVER).order_by(F.expires_at).limit(OVER_AT_ONCE)
        async with reading(self.engine) as connection:
            found = (await connection.execute(some)).all()
        # Each account by itself: its row is locked, and whoever starts something waits for no other account's files.
        count = 0
        for account_id in sorted({row.account_id for row in found}):
            count += await self._delete_over([row.id for row in found if row.account_id == account_id])
        return count

    async def _delete_over(self, file_ids: Sequence[UUID]) -> int:
        over = select(F.id).where(any_of(F.id, "file_ids"), _IS_OVER)
        async with transaction(self.engine, "delete_files_that_are_over") as connection:
            locked = await connection.scalars(over.with_for_update(skip_locked=True), {"file_ids": file_ids})
            ids = {"file_ids": locked.all()}
            await connection.execute(_PUT_OFF, ids)
            await _delete(connection, (await connection.scalars(over, ids)).all(), DeletedBecause.EXPIRED)
            return len(ids["file_ids"])

    async def is_to_erase(self, file_id: UUID) -> bool:
        async with reading(self.engine) as connection:
            return await connection.scalar(select(F.id).where(F.id == file_id, _IS_TO_ERASE)) is not None

    async def forget_erased(self) -> int:
        erased = select(F.id).where(F.erased_at < func.now() - _TOLD_FOR).order_by(F.erased_at).limit(FORGOTTEN_AT_ONCE)
        in_use = select(func.unnest(jobs.c.file_ids)).where(
            ~jobs.c.is_final, jobs.c.file_ids.overlap(bindparam("file_ids", type_=ARRAY(Uuid)))
        )
        async with transaction(self.engine, "forget_erased_files") as connection:
            ids = set((await connection.scalars(erased)).all())
            # A job that has been held for so long is still to be told that its file is gone.
            ids -= set((await connection.scalars(in_use, {"file_ids": list(ids)})).all()) if ids else set()
            await connection.execute(delete(files).where(any_of(F.id, "file_ids")), {"file_ids": list(ids)})
        return len(ids)

    async def record_erased(self, file_id: UUID) -> bool:
        is_certain = or_(F.stored_at.is_not(None), F.deleted_at < func.now() - _MAY_COME)
        async with transaction(self.engine, "record_erased_file") as connection:
            erased = await connection.execute(
                update(files).where(F.id == file_id, _IS_TO_ERASE, is_certain).values(erased_at=func.now())
            )
            return bool(erased.rowcount)


_ENDS_AT: ColumnElement[DateTime] = case(
    (jobs.c.is_final, jobs.c.updated_at + _AFTER_JOB), else_=func.now() + _AFTER_JOB
)
# The file of a data: URI stays for as long as its job may need it.
_PUT_OFF = (
    update(files)
    .where(any_of(F.id, "file_ids"), F.origin == FileOrigin.DATA.value, jobs.c.id == F.job_id, F.expires_at < _ENDS_AT)
    .values(expires_at=_ENDS_AT)
)


async def _delete(connection: AsyncConnection, file_ids: Sequence[UUID], because: DeletedBecause) -> None:
    """Of one account, whose row the count locks after those of the files."""
    deleted = await connection.scalars(
        update(files)
        .where(any_of(F.id, "file_ids"), F.origin != FileOrigin.OUTPUT.value, _IS_THERE)
        .values(deleted_at=func.now(), deleted_because=because.value, sent_url=None, sent_until=None)
        .returning(F.id),
        {"file_ids": list(file_ids)},
    )
    gone = sorted(deleted.all())
    if gone:
        await enqueue(connection, ERASE_FILE, gone)
