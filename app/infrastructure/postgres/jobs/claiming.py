"""Claims, many of them in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Update, Uuid, any_, case, exists, func, literal_column, null, or_, select, update
from sqlalchemy.dialects.postgresql import INTERVAL, insert

from app.application.ports.execution import Claim, FilesNotSent, LargeInput
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.locks import locked_jobs
from app.infrastructure.postgres.jobs.rows import INPUT_COLUMNS, IS_KNOWN, input_of
from app.infrastructure.postgres.jobs.states import seconds_since
from app.infrastructure.postgres.jobs.turns import advanced_clock
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, column, constant, seconds
from app.infrastructure.postgres.tables import attempts, files, jobs, places


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job and one attempt to submit it."""

    job_id: UUID
    token: UUID


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    job_id: UUID
    attempt_token: UUID
    may_be_large: bool

    @property
    def attempt(self) -> Attempt:
        return Attempt(self.job_id, self.attempt_token)


# fal may take as long as a job may until it fetches a file.
SENT_AHEAD = "interval '1 day'"

_WANTED = RowArrays("wanted", column("job_id", Uuid), column("attempt_token", Uuid), column("may_be_large", Boolean))
_LOCKED = locked_jobs(_WANTED)
# As stored, which is compressed: nothing is unpacked to see this. What gets through is a few megabytes at the most, of
# one byte repeated.
_IS_SMALL = func.pg_column_size(jobs.c.parameters) <= constant(8192)
_IS_QUEUED = jobs.c.status == constant(JobStatus.QUEUED)
# The same claim again is granted: the answer to the first one was lost.
_IS_THE_SAME_CLAIM = (
    (jobs.c.status == constant(JobStatus.SUBMITTING))
    & (jobs.c.attempt_token == _WANTED.c.attempt_token)
    & jobs.c.submit_unknown_at.is_(None)
)
_FILES_ARE_SENT = or_(
    jobs.c.file_ids.is_(None),
    ~exists(constant(1)).where(
        files.c.id == any_(jobs.c.file_ids),
        or_(
            files.c.sent_until.is_(None),
            files.c.sent_until < func.now() + literal_column(SENT_AHEAD, INTERVAL),
        ),
    ),
)
_OWN_PLACE = (
    select(places.c.number, places.c.job_id)
    .join_from(places, _LOCKED, _LOCKED.c.id == places.c.job_id)
    .with_for_update(of=places)
    .cte("own_place")
)
_CLAIMABLE = (
    update(jobs)
    .values(
        status=constant(JobStatus.SUBMITTING),
        attempts=jobs.c.attempts + case((_IS_QUEUED, constant(1)), else_=constant(0)),
        attempt_token=_WANTED.c.attempt_token,
        claimed_at=func.clock_timestamp(),
        deadline_at=func.clock_timestamp() + seconds(jobs.c.time_limit_seconds),
        status_reason=null(),
        waiting_for=null(),
    )
    .where(
        jobs.c.id == _LOCKED.c.id,
        _WANTED.c.job_id == _LOCKED.c.id,
        _WANTED.c.may_be_large | _IS_SMALL,
        _FILES_ARE_SENT,
        (_IS_QUEUED & jobs.c.held_at.is_(None)) | _IS_THE_SAME_CLAIM,
        IS_KNOWN,
    )
    .returning(
        jobs.c.id,
        jobs.c.attempt_token,
        jobs.c.account_id,
        jobs.c.model_id,
        *INPUT_COLUMNS,
        jobs.c.attempts,
        jobs.c.time_limit_seconds,
        jobs.c.claimed_at,
        jobs.c.fair_tag,
        seconds_since(jobs.c.provider_waiting_since).label("seconds_waiting_for_provider"),
    )
)


def _claim(claimable: Update) -> Statement:
    claimed = claimable.cte("claimed")
    # A claim that is repeated has its row.
    attempt = (
        insert(attempts)
        .from_select(
            ["token", "job_id", "number", "claimed_at"],
            select(claimed.c.attempt_token, claimed.c.id, claimed.c.attempts, claimed.c.claimed_at),
        )
        .on_conflict_do_nothing(index_elements=[attempts.c.token])
    )
    return Statement(select(claimed).add_cte(attempt.cte("attempt"), advanced_clock(claimed).cte("clock")))


_CLAIM = _claim(_CLAIMABLE.values(place=null()))
# A place of its own was given to the job when its item was taken.
_CLAIM_IN_PLACE = _claim(_CLAIMABLE.values(place=_OWN_PLACE.c.number).where(_OWN_PLACE.c.job_id == jobs.c.id))
_REFUSED = Statement(
    select(
        jobs.c.id,
        jobs.c.account_id,
        (~_IS_SMALL).label("is_large"),
        # What is not to be claimed is not made ready for it.
        (_IS_QUEUED & jobs.c.held_at.is_(None) & IS_KNOWN & ~_FILES_ARE_SENT).label("lacks_files"),
    ).where(any_of(jobs.c.id, "job_ids"))
)


async def claim_all(
    driver: DriverConnection,
    requests: Sequence[ClaimRequest],
    *,
    needs_place: bool = False,
    is_repeated: bool = False,
) -> Sequence[Claim | FilesNotSent | LargeInput | None]:
    """Grant each job to one of those that ask for it. A repeated try is granted what the first one was.

    `needs_place`: only a job that has a place at fal is granted. Locks the jobs, then their places.
    """
    claim = _CLAIM_IN_PLACE if needs_place else _CLAIM
    async with driver_transaction(driver, "claim"):
        rows = await claim(driver.fetch, **_WANTED.values(requests))
        claims = {Attempt(row["id"], row["attempt_token"]): _claim_of(row) for row in rows}
        refused = [request.job_id for request in requests if request.attempt not in claims]
        rows = await _REFUSED(driver.fetch, job_ids=refused) if refused else []
    reasons = {row["id"]: row for row in rows}
    return [claims.get(request.attempt) or _reason_of(request, reasons.get(request.job_id)) for request in requests]


def _reason_of(request: ClaimRequest, row: Mapping[str, Any] | None) -> FilesNotSent | LargeInput | None:
    if row is not None and row["lacks_files"]:
        return FilesNotSent(row["account_id"])
    if row is not None and row["is_large"] and not request.may_be_large:
        return LargeInput(row["account_id"])
    return None


def _claim_of(row: Mapping[str, Any]) -> Claim:
    return Claim(
        account_id=row["account_id"],
        model_id=row["model_id"],
        input=input_of(row),
        attempt=row["attempts"],
        time_limit_seconds=row["time_limit_seconds"],
        seconds_waiting_for_provider=row["seconds_waiting_for_provider"],
    )
