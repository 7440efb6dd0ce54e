"""Which files of a job fal has no URL for, and who hands them over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import any_, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.files import FileToSend
from app.application.ports.media import OutputReader
from app.domain.jobs import JobStatus, Outcome
from app.domain.outputs import OutputId
from app.infrastructure.postgres.database import fetch_through, reading, transaction
from app.infrastructure.postgres.files.own_outputs import IS_AT_PROVIDER, UNTIL_AT_PROVIDER
from app.infrastructure.postgres.files.rows import FILE_COLUMNS, F, file_of, of_output
from app.infrastructure.postgres.jobs.claiming import SENT_AHEAD
from app.infrastructure.postgres.jobs.settling import Settlement, settle_through
from app.infrastructure.postgres.statements import seconds
from app.infrastructure.postgres.tables import files, jobs, outputs

_LACKS_URL = or_(F.sent_until.is_(None), F.sent_until < func.now() + literal_column(SENT_AHEAD, INTERVAL))


@dataclass(frozen=True, slots=True)
class PostgresFilesToSend:
    engine: AsyncEngine
    outputs: OutputReader

    async def of_job(self, job_id: UUID) -> Sequence[FileToSend]:
        query = (
            select(
                *FILE_COLUMNS,
                F.output_job_id,
                F.output_number,
                IS_AT_PROVIDER.label("is_at_provider"),
                UNTIL_AT_PROVIDER.label("until_at_provider"),
                func.now().label("now"),
            )
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
            return FileToSend(file=file_of(row), now=row["now"])
        output_id = OutputId(row["output_job_id"], row["output_number"])
        found = await self.outputs.find(output_id)
        assert found is not None, "outputs are never deleted"
        output = found[1]
        return FileToSend(
            file=of_output(row, output),
            now=row["now"],
            output_id=output_id,
            provider_url=output.provider_url if row["is_at_provider"] else None,
            provider_url_until=row["until_at_provider"],
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

    async def end_queued(self, job_id: UUID, outcome: Outcome) -> bool:
        queued = select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.status == JobStatus.QUEUED.value)
        async with transaction(self.engine, "end_queued") as connection:
            if await connection.scalar(queued.with_for_update()) is None:
                return False
            await settle_through(fetch_through(connection), [Settlement.of(job_id, outcome)])
            return True
