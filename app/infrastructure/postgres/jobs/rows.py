"""What a row of `jobs` becomes."""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, any_, case, cast, false, func, select
from sqlalchemy.dialects.postgresql import JSONB

from app.domain.attempts import JobInput
from app.domain.files import with_urls
from app.domain.jobs import Job, JobStatus
from app.domain.kinds import GenerationKind
from app.domain.newer_words import known
from app.domain.outputs import outputs_of
from app.domain.terms import FORMS, Terms
from app.infrastructure.postgres.media.rows import KEPT_OUTPUTS, kept_outputs_of
from app.infrastructure.postgres.statements import constant, constants
from app.infrastructure.postgres.tables import files, jobs

# What the terms of a job are read from, also of a job that the release before accepted.
TERMS_COLUMNS = (
    jobs.c.kind,
    jobs.c.cost_tokens,
    jobs.c.outputs_requested,
    cast(jobs.c.terms, Text).label("terms"),
)
# So many jobs have few terms between them.
KNOWN_TERMS_MAX = 10_000
# These are made of other columns.
_MADE_FIELDS = {jobs.c.terms.key, "outputs"}
_JOB_FIELDS = tuple(field.name for field in fields(Job) if field.name not in _MADE_FIELDS)
JOB_COLUMNS = (*dict.fromkeys([*(jobs.c[name] for name in _JOB_FIELDS), *TERMS_COLUMNS]), KEPT_OUTPUTS)
# What names the job's request at fal.
REQUEST_COLUMNS = (jobs.c.fal_request_id, jobs.c.fal_status_url, jobs.c.fal_response_url, jobs.c.fal_cancel_url)

# What this release can submit and settle: whatever has terms in its form, and what the release before accepts, which
# writes none. The steps of all other jobs are left to a newer one.
IS_KNOWN: ColumnElement[bool] = case(
    (jobs.c.terms.is_(None), jobs.c.kind.in_(constants(GenerationKind))),
    else_=func.coalesce(jobs.c.terms.op("->>")(constant("form")).in_(constants(map(str, FORMS))), false()),
)
# Of a job that the release before accepted: it stored the length of a film as a number, and sent it as a text.
_DURATION = jobs.c.parameters.op("->")(constant("duration"))
FAL_INPUT: ColumnElement[Any] = case(
    (
        and_(jobs.c.terms.is_(None), func.jsonb_typeof(_DURATION) == constant("number")),
        jobs.c.parameters.op("||")(
            func.jsonb_build_object(constant("duration"), jobs.c.parameters.op("->>")(constant("duration")))
        ),
    ),
    else_=jobs.c.parameters,
)
# Where fal finds the kept files that the parameters name.
_SENT_URLS: ColumnElement[Any] = case(
    (
        jobs.c.file_ids.is_not(None),
        select(func.jsonb_object_agg(cast(files.c.id, Text), files.c.sent_url))
        .where(files.c.id == any_(jobs.c.file_ids), files.c.sent_url.is_not(None))
        .correlate(jobs)
        .scalar_subquery(),
    )
).label("sent_urls")
# What `input_of` takes.
INPUT_COLUMNS = (
    FAL_INPUT.label("fal_input"),
    func.coalesce(
        jobs.c.terms.op("->")(constant("takes_seed")) != cast(constant("false"), JSONB), constant(True)
    ).label("takes_seed"),
    _SENT_URLS,
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
    values["terms"] = terms = _terms_of(row)
    if row["kept_outputs"] is not None and terms is not None:
        values["outputs"] = outputs_of(row["id"], row["result"] or {}, terms.shape, kept_outputs_of(row))
    return Job(**values)


def input_of(row: Mapping[Any, Any]) -> JobInput:
    """From a row that has INPUT_COLUMNS. A kept file that has no URL for fal stays as the row names it."""
    sent_urls = row["sent_urls"]
    parameters = row["fal_input"] if sent_urls is None else with_urls(row["fal_input"], sent_urls)
    return JobInput(parameters=parameters, takes_seed=row["takes_seed"])


def terms_of(row: Mapping[Any, Any]) -> Terms:
    """From a row that has TERMS_COLUMNS, and terms of this release's form or none."""
    terms = _terms_of(row)
    assert terms is not None
    return terms


def _terms_of(row: Mapping[Any, Any]) -> Terms | None:
    """None: only a newer release can read them."""
    if row["terms"] is not None:
        return _terms_of_text(row["terms"])
    is_video = row["kind"] in (GenerationKind.TEXT_TO_VIDEO, GenerationKind.IMAGE_TO_VIDEO)
    return _terms_before_lines(is_video, row["cost_tokens"], row["outputs_requested"])


@lru_cache(KNOWN_TERMS_MAX)
def _terms_of_text(text: str) -> Terms | None:
    stored = json.loads(text)
    return Terms.of_json(stored) if stored.get("form") in FORMS else None


@lru_cache(KNOWN_TERMS_MAX)
def _terms_before_lines(is_video: bool, cost_tokens: int, outputs: int) -> Terms:
    return Terms.before_lines(is_video=is_video, cost_tokens=cost_tokens, outputs=outputs)
