"""Kept files: what counts, what is kept until when, and what is deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    case,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.application.execution.steps import ERASE_FILE
from app.application.ports.files import FilesPage
from app.domain.budgets import NO_LIMITS, AccountLimits
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

OVER_AT_ONCE = 500
# For so long bytes may be on their way to the store, or a data: URI may wait for its job to be accepted.
_TO_COME = literal_column("interval '1 hour'", INTERVAL)
_AFTER_JOB = literal_column("interval '1 day'", INTERVAL)
# A process that did not notice may go on with an upload for as long.
_MAY_COME = literal_column("interval '1 day'", INTERVAL)
_IS_THERE = F.deleted_at.is_(None)
_IS_TO_ERASE = F.deleted_at.is_not(None) & F.erased_at.is_(None)

FILES_TO_ERASE: WaitingSubjects = select(F.id).where(_IS_TO_ERASE)


@dataclass(frozen=True, slots=True)
class PostgresFiles:
    engine: AsyncEngine
    days_kept: int
    limits: AccountLimits = NO_LIMITS

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
            if file.origin is FileOrigin.UPLOAD:
                await count_write(connection, file.account_id, self.limits)
            else:
                # It counts with its job, or when it is taken back.
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
        async with transaction(self.engine, "delete_file") as connection:
            await _delete(connection, [file_id], because)
            found = await connection.execute(
                select(*FILE_COLUMNS).where(F.id == file_id, F.origin != FileOrigin.OUTPUT.value)
            )
            row = found.mappings().one_or_none()
            return None if row is None else file_of(row)

    async def take_back(self, account_id: UUID, file_ids: Sequence[UUID]) -> None:
        async with transaction(self.engine, "take_files_back") as connection:
            await count_write(connection, account_id, self.limits, is_refusable=False)
            await _delete(connection, file_ids, DeletedBecause.REQUESTED)

    async def delete_over(self) -> int:
        is_over = _IS_THERE & (F.expires_at < func.now())
        some = select(F.id).where(is_over).order_by(F.expires_at).limit(OVER_AT_ONCE)
        async with transaction(self.engine, "delete_files_that_are_over") as connection:
            found = (await connection.scalars(some.with_for_update(skip_locked=True))).all()
            if not found:
                return 0
            await connection.execute(_PUT_OFF, {"file_ids": found})
            gone = (
                await connection.scalars(select(F.id).where(any_of(F.id, "file_ids"), is_over), {"file_ids": found})
            ).all()
            await _delete(connection, gone, DeletedBecause.EXPIRED)
            return len(found)

    async def is_to_erase(self, file_id: UUID) -> bool:
        async with reading(self.engine) as connection:
            return await connection.scalar(select(F.id).where(F.id == file_id, _IS_TO_ERASE)) is not None

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
    """In the order of their accounts, whose rows the count locks."""
    for account_id in await _accounts_of(connection, file_ids):
        deleted = await connection.scalars(
            update(files)
            .where(any_of(F.id, "file_ids"), F.account_id == account_id, _IS_THERE)
            .values(deleted_at=func.now(), deleted_because=because.value, sent_url=None, sent_until=None)
            .returning(F.id),
            {"file_ids": list(file_ids)},
        )
        gone = sorted(deleted.all())
        if gone:
            await enqueue(connection, ERASE_FILE, gone)


async def _accounts_of(connection: AsyncConnection, file_ids: Sequence[UUID]) -> Sequence[UUID]:
    if not file_ids:
        return []
    found = select(F.account_id).where(any_of(F.id, "file_ids"), F.origin != FileOrigin.OUTPUT.value).distinct()
    return sorted((await connection.scalars(found, {"file_ids": list(file_ids)})).all())
