"""What a row of `jobs` becomes."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_

from app.domain.catalogue import GenerationKind, models_carried_out
from app.domain.jobs import Job, JobStatus
from app.domain.newer_words import known
from app.infrastructure.postgres.statements import constant, constants
from app.infrastructure.postgres.tables import jobs

_JOB_FIELDS = tuple(field.name for field in fields(Job))
JOB_COLUMNS = tuple(jobs.c[name] for name in _JOB_FIELDS)
# What names the job's request at fal.
REQUEST_COLUMNS = (jobs.c.fal_request_id, jobs.c.fal_status_url, jobs.c.fal_response_url, jobs.c.fal_cancel_url)

# What this release can submit and settle. The steps of all other jobs are left to a newer one.
IS_KNOWN: ColumnElement[bool] = or_(
    false(),
    *(
        and_(jobs.c.kind == constant(kind), jobs.c.model_id.in_(constants(sorted(models_carried_out(kind)))))
        for kind in GenerationKind
    ),
)
# Not by `is_final`: while few jobs are unfinished the planner may find one job by the index of those, and it keeps to
# that plan when they are many. Not by the final statuses either: what is in a status that only a newer release knows is
# that release's own.
IS_UNFINISHED: ColumnElement[bool] = jobs.c.status.in_(constants(status for status in JobStatus if not status.is_final))


def job_of(row: Mapping[Any, Any]) -> Job:
    """From a row that has JOB_COLUMNS."""
    values = {name: row[name] for name in _JOB_FIELDS}
    values["kind"] = known(GenerationKind, row["kind"])
    values["status"] = known(JobStatus, row["status"])
    return Job(**values)
