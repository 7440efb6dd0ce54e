"""What the rows of jobs have of their inputs, for whoever started them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Text, any_, case, cast, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.jobs import StoredInput
from app.domain.files import FileOrigin, KeptReference
from app.domain.outputs import OutputId
from app.infrastructure.postgres.database import reading
from app.infrastructure.postgres.files.own_outputs import IS_AT_PROVIDER
from app.infrastructure.postgres.jobs.inputs import LARGE_INPUT_BYTES
from app.infrastructure.postgres.jobs.rows import FAL_INPUT
from app.infrastructure.postgres.statements import any_of, constant
from app.infrastructure.postgres.tables import files, jobs, outputs

# As JSON. The longest prompt that any model takes fits, in whatever letters; what is larger has whole pictures in it,
# and a page would bring hundreds of megabytes out of the database.
TOLD_BYTES_MAX = 256 * 1024
# Of all jobs of a page. Whoever starts and cancels jobs with the longest prompts pays nothing for them, and a hundred
# would be an answer of 8 MB. As many whose inputs are not large fit.
PAGE_BYTES_MAX = 1024 * 1024

_IS_SMALL = or_(
    jobs.c.input_bytes.is_(None),
    jobs.c.input_bytes <= constant(TOLD_BYTES_MAX),
    jobs.c.input_forgotten_at.is_not(None),
)
_HAS_OUTPUT = exists(constant(1)).where(
    outputs.c.job_id == files.c.output_job_id,
    outputs.c.number == files.c.output_number,
    outputs.c.deleted_at.is_(None),
    or_(outputs.c.stored_at.is_not(None), IS_AT_PROVIDER),
)
# What a request of this moment could name.
_IS_THERE = files.c.deleted_at.is_(None) & case(
    (files.c.origin == constant(FileOrigin.OUTPUT), _HAS_OUTPUT),
    else_=files.c.stored_at.is_not(None) & (files.c.expires_at > func.now()),
)
_REFERENCES: ColumnElement[Any] = case(
    (
        jobs.c.file_ids.is_not(None),
        select(
            func.jsonb_object_agg(
                cast(files.c.id, Text), func.jsonb_build_array(files.c.output_job_id, files.c.output_number)
            )
        )
        .where(files.c.id == any_(jobs.c.file_ids), files.c.account_id == jobs.c.account_id, _IS_THERE)
        .correlate(jobs)
        .scalar_subquery(),
    )
)
_SIZE_BYTES = case(
    (~_IS_SMALL, constant(0)),
    (jobs.c.input_forgotten_at.is_not(None), func.octet_length(cast(FAL_INPUT, Text))),
    else_=func.coalesce(jobs.c.input_bytes, constant(LARGE_INPUT_BYTES)),
)
# Newest first, as pages are.
_BYTES_BEFORE = func.sum(_SIZE_BYTES).over(order_by=(jobs.c.created_at.desc(), jobs.c.id.desc())) - _SIZE_BYTES


def _inputs_of(account_id: UUID) -> Select[Any]:
    asked = (
        select(jobs.c.id, _BYTES_BEFORE.label("bytes_before"))
        .where(any_of(jobs.c.id, "job_ids"), jobs.c.account_id == account_id)
        .subquery("asked")
    )
    return (
        select(
            jobs.c.id,
            _IS_SMALL.label("is_told"),
            case((_IS_SMALL, FAL_INPUT)).label("fal_input"),
            case((_IS_SMALL, _REFERENCES)).label("references"),
        )
        .join(asked, asked.c.id == jobs.c.id)
        .where(asked.c.bytes_before < constant(PAGE_BYTES_MAX))
    )


@dataclass(frozen=True, slots=True)
class PostgresStoredInputs:
    engine: AsyncEngine

    async def of_jobs(self, account_id: UUID, job_ids: Sequence[UUID]) -> Mapping[UUID, StoredInput | None]:
        async with reading(self.engine) as connection:
            rows = (await connection.execute(_inputs_of(account_id), {"job_ids": list(job_ids)})).mappings().all()
        return {
            row["id"]: StoredInput(row["fal_input"], _references(row["references"] or {})) if row["is_told"] else None
            for row in rows
        }


def _references(rows: Mapping[str, Any]) -> Mapping[str, KeptReference]:
    return {
        file_id: UUID(file_id) if job_id is None else OutputId(UUID(job_id), number)
        for file_id, (job_id, number) in rows.items()
    }
