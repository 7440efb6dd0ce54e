"""What the rows of outputs say of the objects in the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import case, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.media import Standing
from app.domain.outputs import OutputId
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.statements import any_of, constant
from app.infrastructure.postgres.tables import outputs

_O = outputs.c
_STANDING = case(
    (_O.erased_at.is_not(None), constant(Standing.OVER)),
    # What was deleted is erased by a step of its own.
    (_O.deleted_at.is_not(None), constant(Standing.WANTED)),
    (_O.stored_at.is_not(None), constant(Standing.STORED)),
    (_O.given_up_at.is_not(None), constant(Standing.OVER)),
    else_=constant(Standing.WANTED),
)


@dataclass(frozen=True, slots=True)
class PostgresMediaRecords:
    engine: AsyncEngine

    async def standings(self, ids: Sequence[OutputId]) -> Mapping[OutputId, tuple[Standing, int | None]]:
        query = select(_O.job_id, _O.number, _STANDING, _O.size_bytes).where(any_of(_O.job_id, "job_ids"))
        async with reading(self.engine) as connection:
            rows = await connection.execute(query, {"job_ids": list({each.job_id for each in ids})})
            found = {OutputId(job_id, number): (Standing(standing), size) for job_id, number, standing, size in rows}
        return {each: found[each] for each in ids if each in found}

    async def stored_after(self, after: OutputId | None, limit: int) -> Sequence[OutputId]:
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
