"""Ends of jobs, many of them in one transaction: the one way into a final status, with its refund."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Self
from uuid import UUID

from sqlalchemy import Text, Uuid, case, insert, null, select, update

from app.application.execution.steps import COPY_OUTPUTS, FOLLOW_JOB
from app.application.ports.execution import AttemptEnd
from app.domain.attempts import AttemptOutcome
from app.domain.jobs import JobStatus, Outcome
from app.domain.ledger import EntryKind
from app.infrastructure.postgres.database import DriverConnection, Fetch, driver_transaction
from app.infrastructure.postgres.jobs.attempts import TakeOver, note_ends, take_over_through
from app.infrastructure.postgres.jobs.inputs import FORGET
from app.infrastructure.postgres.jobs.locks import locked_jobs
from app.infrastructure.postgres.jobs.paces import Run, RunTimes
from app.infrastructure.postgres.jobs.rows import IS_UNFINISHED
from app.infrastructure.postgres.jobs.states import seconds_since
from app.infrastructure.postgres.queue import delete_queued, insert_items
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, column, constant
from app.infrastructure.postgres.tables import accounts, attempts, jobs, ledger_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    job_id: UUID
    status: JobStatus
    refunded_tokens: int
    """Of a job that is completed; others give all their tokens back."""
    refunded_lines: str | None
    """As JSON: what `refunded_tokens` is made of."""
    result: str | None
    """As JSON."""
    error_code: str | None
    error_message: str | None
    attempt_token: UUID | None
    attempt_outcome: AttemptOutcome | None
    input_digest: bytes | None
    billed_units: Decimal | None
    take_over: TakeOver | None

    @classmethod
    def of(cls, job_id: UUID, outcome: Outcome, by: AttemptEnd | None = None) -> Self:
        taken = None if by is None else by.takes_over
        return cls(
            job_id=job_id,
            status=outcome.status,
            refunded_tokens=outcome.refunded_tokens,
            refunded_lines=None if outcome.refunded_lines is None else json.dumps(outcome.refunded_lines),
            result=None if outcome.result is None else json.dumps(outcome.result),
            error_code=outcome.error_code,
            error_message=outcome.error_message,
            attempt_token=None if by is None else by.token,
            attempt_outcome=None if by is None else by.outcome,
            input_digest=None if by is None else by.refused_input,
            billed_units=None if by is None else by.billed_units,
            take_over=None if by is None or taken is None else TakeOver.of(job_id, by.token, taken),
        )

    @property
    def size_bytes(self) -> int:
        return 0 if self.result is None else len(self.result)


_ENDED = RowArrays(
    "ended",
    column("job_id", Uuid),
    jobs.c.status,
    jobs.c.refunded_tokens,
    jobs.c.refunded_lines,
    jobs.c.result,
    jobs.c.error_code,
    jobs.c.error_message,
)
_TOLD = RowArrays(
    "told",
    column("attempt_token", Uuid),
    column("attempt_outcome", Text),
    attempts.c.input_digest,
    attempts.c.billed_units,
    jobs.c.error_code,
)
_LOCKED = locked_jobs(_ENDED, jobs.c.account_id)
# An end changes a counter of the account. Triggers would lock the accounts in the order of the jobs.
_ACCOUNT = (
    select(accounts.c.id)
    .where(accounts.c.id.in_(select(_LOCKED.c.account_id)))
    .order_by(accounts.c.id)
    .with_for_update(key_share=True)
    .cte("account")
    .prefix_with("MATERIALIZED")
)
_SETTLED = (
    update(jobs)
    .values(
        status=_ENDED.c.status,
        refunded_tokens=case(
            (_ENDED.c.status == constant(JobStatus.COMPLETED), _ENDED.c.refunded_tokens), else_=jobs.c.cost_tokens
        ),
        refunded_lines=_ENDED.c.refunded_lines,
        result=_ENDED.c.result,
        error_code=_ENDED.c.error_code,
        error_message=_ENDED.c.error_message,
        status_reason=null(),
        # Only an unfinished job is looked at, and the request's id implies them: a sixth of what is kept for ever.
        fal_status_url=null(),
        fal_response_url=null(),
        fal_cancel_url=null(),
    )
    .where(
        jobs.c.id == _LOCKED.c.id,
        _ENDED.c.job_id == _LOCKED.c.id,
        _ACCOUNT.c.id == _LOCKED.c.account_id,
        # Compare-and-set.
        IS_UNFINISHED,
    )
    .returning(
        jobs.c.id,
        jobs.c.account_id,
        jobs.c.refunded_tokens,
        jobs.c.fal_request_id,
        jobs.c.input_bytes,
        jobs.c.model_id,
        jobs.c.status,
        seconds_since(jobs.c.claimed_at).label("run_seconds"),
    )
    .cte("settled")
)
_REFUND = insert(ledger_entries).from_select(
    ["account_id", "kind", "amount", "job_id"],
    select(_SETTLED.c.account_id, constant(EntryKind.REFUND), _SETTLED.c.refunded_tokens, _SETTLED.c.id)
    .where(_SETTLED.c.refunded_tokens > constant(0))
    .order_by(_SETTLED.c.account_id),
)
# The look that waits for such an end has nothing left to see, unless fal's request is not known and will be searched
# for.
_SEEN = select(_SETTLED.c.id.label("subject_id")).where(_SETTLED.c.fal_request_id.is_not(None)).subquery("seen")
_COMPLETED = (
    select(_SETTLED.c.id.label("subject_id"), constant(0).label("after_seconds"))
    .where(_SETTLED.c.status == constant(JobStatus.COMPLETED))
    .subquery("completed")
)
_SETTLE = select(_SETTLED.c.id, _SETTLED.c.input_bytes, _SETTLED.c.model_id, _SETTLED.c.run_seconds).add_cte(
    _REFUND.cte("refund"),
    delete_queued(FOLLOW_JOB, _SEEN).cte("look"),
    insert_items(COPY_OUTPUTS, _COMPLETED).cte("copies"),
)
_SETTLE_JOBS = Statement(_SETTLE)
# An event of fal, which ends most jobs, tells nothing of its attempt.
_SETTLE_JOBS_AND_NOTE = Statement(_SETTLE.add_cte(note_ends(_TOLD).cte("noted")))
_LOCK_JOBS = Statement(select(jobs.c.id).where(any_of(jobs.c.id, "job_ids")).order_by(jobs.c.id).with_for_update())
_ENDS = Statement(select(jobs.c.id, jobs.c.status, jobs.c.error_code).where(any_of(jobs.c.id, "job_ids")))


async def settle_all(
    driver: DriverConnection,
    settlements: Sequence[Settlement],
    *,
    paces: RunTimes | None = None,
    is_repeated: bool = False,
) -> Sequence[bool]:
    """Of those that end the same job the first one wins that can, unless the job is final already.

    Raises UniqueViolationError for all of them where one takes over the request of another attempt.
    """
    async with driver_transaction(driver, "settle"):
        if any(settlement.take_over is not None for settlement in settlements):
            # All of the batch, in the order of their ids.
            await _LOCK_JOBS(driver.fetch, job_ids=list({settlement.job_id for settlement in settlements}))
        runs: dict[UUID, Run] = {}
        winners = await _settle_first(driver.fetch, settlements, runs)
        if is_repeated:
            ends = {row["id"]: row for row in await _ENDS(driver.fetch, job_ids=[each.job_id for each in settlements])}
            for settlement in settlements:
                row = ends.get(settlement.job_id)
                if row and (row["status"], row["error_code"]) == (settlement.status, settlement.error_code):
                    # The first try's doing, or that of somebody who came to the same end.
                    winners.setdefault(settlement.job_id, settlement)
    if paces is not None:
        paces.add(run for job_id, run in runs.items() if winners[job_id].status is JobStatus.COMPLETED)
    return [winners.get(settlement.job_id) is settlement for settlement in settlements]


async def _settle_first(
    fetch: Fetch, settlements: Sequence[Settlement], runs: dict[UUID, Run]
) -> dict[UUID, Settlement]:
    """By job, the one that ended it. One whose attempt cannot be taken over leaves its job to the next.

    Adds the runs of the jobs to `runs`.
    """
    first = {settlement.job_id: settlement for settlement in reversed(settlements)}
    wanted = [settlement.take_over for settlement in first.values() if settlement.take_over is not None]
    missed = {each.job_id for each in wanted} - await take_over_through(fetch, wanted) if wanted else set()
    ended = await settle_through(fetch, [each for job_id, each in first.items() if job_id not in missed])
    runs.update(ended)
    left = [each for each in settlements if each.job_id in missed and each is not first[each.job_id]]
    return {job_id: first[job_id] for job_id in ended} | (await _settle_first(fetch, left, runs) if left else {})


async def settle_through(fetch: Fetch, settlements: Sequence[Settlement]) -> Mapping[UUID, Run]:
    """In the caller's transaction, at most one for each job; returns the runs of those that were not final before."""
    told = [settlement for settlement in settlements if settlement.attempt_token is not None]
    if told:
        rows = await _SETTLE_JOBS_AND_NOTE(fetch, **_ENDED.values(settlements), **_TOLD.values(told))
    else:
        rows = await _SETTLE_JOBS(fetch, **_ENDED.values(settlements))
    large = [row["id"] for row in rows if row["input_bytes"] is not None]
    if large:
        await FORGET(fetch, job_ids=large)
    return {row["id"]: Run(row["model_id"], row["run_seconds"]) for row in rows}
