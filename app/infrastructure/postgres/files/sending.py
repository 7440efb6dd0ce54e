"""Which files of a job fal has no URL for, and who hands them over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import any_, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.files import FileToSend
from app.application.ports.media import OutputReader
from app.domain.outputs import Output, OutputId
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.files.rows import FILE_COLUMNS, F, file_of, of_output
from app.infrastructure.postgres.jobs.claiming import SENT_AHEAD
from app.infrastructure.postgres.statements import seconds
from app.infrastructure.postgres.tables import files, jobs, outputs

# For so long fal was asked, at the least, to keep what it made.
AT_PROVIDER = timedelta(days=3)
_LACKS_URL = or_(F.sent_until.is_(None), F.sent_until < func.now() + literal_column(SENT_AHEAD, INTERVAL))


def _until_at_provider(output: Output, created_at: datetime) -> datetime:
    """Of what is not stored, its own time says for how long fal keeps it."""
    return created_at + AT_PROVIDER if output.kept.is_stored else output.kept.expires_at


@dataclass(frozen=True, slots=True)
class PostgresFilesToSend:
    engine: AsyncEngine
    outputs: OutputReader

    async def of_job(self, job_id: UUID) -> Sequence[FileToSend]:
        query = (
            select(*FILE_COLUMNS, F.output_job_id, F.output_number, outputs.c.created_at.label("output_created_at"))
            .select_from(files)
            .join(jobs, F.id == any_(jobs.c.file_ids))
            .join(
                outputs,
                (outputs.c.job_id == F.output_job_id) & (outputs.c.number == F.output_number),
                isouter=True,
            )
            .where(jobs.c.id == job_id, _LACKS_URL)
            .order_by(F.id)
        )
        async with reading(self.engine) as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [await self._to_send(row) for row in rows]

    async def _to_send(self, row: Mapping[Any, Any]) -> FileToSend:
        if row["output_job_id"] is None:
            return FileToSend(file=file_of(row), output_id=None, provider_url=None, provider_url_until=None)
        output_id = OutputId(row["output_job_id"], row["output_number"])
        found = await self.outputs.find(output_id)
        assert found is not None, "outputs are never deleted"
        output = found[1]
        return FileToSend(
            file=of_output(row, output),
            output_id=output_id,
            provider_url=output.provider_url,
            provider_url_until=_until_at_provider(output, row["output_created_at"]),
        )

    async def begin(self, file_id: UUID, seconds_max: float) -> bool:
        is_free = or_(F.handed_over_until.is_(None), F.handed_over_until < func.clock_timestamp())
        until = func.clock_timestamp() + seconds(literal_column(str(float(seconds_max))))
        async with transaction(self.engine, "begin_to_hand_over") as connection:
            begun = await connection.execute(
                update(files)
                .where(F.id == file_id, F.deleted_at.is_(None), _LACKS_URL, is_free)
                .values(handed_over_until=until)
            )
            return bool(begun.rowcount)

    async def record_sent(self, file_id: UUID, url: str, until: datetime) -> None:
        async with transaction(self.engine, "record_sent_file") as connection:
            await connection.execute(
                update(files)
                .where(F.id == file_id, F.deleted_at.is_(None))
                .values(sent_url=url, sent_until=until, handed_over_until=None)
            )

    async def give_back(self, file_id: UUID) -> None:
        async with transaction(self.engine, "give_back_file") as connection:
            await connection.execute(update(files).where(F.id == file_id).values(handed_over_until=None))
