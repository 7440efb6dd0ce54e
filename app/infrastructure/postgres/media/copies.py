"""Copies of outputs: which of them are wanted, and what has become of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, exists, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.media import OutputToCopy, StoredCopy
from app.domain.outputs import Output, OutputId
from app.infrastructure.postgres.database import reading, transaction
from app.infrastructure.postgres.jobs.rows import JOB_COLUMNS, job_of
from app.infrastructure.postgres.jobs.states import seconds_since
from app.infrastructure.postgres.lost_steps import WaitingSubjects
from app.infrastructure.postgres.tables import jobs, outputs

_O = outputs.c
_IS_TO_COPY = _O.stored_at.is_(None) & _O.given_up_at.is_(None) & _O.deleted_at.is_(None)
_IS_TO_ERASE = _O.deleted_at.is_not(None) & _O.erased_at.is_(None)
# A process that did not notice may go on with a copy for as long.
_COPY_MAY_COME = "interval '1 day'"

OUTPUTS_TO_COPY: WaitingSubjects = select(_O.job_id.label("id")).where(_IS_TO_COPY).distinct()
OUTPUTS_TO_ERASE: WaitingSubjects = select(_O.job_id.label("id")).where(_IS_TO_ERASE).distinct()


@dataclass(frozen=True, slots=True)
class PostgresOutputCopies:
    engine: AsyncEngine
    days_kept: int

    async def to_copy(self, job_id: UUID) -> Sequence[OutputToCopy]:
        waiting = select(_O.number, seconds_since(_O.created_at).label("seconds")).where(
            _O.job_id == job_id, _IS_TO_COPY
        )
        async with reading(self.engine) as connection:
            rows = (await connection.execute(waiting)).all()
            seconds: Mapping[int, float] = {row.number: row.seconds for row in rows}
            if not seconds:
                return []
            of_job = select(
                *JOB_COLUMNS,
                seconds_since(jobs.c.updated_at).label("since_end"),
                seconds_since(jobs.c.created_at).label("since_accept"),
            )
            row = (await connection.execute(of_job.where(jobs.c.id == job_id))).mappings().one()
            job = job_of(row)
        return [
            OutputToCopy(
                id=output.id,
                account_id=job.account_id,
                url=output.provider_url,
                seconds_waiting=seconds[output.id.number],
                seconds_since_end=row["since_end"],
                seconds_since_accept=row["since_accept"],
            )
            for output in job.outputs
            if output.id.number in seconds
        ]

    async def record_stored(self, output_id: OutputId, copy: StoredCopy) -> bool:
        async with transaction(self.engine, "record_stored_output") as connection:
            stored = await connection.execute(
                update(outputs)
                .where(_is(output_id), _IS_TO_COPY, jobs.c.id == _O.job_id)
                .values(
                    stored_at=func.now(),
                    content_type=copy.content_type,
                    size_bytes=copy.size_bytes,
                    sha256=copy.sha256,
                    expires_at=self._expiry(),
                )
            )
            # Somebody else may have stored the same bytes under the same key meanwhile.
            return bool(stored.rowcount) or bool(
                await connection.scalar(
                    select(exists().where(_is(output_id), _O.stored_at.is_not(None), _O.deleted_at.is_(None)))
                )
            )

    async def give_up(self, output_id: OutputId, *, is_kept_at_provider: bool) -> None:
        async with transaction(self.engine, "give_up_output") as connection:
            values: dict[str, ColumnElement[Any]] = {"given_up_at": func.now()}
            if is_kept_at_provider:
                values["expires_at"] = self._expiry()
            await connection.execute(
                update(outputs).where(_is(output_id), _IS_TO_COPY, jobs.c.id == _O.job_id).values(values)
            )

    async def to_erase(self, job_id: UUID) -> Sequence[OutputId]:
        query = select(_O.number).where(_O.job_id == job_id, _IS_TO_ERASE).order_by(_O.number)
        async with reading(self.engine) as connection:
            return [OutputId(job_id, number) for number in await connection.scalars(query)]

    async def record_erased(self, output_id: OutputId) -> bool:
        is_over = or_(_O.stored_at.is_not(None), _O.deleted_at < func.now() - literal_column(_COPY_MAY_COME, INTERVAL))
        async with transaction(self.engine, "record_erased_output") as connection:
            erased = await connection.execute(
                update(outputs).where(_is(output_id), _IS_TO_ERASE, is_over).values(erased_at=func.now())
            )
            return bool(erased.rowcount)

    async def find(self, output_id: OutputId) -> tuple[UUID, Output] | None:
        query = select(*JOB_COLUMNS).where(jobs.c.id == output_id.job_id)
        async with reading(self.engine) as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        job = job_of(row)
        found = next((output for output in job.outputs if output.id == output_id), None)
        return None if found is None else (job.account_id, found)

    def _expiry(self) -> ColumnElement[DateTime]:
        """Never earlier than was said before."""
        return func.greatest(_O.expires_at, jobs.c.updated_at + func.make_interval(0, 0, 0, self.days_kept))


def _is(output_id: OutputId) -> ColumnElement[bool]:
    return (_O.job_id == output_id.job_id) & (_O.number == output_id.number)
