"""Where jobs stand, by the database's clock, for the steps that decide from it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app.application.ports.execution import JobState
from app.application.ports.provider import ProviderRequest
from app.domain.catalogue import GenerationKind
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import DriverConnection

_STATE = """
    SELECT id, kind, model_id, status, attempt_token, fal_request_id, fal_status_url, fal_response_url, fal_cancel_url,
           cancel_requested_at IS NOT NULL AS cancel_requested,
           cost_tokens,
           outputs_requested,
           coalesce(extract(epoch FROM clock_timestamp() - claimed_at), 0)::float8 AS seconds_since_claim,
           extract(epoch FROM clock_timestamp() - cancel_sent_at)::float8 AS seconds_since_cancel_sent,
           submit_unknown_at IS NOT NULL AS is_submit_unknown,
           coalesce(extract(epoch FROM deadline_at - clock_timestamp()), 'infinity')::float8 AS seconds_to_deadline,
           extract(epoch FROM clock_timestamp() - overdue_noticed_at)::float8 AS seconds_since_overdue_noticed
      FROM jobs
"""
_STATE_OF_JOBS = f"{_STATE} WHERE id = ANY($1::uuid[])"
_STATE_OF_ATTEMPTS = f"{_STATE} WHERE attempt_token = ANY($1::uuid[])"


async def load_all(
    driver: DriverConnection, job_ids: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[JobState | None]:
    states = {row["id"]: _state_of(row) for row in await driver.fetch(_STATE_OF_JOBS, job_ids)}
    return [states.get(job_id) for job_id in job_ids]


async def load_all_attempts(
    driver: DriverConnection, tokens: Sequence[UUID], *, is_repeated: bool = False
) -> Sequence[JobState | None]:
    states = {row["attempt_token"]: _state_of(row) for row in await driver.fetch(_STATE_OF_ATTEMPTS, tokens)}
    return [states.get(token) for token in tokens]


def _state_of(row: Any) -> JobState:
    request = (
        ProviderRequest(row["fal_request_id"], row["fal_status_url"], row["fal_response_url"], row["fal_cancel_url"])
        if row["fal_request_id"] is not None
        else None
    )
    return JobState(
        id=row["id"],
        kind=GenerationKind(row["kind"]),
        model_id=row["model_id"],
        status=JobStatus(row["status"]),
        attempt_token=row["attempt_token"],
        request=request,
        cancel_requested=row["cancel_requested"],
        cost_tokens=row["cost_tokens"],
        outputs_requested=row["outputs_requested"],
        seconds_since_claim=row["seconds_since_claim"],
        seconds_since_cancel_sent=row["seconds_since_cancel_sent"],
        is_submit_unknown=row["is_submit_unknown"],
        seconds_to_deadline=row["seconds_to_deadline"],
        seconds_since_overdue_noticed=row["seconds_since_overdue_noticed"],
    )
