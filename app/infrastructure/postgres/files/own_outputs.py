"""Outputs that are used again: each has one row among the files, so that fal gets one URL for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from app.application.ports.media import OutputReader
from app.domain.files import FileOrigin, KeptFile
from app.domain.media_errors import MediaDeleted
from app.domain.outputs import DeletedBecause, OutputId
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.files.rows import FILE_COLUMNS, F, of_output
from app.infrastructure.postgres.statements import any_of
from app.infrastructure.postgres.tables import files, outputs

# It goes with its output.
_NEVER = literal_column("'infinity'", DateTime(timezone=True))


@dataclass(frozen=True, slots=True)
class PostgresOwnOutputs:
    engine: AsyncEngine
    outputs: OutputReader

    async def as_file(self, account_id: UUID, output_id: OutputId) -> KeptFile | None:
        found = await self.outputs.find(output_id)
        if found is None or found[0] != account_id:
            return None
        output = found[1]
        if output.kept.deleted_at is not None:
            raise MediaDeleted(output.kept.deleted_at, output.kept.deleted_because or "")
        return of_output(await self._row(account_id, output_id), output)

    async def _row(self, account_id: UUID, output_id: OutputId) -> Mapping[Any, Any]:
        own = select(*FILE_COLUMNS).where(F.output_job_id == output_id.job_id, F.output_number == output_id.number)
        async with reading(self.engine) as connection:
            row = (await connection.execute(own)).mappings().one_or_none()
        if row is not None:
            return row
        async with transaction(self.engine, "use_output") as connection:
            await connection.execute(
                insert(files)
                .values(
                    id=uuid7(),
                    account_id=account_id,
                    origin=FileOrigin.OUTPUT.value,
                    expires_at=_NEVER,
                    output_job_id=output_id.job_id,
                    output_number=output_id.number,
                )
                # Another job uses it for the first time at the same moment.
                .on_conflict_do_nothing()
            )
            return (await connection.execute(own)).mappings().one()


async def forget_outputs_in_use(connection: AsyncConnection, job_ids: Sequence[UUID], because: DeletedBecause) -> None:
    """Those of the jobs' outputs that were deleted can be used no more."""
    await connection.execute(
        update(files)
        .where(
            any_of(F.output_job_id, "job_ids"),
            F.deleted_at.is_(None),
            outputs.c.job_id == F.output_job_id,
            outputs.c.number == F.output_number,
            outputs.c.deleted_at.is_not(None),
        )
        .values(
            deleted_at=func.now(), deleted_because=because.value, erased_at=func.now(), sent_url=None, sent_until=None
        ),
        {"job_ids": job_ids},
    )
