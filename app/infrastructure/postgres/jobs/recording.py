"""Submissions that fal accepted, many of them in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import Double, LargeBinary, Text, Uuid, bindparam, case, exists, func, null, select, update
from sqlalchemy.dialects.postgresql import insert

from app.application.execution.steps import CANCEL_ORPHANS, FOLLOW_JOB
from app.application.ports.provider import ProviderRequest
from app.domain.attempts import AttemptOutcome
from app.domain.jobs import JobStatus
from app.infrastructure.postgres.database import DriverConnection, driver_transaction
from app.infrastructure.postgres.jobs.claiming import Attempt
from app.infrastructure.postgres.jobs.locks import locked_jobs, one_for_each
from app.infrastructure.postgres.jobs.rows import REQUEST_COLUMNS
from app.infrastructure.postgres.queue import insert_items
from app.infrastructure.postgres.statements import RowArrays, Statement, any_of, column, constant, constants
from app.infrastructure.postgres.tables import attempts, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    job_id: UUID
    attempt_token: UUID
    fal_request_id: str
    fal_status_url: str
    fal_response_url: str
    fal_cancel_url: str
    after_seconds: float
    """Until the first look."""
    input_digest: bytes | None
    """None: not fal's answer to the POST, but evidence."""

    @classmethod
    def of(
        cls,
        job_id: UUID,
        attempt_token: UUID,
        request: ProviderRequest,
        *,
        look_after_seconds: float,
        input_digest: bytes | None,
    ) -> "Submission":
        return cls(
            job_id=job_id,
            attempt_token=attempt_token,
            fal_request_id=request.id,
            fal_status_url=request.status_url,
            fal_response_url=request.response_url,
            fal_cancel_url=request.cancel_url,
            after_seconds=look_after_seconds,
            input_digest=input_digest,
        )

    @property
    def attempt(self) -> Attempt:
        return Attempt(self.job_id, self.attempt_token)

    @property
    def is_answer(self) -> bool:
        return self.input_digest is not None


_ACCEPTED = RowArrays(
    "accepted",
    column("job_id", Uuid),
    column("attempt_token", Uuid),
    *REQUEST_COLUMNS,
    column("after_seconds", Double),
    attempts.c.input_digest,
)
_LOCKED = locked_jobs(_ACCEPTED, jobs.c.fal_request_id)
_IS_OWN = jobs.c.attempt_token == _ACCEPTED.c.attempt_token
_IS_EARLIER = exists(
    select(constant(1)).where(attempts.c.token == _ACCEPTED.c.attempt_token, attempts.c.job_id == jobs.c.id)
)
_RECORDED = (
    update(jobs)
    .values(
        status=constant(JobStatus.SUBMITTED),
        attempt_token=_ACCEPTED.c.attempt_token,
        submit_unknown_at=null(),
        status_reason=null(),
        **{column.key: _ACCEPTED.c[column.key] for column in REQUEST_COLUMNS},
    )
    .where(
        jobs.c.id == _LOCKED.c.id,
        _ACCEPTED.c.job_id == _LOCKED.c.id,
        # Also an attempt that fal's answer made us give back, be it the newest one or not.
        (jobs.c.status.in_(constants((JobStatus.SUBMITTING, JobStatus.QUEUED))) & _IS_OWN)
        | ((jobs.c.status == constant(JobStatus.QUEUED)) & _IS_EARLIER),
    )
    .returning(jobs.c.id.label("subject_id"), jobs.c.attempt_token, _ACCEPTED.c.after_seconds)
    .cte("recorded")
)
_IS_ANSWER = _ACCEPTED.c.input_digest.is_not(None)
_IS_RECORDED = _RECORDED.c.subject_id.is_not(None)
# An answer is a fact about its attempt, whatever the job does by now; evidence counts for the job that takes it.
_TOLD = (
    select(
        _ACCEPTED.c.attempt_token,
        _ACCEPTED.c.fal_request_id,
        _ACCEPTED.c.input_digest,
        _IS_ANSWER.label("is_answer"),
        _IS_RECORDED.label("is_recorded"),
        (~_IS_RECORDED & _LOCKED.c.fal_request_id.is_distinct_from(_ACCEPTED.c.fal_request_id)).label("is_orphan"),
    )
    .select_from(
        _ACCEPTED.table.join(_LOCKED, _LOCKED.c.id == _ACCEPTED.c.job_id).outerjoin(
            _RECORDED, _RECORDED.c.attempt_token == _ACCEPTED.c.attempt_token
        )
    )
    .where(_IS_ANSWER | _IS_RECORDED)
    .subquery("told")
)
_NOW = func.clock_timestamp()
_NOTED = (
    update(attempts)
    .values(
        outcome=case((_TOLD.c.is_answer, constant(AttemptOutcome.ACCEPTED)), else_=attempts.c.outcome),
        outcome_at=case((_TOLD.c.is_answer, _NOW), else_=attempts.c.outcome_at),
        reason=case((_TOLD.c.is_answer, null()), else_=attempts.c.reason),
        input_digest=func.coalesce(_TOLD.c.input_digest, attempts.c.input_digest),
        fal_request_id=_TOLD.c.fal_request_id,
        adopted_at=case((_TOLD.c.is_answer, attempts.c.adopted_at), else_=_NOW),
        orphaned_at=case(
            (_TOLD.c.is_recorded, null()),
            (_TOLD.c.is_orphan, func.coalesce(attempts.c.orphaned_at, _NOW)),
            else_=attempts.c.orphaned_at,
        ),
        closed_at=case((_TOLD.c.is_recorded, null()), else_=attempts.c.closed_at),
    )
    .where(
        attempts.c.token == _TOLD.c.attempt_token,
        attempts.c.fal_request_id.is_(None) | (attempts.c.fal_request_id == _TOLD.c.fal_request_id),
    )
    .returning(attempts.c.job_id, _TOLD.c.is_orphan)
    .cte("noted")
)
_ORPHANED = (
    select(_NOTED.c.job_id.label("subject_id"), constant(0).label("after_seconds"))
    .where(_NOTED.c.is_orphan)
    .subquery("orphaned")
)
_RECORD = Statement(
    select(_RECORDED.c.subject_id, _RECORDED.c.attempt_token).add_cte(
        insert_items(FOLLOW_JOB, _RECORDED).cte("look"), insert_items(CANCEL_ORPHANS, _ORPHANED).cte("cancel")
    )
)
_OTHER_JOB = jobs.alias("other_job")
_OTHER_REQUEST = bindparam("request_id", type_=Text)
# What stands in front of fal may repeat a POST, so that fal names a second request for an attempt that has one. An
# attempt has one request, so the second run gets an attempt of its own, under the lock that the job has already.
_SECOND = (
    insert(attempts)
    .from_select(
        [
            *("token", "job_id", "number", "claimed_at"),
            *("outcome", "outcome_at", "input_digest", "fal_request_id", "orphaned_at"),
        ],
        select(
            bindparam("token", type_=Uuid),
            jobs.c.id,
            jobs.c.attempts + constant(1),
            attempts.c.claimed_at,
            constant(AttemptOutcome.ACCEPTED),
            _NOW,
            bindparam("input_digest", type_=LargeBinary),
            _OTHER_REQUEST,
            _NOW,
        )
        .join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.token == bindparam("attempt_token", type_=Uuid),
            attempts.c.fal_request_id != _OTHER_REQUEST,
            # A process of an older release may have written it into its job alone.
            ~exists(select(constant(1)).select_from(_OTHER_JOB).where(_OTHER_JOB.c.fal_request_id == _OTHER_REQUEST)),
        ),
        include_defaults=False,
    )
    .on_conflict_do_nothing(
        index_elements=[attempts.c.fal_request_id], index_where=attempts.c.fal_request_id.is_not(None)
    )
    .returning(attempts.c.job_id.label("subject_id"))
    .cte("second")
)
_SECOND_ORPHANS = select(_SECOND.c.subject_id, constant(0).label("after_seconds")).subquery("second_orphans")
# The next claim takes the number after it.
_COUNTED = update(jobs).values(attempts=jobs.c.attempts + constant(1)).where(jobs.c.id == _SECOND.c.subject_id)
_RECORD_SECOND = Statement(
    select(_SECOND.c.subject_id).add_cte(
        _COUNTED.cte("counted"), insert_items(CANCEL_ORPHANS, _SECOND_ORPHANS).cte("cancel")
    )
)
_REQUESTS = Statement(
    select(jobs.c.id, jobs.c.attempt_token, jobs.c.fal_request_id).where(any_of(jobs.c.id, "job_ids"))
)


