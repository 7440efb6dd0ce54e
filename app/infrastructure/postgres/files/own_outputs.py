"""Outputs that are used again: each has one row among the files, so that fal gets one URL for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, case, func, literal_column, select
from sqlalchemy.dialects.postgresql import INTERVAL, insert
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.application.ports.media import OutputReader
from app.domain.files import FileOrigin, KeptFile
from app.domain.media_errors import MediaDeleted, MediaUnavailable
from app.domain.outputs import OutputId
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.files.rows import FILE_COLUMNS, F, of_output
from app.infrastructure.postgres.tables import files, outputs

# For so long fal was asked, at the least, to keep what it made; of what was never stored its own time says it.
UNTIL_AT_PROVIDER: ColumnElement[datetime] = case(
    (outputs.c.stored_at.is_not(None), outputs.c.created_at + literal_column("interval '3 days'", INTERVAL)),
    else_=outputs.c.expires_at,
)
# fal may fetch it as late as a job may take, and an hour is for the way there.
IS_AT_PROVIDER: ColumnElement[bool] = func.now() + literal_column("interval '25 hours'", INTERVAL) < UNTIL_AT_PROVIDER
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
        row = await self._row(account_id, output_id)
        if not output.kept.is_stored and not row["is_at_provider"]:
            raise MediaUnavailable("The output is about to end at the provider, and there is no copy of it.")
        return of_output(row, output)

    async def _row(self, account_id: UUID, output_id: OutputId) -> Mapping[Any, Any]:
        own = (
            select(*FILE_COLUMNS, IS_AT_PROVIDER.label("is_at_provider"))
            .join(outputs, (outputs.c.job_id == F.output_job_id) & (outputs.c.number == F.output_number))
            .where(F.output_job_id == output_id.job_id, F.output_number == output_id.number)
        )
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
