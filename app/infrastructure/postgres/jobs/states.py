"""Where jobs stand, by the database's clock, for the steps that decide from it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Double, case, cast, extract, func, select

from app.application.execution.steps import LeftToNewerRelease
from app.application.ports.execution import JobState
from app.application.ports.provider import ProviderRequest
from app.domain.catalogue import GenerationKind
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import DriverConnection
from app.infrastructure.postgres.jobs.rows import IS_KNOWN
from app.infrastructure.postgres.statements import Statement, any_of, constant, constants
from app.infrastructure.postgres.tables import jobs


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[float]:
    return cast(extract("epoch", interval), Double)


def _seconds_since(moment: ColumnElement[Any]) -> ColumnElement[float]:
    return _seconds(func.clock_timestamp() - moment)


_STATE = select(
    jobs.c.id,
    jobs.c.account_id,
    jobs.c.kind,
    jobs.c.model_id,
    jobs.c.status,
    jobs.c.status_reason,
    jobs.c.attempt_token,
    jobs.c.fal_request_id,
    jobs.c.fal_status_url,
    jobs.c.fal_response_url,
    jobs.c.fal_cancel_url,
    jobs.c.cost_tokens,
    jobs.c.outputs_requested,
    (IS_KNOWN & jobs.c.status.in_(constants(JobStatus))).label("is_known"),
    jobs.c.cancel_requested_at.is_not(None).label("cancel_requested"),
    jobs.c.submit_unknown_at.is_not(None).label("is_submit_unknown"),
    func.coalesce(_seconds_since(jobs.c.claimed_at), constant(0)).label("seconds_since_claim"),
    _seconds_since(jobs.c.cancel_sent_at).label("seconds_since_cancel_sent"),
    _seconds_since(jobs.c.overdue_noticed_at).label("seconds_since_overdue_noticed"),
    case(
        (jobs.c.deadline_at.is_(None), cast(constant("infinity"), Double)),
        else_=_seconds(jobs.c.deadline_at - func.clock_timestamp()),
    ).label("seconds_to_deadline"),
)
_STATE_OF_JOBS = Statement(_STATE.where(any_of(jobs.c.id, "job_ids")))
_STATE_OF_ATTEMPTS = Statement(_STATE.where(any_of(jobs.c.attempt_token, "attempt_tokens")))

State = JobState | LeftToNewerRelease


async def load_all(
    driver: DriverConnection, job_ids: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[State | None]:
    states = {row["id"]: _state_of(row) for row in await _STATE_OF_JOBS(driver.fetch, job_ids=job_ids)}
    return [states.get(job_id) for job_id in job_ids]


async def load_all_attempts(
    driver: DriverConnection, tokens: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[State | None]:
    rows = await _STATE_OF_ATTEMPTS(driver.fetch, attempt_tokens=tokens)
    states = {row["attempt_token"]: _state_of(row) for row in rows}
    return [states.get(token) for token in tokens]


def _state_of(row: Mapping[str, Any]) -> State:
    if not row["is_known"]:
        return LeftToNewerRelease(row["id"])
    return JobState(
        id=row["id"],
        account_id=row["account_id"],
        kind=GenerationKind(row["kind"]),
        model_id=row["model_id"],
        status=JobStatus(row["status"]),
        status_reason=row["status_reason"],
        attempt_token=row["attempt_token"],
        request=_request_of(row),
        cancel_requested=row["cancel_requested"],
        cost_tokens=row["cost_tokens"],
        outputs_requested=row["outputs_requested"],
        seconds_since_claim=row["seconds_since_claim"],
        seconds_since_cancel_sent=row["seconds_since_cancel_sent"],
        is_submit_unknown=row["is_submit_unknown"],
        seconds_to_deadline=row["seconds_to_deadline"],
        seconds_since_overdue_noticed=row["seconds_since_overdue_noticed"],
    )


def _request_of(row: Mapping[str, Any]) -> ProviderRequest | None:
    if row["fal_request_id"] is None:
        return None
    return ProviderRequest(
        id=row["fal_request_id"],
        status_url=row["fal_status_url"],
        response_url=row["fal_response_url"],
        cancel_url=row["fal_cancel_url"],
    )