async def record_all(
    driver: DriverConnection, submissions: Sequence[Submission], *, is_repeated: bool = False
) -> Sequence[bool]:
    """Raises UniqueViolationError for all of them where one names the request of another attempt."""
    each = _one_for_each_attempt(submissions)
    async with driver_transaction(driver, "record_submission"):
        rows = await _RECORD(driver.fetch, **_ACCEPTED.values(list(each.values())))
        won = {Attempt(row["subject_id"], row["attempt_token"]) for row in rows}
        # An event may have come before the answer: the job follows what that named.
        asked = {one for one, told in each.items() if one not in won and (is_repeated or told.is_answer)}
        if asked:
            for row in await _REQUESTS(driver.fetch, job_ids=[attempt.job_id for attempt in asked]):
                attempt = Attempt(row["id"], row["attempt_token"])
                if attempt in asked and each[attempt].fal_request_id == row["fal_request_id"]:
                    won.add(attempt)
        taken = {attempt: each[attempt].fal_request_id for attempt in won}
        for submission in submissions:
            if submission.is_answer and taken.get(submission.attempt) != submission.fal_request_id:
                await _RECORD_SECOND(
                    driver.fetch,
                    token=uuid4(),
                    attempt_token=submission.attempt_token,
                    request_id=submission.fal_request_id,
                    input_digest=submission.input_digest,
                )
    are_first = one_for_each(won, [submission.attempt for submission in submissions])
    return [
        is_first or (submission.is_answer and taken.get(submission.attempt) == submission.fal_request_id)
        for submission, is_first in zip(submissions, are_first, strict=True)
    ]


def _one_for_each_attempt(submissions: Sequence[Submission]) -> Mapping[Attempt, Submission]:
    """The first one of each attempt, or the answer that names the same request."""
    each: dict[Attempt, Submission] = {}
    for submission in submissions:
        first = each.setdefault(submission.attempt, submission)
        if submission.is_answer and not first.is_answer and submission.fal_request_id == first.fal_request_id:
            each[submission.attempt] = submission
    return each
