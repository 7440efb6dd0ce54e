"""What a row of `jobs` becomes."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_

from app.domain.catalogue import MODEL_IDS, GenerationKind
from app.domain.jobs import Job, JobStatus
from app.domain.reading import known
from app.infrastructure.postgres.statements import constant
from app.infrastructure.postgres.tables import jobs

_JOB_FIELDS = tuple(field.name for field in fields(Job))
JOB_COLUMNS = tuple(jobs.c[name] for name in _JOB_FIELDS)

# What this release can submit and settle. Whatever else there is was written by a newer one, and is left to that.
IS_KNOWN: ColumnElement[bool] = or_(
    false(),
    *(
        and_(jobs.c.kind == constant(kind), jobs.c.model_id == constant(model_id))
        for kind, model_id in MODEL_IDS.items()
    ),
)


def job_of(row: Mapping[Any, Any]) -> Job:
    """From a row that has JOB_COLUMNS."""
    values = {name: row[name] for name in _JOB_FIELDS}
    values["kind"] = known(GenerationKind, row["kind"])
    values["status"] = known(JobStatus, row["status"])
    return Job(**values)
