"""What the rows of a job's outputs become."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, case, cast, func, select

from app.domain.jobs import JobStatus
from app.domain.newer_words import known
from app.domain.outputs import DeletedBecause, KeptOutput
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import jobs, outputs

# Of a row of `jobs`, as one text: null for a job that is not completed.
KEPT_OUTPUTS: ColumnElement[str | None] = case(
    (
        jobs.c.status == constant(JobStatus.COMPLETED),
        select(
            cast(
                func.json_agg(
                    func.json_build_array(
                        outputs.c.number,
                        outputs.c.expires_at,
                        outputs.c.content_type,
                        outputs.c.size_bytes,
                        func.encode(outputs.c.sha256, constant("hex")),
                        outputs.c.stored_at.is_not(None),
                        outputs.c.deleted_at,
                        outputs.c.deleted_because,
                    )
                ),
                Text,
            )
        )
        .where(outputs.c.job_id == jobs.c.id)
        .correlate(jobs)
        .scalar_subquery(),
    )
).label("kept_outputs")


def kept_outputs_of(row: Mapping[Any, Any]) -> Sequence[KeptOutput]:
    """From a row that has KEPT_OUTPUTS, which is not null."""
    return [_kept(*values) for values in json.loads(row["kept_outputs"])]


def _kept(
    number: int,
    expires_at: str,
    content_type: str | None,
    size_bytes: int | None,
    sha256: str | None,
    *rest: Any,
) -> KeptOutput:
    is_stored, deleted_at, deleted_because = rest
    return KeptOutput(
        number=number,
        expires_at=_moment(expires_at),
        content_type=content_type,
        size_bytes=size_bytes,
        sha256=sha256,
        is_stored=is_stored,
        deleted_at=None if deleted_at is None else _moment(deleted_at),
        deleted_because=None if deleted_because is None else known(DeletedBecause, deleted_because),
    )


def _moment(text: str) -> datetime:
    """JSON has it in the time zone of the server."""
    return datetime.fromisoformat(text).astimezone(UTC)
