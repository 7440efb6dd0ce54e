"""How a job ends, whoever sees the end first."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog

from app.application.ports.execution import AttemptEnd, JobEnds, JobState
from app.application.ports.provider import InProgress, InQueue, Observation, Rejected, Stopped, Succeeded
from app.domain import job_errors
from app.domain.errors import DatabaseUnavailable, Overloaded
from app.domain.jobs import Outcome, outcome_of_result

log = structlog.get_logger(__name__)

PERSIST_TRIES_MAX = 1200
PERSIST_PAUSE_SECONDS = 0.5
TIMED_OUT = job_errors.TIMED_OUT.sentence()

Result = TypeVar("Result")


async def persist(operation: Callable[[], Awaitable[Result]]) -> Result:
    """Repeat an operation that may be repeated until the database takes it, for ten minutes at least.

    What fal answered is known only here: a database that is away for a moment must not turn it into a mystery.
    """
    for _ in range(PERSIST_TRIES_MAX):
        try:
            return await operation()
        except (DatabaseUnavailable, Overloaded):
            await asyncio.sleep(PERSIST_PAUSE_SECONDS)
    return await operation()


def outcome_of(observation: Observation, state: JobState) -> Outcome | None:
    match observation:
        case Succeeded(result):
            return outcome_of_result(result, state.terms)
        case Rejected(code, reason):
            return Outcome.failed(code, reason)
        case Stopped():
            # If the job is overdue, it was we who asked fal to stop.
            return given_up(state, "timed_out", TIMED_OUT) if state.is_overdue else Outcome.canceled()
        case InQueue() | InProgress():
            return None


def given_up(state: JobState, code: str, reason: str) -> Outcome:
    return Outcome.canceled() if state.cancel_requested else Outcome.failed(code, reason)


async def settle_or_keep_late(jobs: JobEnds, state: JobState, outcome: Outcome, by: AttemptEnd | None = None) -> None:
    if not await settle(jobs, state, outcome, by) and outcome.result is not None:
        # Somebody else ended the job first, and may have given it up.
        await jobs.record_late_result(state.id, outcome.result)


async def settle(jobs: JobEnds, state: JobState, outcome: Outcome, by: AttemptEnd | None = None) -> bool:
    """False: somebody else ended the job first."""
    is_settled = await jobs.settle(state.id, outcome, by)
    if is_settled:
        log.info(
            "generation_settled",
            job_id=str(state.id),
            status=outcome.status.value,
            code=outcome.error_code,
            seconds=round(state.seconds_since_claim, 1),
        )
    return is_settled


async def record_late_result(jobs: JobEnds, state: JobState, request_id: str, result: Mapping[str, Any]) -> None:
    log.error("generation_result_late", job_id=str(state.id), status=state.status.value, fal_request_id=request_id)
    await jobs.record_late_result(state.id, result)
