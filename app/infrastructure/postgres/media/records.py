"""What the rows of outputs and files say of the objects in the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import case, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.media import FilesMiscounted, MediaId, Standing
from app.domain.files import FileId, FileOrigin
from app.domain.outputs import OutputId
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.statements import any_of, constant
from app.infrastructure.postgres.tables import accounts, files, outputs

_O, _F = outputs.c, files.c
_STANDING = case(
    (_O.erased_at.is_not(None), constant(Standing.OVER)),
    # What was deleted is erased by a step of its own.
    (_O.deleted_at.is_not(None), constant(Standing.WANTED)),
    (_O.stored_at.is_not(None), constant(Standing.STORED)),
    (_O.given_up_at.is_not(None), constant(Standing.OVER)),
    else_=constant(Standing.WANTED),
)
_STANDING_OF_FILE = case(
    (_F.erased_at.is_not(None), constant(Standing.OVER)),
    (_F.deleted_at.is_not(None), constant(Standing.WANTED)),
    (_F.stored_at.is_not(None), constant(Standing.STORED)),
    # It is on its way, or is deleted within hours.
    else_=constant(Standing.WANTED),
)


@dataclass(frozen=True, slots=True)
class PostgresMediaRecords:
    engine: AsyncEngine

    async def standings(self, ids: Sequence[MediaId]) -> Mapping[MediaId, tuple[Standing, int | None]]:
        of_jobs = select(_O.job_id, _O.number, _STANDING, _O.size_bytes).where(any_of(_O.job_id, "job_ids"))
        of_files = select(_F.id, _STANDING_OF_FILE, _F.size_bytes).where(any_of(_F.id, "file_ids"))
        job_ids = list({each.job_id for each in ids if isinstance(each, OutputId)})
        file_ids = [each.id for each in ids if isinstance(each, FileId)]
        found: dict[MediaId, tuple[Standing, int | None]] = {}
        async with reading(self.engine) as connection:
            for job_id, number, standing, size in await connection.execute(of_jobs, {"job_ids": job_ids}):
                found[OutputId(job_id, number)] = (Standing(standing), size)
            for file_id, standing, size in await connection.execute(of_files, {"file_ids": file_ids}):
                found[FileId(file_id)] = (Standing(standing), size)
        return {each: found[each] for each in ids if each in found}

    async def files_after(self, after: FileId | None, limit: int) -> Sequence[FileId]:
        query = (
            select(_F.id)
            .where(_F.stored_at.is_not(None), _F.deleted_at.is_(None), _F.origin != FileOrigin.OUTPUT.value)
            .order_by(_F.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(_F.id > after.id)
        async with reading(self.engine) as connection:
            return [FileId(file_id) for file_id in await connection.scalars(query)]

    async def outputs_after(self, after: OutputId | None, limit: int) -> Sequence[OutputId]:
        query = (
            select(_O.job_id, _O.number)
            .where(_O.stored_at.is_not(None), _O.deleted_at.is_(None))
            .order_by(_O.job_id, _O.number)
            .limit(limit)
        )
        if after is not None:
            query = query.where(tuple_(_O.job_id, _O.number) > (after.job_id, after.number))
        async with reading(self.engine) as connection:
            return [OutputId(job_id, number) for job_id, number in await connection.execute(query)]

    async def files_miscounted(self) -> Sequence[FilesMiscounted]:
        sums = (
            select(_F.account_id, func.sum(_F.size_bytes).label("bytes"))
            .where(_F.deleted_at.is_(None), _F.origin != FileOrigin.OUTPUT.value)
            .group_by(_F.account_id)
            .subquery("sums")
        )
        found = func.coalesce(sums.c.bytes, 0)
        query = (
            select(accounts.c.id, accounts.c.files_bytes, found)
            .join(sums, sums.c.account_id == accounts.c.id, isouter=True)
            .where(accounts.c.files_bytes != found)
            .order_by(accounts.c.id)
        )
        async with reading(self.engine) as connection:
            return [FilesMiscounted(*row[:2], int(row[2])) for row in await connection.execute(query)]
