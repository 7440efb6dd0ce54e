"""Where jobs stand, by the database's clock, for the steps that decide from it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Double, case, cast, extract, func, select

from app.application.execution.steps import LeftToNewerRelease
from app.application.ports.execution import AttemptState, JobState
from app.application.ports.provider import ProviderRequest
from app.domain.jobs import JobStatus
from app.domain.kinds import GenerationKind
from app.domain.newer_words import known
from app.infrastructure.postgres.database import DriverConnection
from app.infrastructure.postgres.jobs.rows import IS_KNOWN, TERMS_COLUMNS, terms_of
from app.infrastructure.postgres.statements import Statement, any_of, constant, constants
from app.infrastructure.postgres.tables import attempts, jobs


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[float]:
    return cast(extract("epoch", interval), Double)


def seconds_since(moment: ColumnElement[Any]) -> ColumnElement[float]:
    return _seconds(func.clock_timestamp() - moment)


_STATE = select(
    jobs.c.id,
    jobs.c.account_id,
    jobs.c.model_id,
    jobs.c.status,
    jobs.c.status_reason,
    jobs.c.attempt_token,
    jobs.c.fal_request_id,
    jobs.c.fal_status_url,
    jobs.c.fal_response_url,
    jobs.c.fal_cancel_url,
    *TERMS_COLUMNS,
    (IS_KNOWN & jobs.c.status.in_(constants(JobStatus))).label("is_known"),
    jobs.c.cancel_requested_at.is_not(None).label("cancel_requested"),
    jobs.c.submit_unknown_at.is_not(None).label("is_submit_unknown"),
    jobs.c.held_at.is_not(None).label("is_held"),
    jobs.c.waiting_for,
    jobs.c.provider_position,
    seconds_since(jobs.c.provider_waiting_since).label("seconds_waiting_for_provider"),
    func.coalesce(seconds_since(jobs.c.claimed_at), constant(0)).label("seconds_since_claim"),
    seconds_since(jobs.c.cancel_sent_at).label("seconds_since_cancel_sent"),
    seconds_since(jobs.c.overdue_noticed_at).label("seconds_since_overdue_noticed"),
    case(
        (jobs.c.deadline_at.is_(None), cast(constant("infinity"), Double)),
        else_=_seconds(jobs.c.deadline_at - func.clock_timestamp()),
    ).label("seconds_to_deadline"),
)
_STATE_OF_JOBS = Statement(_STATE.where(any_of(jobs.c.id, "job_ids")))
_STATE_OF_NEWEST_ATTEMPTS = Statement(_STATE.where(any_of(jobs.c.attempt_token, "tokens")))
_STATE_OF_OTHER_ATTEMPTS = Statement(
    _STATE.add_columns(attempts.c.token, attempts.c.fal_request_id.label("own_request_id"))
    .join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
    .where(any_of(attempts.c.token, "tokens"))
)

State = JobState | LeftToNewerRelease


async def load_all(
    driver: DriverConnection, job_ids: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[State | None]:
    states = {row["id"]: _state_of(row) for row in await _STATE_OF_JOBS(driver.fetch, job_ids=job_ids)}
    return [states.get(job_id) for job_id in job_ids]


async def load_all_attempts(
    driver: DriverConnection, tokens: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[AttemptState | LeftToNewerRelease | None]:
    rows = await _STATE_OF_NEWEST_ATTEMPTS(driver.fetch, tokens=tokens)
    states = {row["attempt_token"]: _attempt_of(row, row["attempt_token"], row["fal_request_id"]) for row in rows}
    # Almost every event is of the attempt that its job follows.
    others = [token for token in tokens if token not in states]
    if others:
        rows = await _STATE_OF_OTHER_ATTEMPTS(driver.fetch, tokens=others)
        states |= {row["token"]: _attempt_of(row, row["token"], row["own_request_id"]) for row in rows}
    return [states.get(token) for token in tokens]


def _attempt_of(row: Mapping[str, Any], token: UUID, request_id: str | None) -> AttemptState | LeftToNewerRelease:
    job = _state_of(row)
    return job if isinstance(job, LeftToNewerRelease) else AttemptState(job=job, token=token, request_id=request_id)


def _state_of(row: Mapping[str, Any]) -> State:
    if not row["is_known"]:
        return LeftToNewerRelease(row["id"])
    return JobState(
        id=row["id"],
        account_id=row["account_id"],
        kind=known(GenerationKind, row["kind"]),
        model_id=row["model_id"],
        status=JobStatus(row["status"]),
        status_reason=row["status_reason"],
        attempt_token=row["attempt_token"],
        request=_request_of(row),
        cancel_requested=row["cancel_requested"],
        terms=terms_of(row),
        seconds_since_claim=row["seconds_since_claim"],
        seconds_since_cancel_sent=row["seconds_since_cancel_sent"],
        is_submit_unknown=row["is_submit_unknown"],
        is_held=row["is_held"],
        waiting_for=row["waiting_for"],
        seconds_waiting_for_provider=row["seconds_waiting_for_provider"],
        provider_position=row["provider_position"],
        seconds_to_deadline=row["seconds_to_deadline"],
        seconds_since_overdue_noticed=row["seconds_since_overdue_noticed"],
    )


def _request_of(row: Mapping[str, Any]) -> ProviderRequest | None:
    if row["fal_request_id"] is None:
        return None
    # A final job has no URLs any more, and nobody asks for them.
    return ProviderRequest(
        id=row["fal_request_id"],
        status_url=row["fal_status_url"] or "",
        response_url=row["fal_response_url"] or "",
        cancel_url=row["fal_cancel_url"] or "",
    )
