"""Every attempt of a job is a row of its own: whichever delivers first wins, and the run of another is stopped."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.application.execution import orphans as orphans_module
from app.application.execution.breaker import Breaker
from app.application.execution.evidence import with_seed
from app.application.execution.orphans import ORPHAN_SECONDS_MAX, CancelOrphans
from app.application.execution.places import Places
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.execution.steps import CANCEL_ORPHANS, FOLLOW_JOB, RetryLater
from app.application.execution.submit import SubmitJob
from app.application.ports.execution import AttemptEnd
from app.application.ports.provider import (
    InProgress,
    NotSubmitted,
    Observation,
    Provider,
    ProviderEvent,
    ProviderRequest,
    ProviderUnavailable,
    Rejected,
    Stopped,
    SubmitOutcomeUnknown,
    SubmitRefused,
    Succeeded,
)
from app.bootstrap.steps import lost_steps_of_jobs
from app.domain.errors import InvalidProviderEvent, JobFinished
from app.domain.jobs import JobStatus, Outcome
from app.domain.terms import ResultShape
from app.infrastructure.postgres.database import driver_connection
from app.infrastructure.postgres.evidence import PostgresLostSubmissions
from app.infrastructure.postgres.jobs.settling import Settlement, settle_all
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    COST_TOKENS,
    OUTCOMES,
    RESULT,
    Connection,
    Customer,
    PostgresJobs,
    accept_job,
    balance_of,
    connect,
    jobs_of,
    open_account,
    provider_request,
    provider_wait,
    queue_items,
)

BALANCE_TOKENS = 1000
DIGEST = sha256(b"what was sent").digest()
REJECTED = Rejected("content_policy_violation", "No.")
# What fal's event says: a result, that the run failed in a way that only the queue can tell, or a result of no use.
OVER = None
UNUSABLE = Rejected("result_invalid", "No.")


@dataclass
class Fal:
    """Takes every event for fal's, and has the requests stand as they are told."""

    stands: dict[str, Observation | Exception] = field(default_factory=dict)
    told: dict[str, Observation | None] = field(default_factory=dict)
    cancels: Counter[str] = field(default_factory=Counter)
    cancels_fail: bool = False
    submits: list[ProviderRequest | Exception] = field(default_factory=list)
    seen_tags: list[Mapping[str, str] | None] = field(default_factory=list)
    seen_parameters: list[Mapping[str, Any]] = field(default_factory=list)
    while_posting: Callable[[], Awaitable[object]] | None = None

    async def submit(
        self,
        model_id: str,
        parameters: Mapping[str, Any],
        *,
        webhook_url: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ProviderRequest:
        self.seen_tags.append(tags)
        self.seen_parameters.append(parameters)
        if self.while_posting is not None:
            await self.while_posting()
        answer = self.submits.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def input_digest(self, parameters: Mapping[str, Any]) -> bytes:
        return sha256(json.dumps(parameters, sort_keys=True).encode()).digest()

    def check_headers(self, headers: Mapping[str, str]) -> None:
        pass

    async def verify(self, headers: Mapping[str, str], body: bytes) -> ProviderEvent:
        return ProviderEvent(headers["request"], None)

    def observation(self, event: ProviderEvent, shape: ResultShape) -> Observation | None:
        return self.told[event.request_id]

    def request_of(self, model_id: str, request_id: str) -> ProviderRequest:
        return provider_request(request_id)

    async def cancel(self, request: ProviderRequest) -> None:
        self.cancels[request.id] += 1
        if self.cancels_fail:
            raise ProviderUnavailable("no answer")

    async def observe(self, request: ProviderRequest, shape: ResultShape) -> Observation:
        stands = self.stands.get(request.id, Stopped())
        if isinstance(stands, Exception):
            raise stands
        return stands


@dataclass
class Stage:
    engine: AsyncEngine
    sql: Connection
    jobs: PostgresJobs
    customer: Customer
    fal: Fal = field(default_factory=Fal)

    async def accept(self) -> UUID:
        return await accept_job(self.engine, self.customer)

    async def claim(self, job_id: UUID) -> UUID:
        token = uuid4()
        assert await self.jobs.claim(job_id, token) is not None
        return token

    async def released(self, job_id: UUID) -> UUID:
        """An attempt that fal seemed to refuse."""
        token = await self.claim(job_id)
        assert await self.jobs.release(job_id, token, provider_wait("fal was busy"), input_digest=DIGEST)
        return token

    async def answered(self, job_id: UUID, token: UUID, request: ProviderRequest) -> bool:
        return await self.jobs.record_submission(job_id, token, request, input_digest=DIGEST)

    async def hear(self, token: UUID, request: ProviderRequest, told: Observation | None) -> None:
        self.fal.told[request.id] = told
        await ReceiveProviderEvent(self.jobs, cast(Provider, self.fal), self.fal)(token, {"request": request.id}, b"")

    async def submit(self, job_id: UUID, *, has_history: bool = False) -> None:
        await SubmitJob(self.jobs, cast(Provider, self.fal), Breaker(), has_history=has_history)(job_id)

    async def postponed(self, job_id: UUID) -> None:
        self.fal.submits.append(NotSubmitted("the ingress in front of fal answered 503"))
        with pytest.raises(RetryLater):
            await self.submit(job_id)

    async def cancel_orphans(self, job_id: UUID, places: Places | None = None) -> None:
        await CancelOrphans(self.jobs, cast(Provider, self.fal), places or Places(3))(job_id)

    async def job(self, job_id: UUID) -> asyncpg.Record:
        row = await self.sql.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id)
        assert row is not None
        return row

    async def attempt(self, token: UUID) -> asyncpg.Record:
        row = await self.sql.fetchrow("SELECT * FROM attempts WHERE token = $1", token)
        assert row is not None
        return row

    async def assert_waits_for_cancel(self, job_id: UUID) -> None:
        assert (CANCEL_ORPHANS, job_id) in await queue_items(self.sql)

    async def assert_charged(self, jobs: int) -> None:
        assert await balance_of(self.engine, self.customer) == BALANCE_TOKENS - jobs * COST_TOKENS
        assert await PostgresLedger(self.engine).violations() == []


@pytest.fixture
async def stage(engine: AsyncEngine, database: str) -> AsyncIterator[Stage]:
    async with connect(database) as sql:
        yield Stage(engine, sql, jobs_of(engine), await open_account(engine, BALANCE_TOKENS))


async def two_attempts(stage: Stage) -> tuple[UUID, UUID, UUID]:
    """A job, an attempt that fal seemed to refuse, and the newer one whose POST is under way."""
    job_id = await stage.accept()
    return job_id, await stage.released(job_id), await stage.claim(job_id)


async def test_an_orphan_is_looked_at_with_a_place_among_the_looks(stage: Stage) -> None:
    job_id, older, _ = await two_attempts(stage)
    assert await stage.jobs.record_orphan(older, "r-orphan", is_over=False)
    places = Places(3)
    held = [places.take(stage.customer.account_id) for _ in range(2)]

    with pytest.raises(RetryLater):
        await stage.cancel_orphans(job_id, places)
    assert not stage.fal.cancels

    for place in held:
        assert place is not None
        with place:
            pass
    await stage.cancel_orphans(job_id, places)
    assert stage.fal.cancels == {"r-orphan": 1}


async def test_each_attempt_has_its_row_with_what_came_of_its_post(stage: Stage) -> None:
    job_id = await stage.accept()
    refused_for_now, unknown = await stage.released(job_id), await stage.claim(job_id)
    await stage.jobs.record_submit_unknown(job_id, unknown, "no answer", input_digest=DIGEST)
    other = await stage.accept()
    accepted, request = await stage.claim(other), provider_request()
    assert await stage.answered(other, accepted, request)
    third = await stage.accept()
    refused = await stage.claim(third)
    await stage.jobs.settle(third, OUTCOMES[JobStatus.FAILED], AttemptEnd(token=refused, refused_input=DIGEST))

    rows = [await stage.attempt(token) for token in (refused_for_now, unknown, accepted, refused)]
    assert [(row["job_id"], row["number"], row["outcome"]) for row in rows] == [
        (job_id, 1, "not_queued"),
        (job_id, 2, "unknown"),
        (other, 1, "accepted"),
        (third, 1, "refused"),
    ]
    assert [row["reason"] for row in rows] == ["fal was busy", "no answer", None, "refused"]
    assert {row["input_digest"] for row in rows} == {DIGEST}
    assert [row["fal_request_id"] for row in rows] == [None, None, request.id, None]
    assert all(row["outcome_at"] >= row["claimed_at"] for row in rows)
    assert {row["orphaned_at"] for row in rows} == {row["adopted_at"] for row in rows} == {None}


async def test_a_claim_that_is_repeated_is_one_attempt(stage: Stage) -> None:
    job_id, token = await stage.accept(), uuid4()
    for _ in range(2):
        assert await stage.jobs.claim(job_id, token) is not None

    assert await stage.sql.fetchval("SELECT count(*) FROM attempts") == 1


async def test_what_fal_bills_is_kept_with_the_attempt(stage: Stage) -> None:
    job_id = await stage.accept()
    token, units = await stage.claim(job_id), Decimal("3.14159265")
    assert await stage.answered(job_id, token, provider_request())

    await stage.jobs.settle(job_id, Outcome.completed(RESULT), AttemptEnd(token=token, billed_units=units))

    assert (await stage.attempt(token))["billed_units"] == units


@pytest.mark.parametrize("told", [Succeeded(RESULT), OVER, UNUSABLE], ids=["result", "over", "unusable"])
@pytest.mark.parametrize("is_newest", [True, False])
async def test_a_job_that_waits_takes_whichever_attempt_fal_speaks_of(
    stage: Stage, told: Observation | None, is_newest: bool
) -> None:
    job_id = await stage.accept()
    first, second = await stage.released(job_id), await stage.released(job_id)
    token, request = second if is_newest else first, provider_request()

    await stage.hear(token, request, told)

    job, attempt = await stage.job(job_id), await stage.attempt(token)
    expected = {Succeeded: "COMPLETED", Rejected: "FAILED"}.get(type(told), "SUBMITTED")
    assert (job["status"], job["fal_request_id"], job["attempt_token"]) == (expected, request.id, token)
    assert (attempt["fal_request_id"], attempt["orphaned_at"]) == (request.id, None)
    assert attempt["adopted_at"] is not None
    assert attempt["outcome"] == "not_queued"
    if told is OVER:
        assert (FOLLOW_JOB, job_id) in await queue_items(stage.sql)
    await stage.assert_charged(0 if isinstance(told, Rejected) else 1)


async def test_an_earlier_attempt_that_delivers_wins_while_the_newer_post_is_under_way(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    first, second = provider_request(), provider_request()

    await stage.hear(earlier, first, Succeeded(RESULT))
    ended = await stage.job(job_id)
    with capture_logs() as logs:
        taken = await stage.answered(job_id, newer, second)
    await stage.assert_waits_for_cancel(job_id)
    await stage.cancel_orphans(job_id)

    assert (ended["status"], ended["fal_request_id"], ended["attempt_token"]) == ("COMPLETED", first.id, earlier)
    assert not taken
    assert logs == []
    assert await stage.job(job_id) == ended
    orphan = await stage.attempt(newer)
    assert (orphan["outcome"], orphan["fal_request_id"], orphan["input_digest"]) == ("accepted", second.id, DIGEST)
    assert None not in (orphan["orphaned_at"], orphan["cancel_sent_at"], orphan["closed_at"])
    assert stage.fal.cancels == {second.id: 1}
    await stage.assert_charged(1)


@pytest.mark.parametrize("status", [JobStatus.SUBMITTED, JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS])
async def test_an_earlier_attempt_that_delivers_wins_over_the_run_that_is_followed(
    stage: Stage, status: JobStatus
) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    first, second = provider_request(), provider_request()
    assert await stage.answered(job_id, newer, second)
    if status is not JobStatus.SUBMITTED:
        await stage.jobs.record_progress(job_id, status)

    for _ in range(3):
        await stage.hear(earlier, first, Succeeded(RESULT))
    await stage.assert_waits_for_cancel(job_id)
    await stage.cancel_orphans(job_id)

    job = await stage.job(job_id)
    assert (job["status"], job["fal_request_id"], job["attempt_token"]) == ("COMPLETED", first.id, earlier)
    assert (await stage.attempt(earlier))["orphaned_at"] is None
    assert (await stage.attempt(newer))["closed_at"] is not None
    assert stage.fal.cancels == {second.id: 1}
    await stage.assert_charged(1)


@pytest.mark.parametrize("is_recorded", [True, False], ids=["at fal", "under way"])
async def test_a_failure_of_an_earlier_attempt_is_only_noted(stage: Stage, is_recorded: bool) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    first, second = provider_request(), provider_request()
    if is_recorded:
        assert await stage.answered(job_id, newer, second)
    before = await stage.job(job_id)

    await stage.hear(earlier, first, UNUSABLE)

    assert await stage.job(job_id) == before
    attempt = await stage.attempt(earlier)
    assert attempt["fal_request_id"] == first.id
    assert None not in (attempt["orphaned_at"], attempt["closed_at"])
    assert stage.fal.cancels == {}
    assert is_recorded or await stage.answered(job_id, newer, second)
    await stage.hear(newer, second, Succeeded(RESULT))
    job = await stage.job(job_id)
    assert (job["status"], job["fal_request_id"]) == ("COMPLETED", second.id)
    await stage.assert_charged(1)


async def test_an_earlier_attempt_that_is_over_is_asked_how_it_ended(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    first, second = provider_request(), provider_request()
    assert await stage.answered(job_id, newer, second)
    stage.fal.stands = {first.id: Succeeded(RESULT, Decimal(2)), second.id: Stopped()}

    await stage.hear(earlier, first, OVER)
    assert (await stage.job(job_id))["status"] == "SUBMITTED"
    # Now the newer one is the orphan, and while this step runs no other one of the job can be queued.
    with pytest.raises(RetryLater):
        await stage.cancel_orphans(job_id)
    await stage.cancel_orphans(job_id)

    job, winner = await stage.job(job_id), await stage.attempt(earlier)
    assert (job["status"], job["fal_request_id"]) == ("COMPLETED", first.id)
    assert (winner["orphaned_at"], winner["closed_at"], winner["billed_units"]) == (None, None, 2)
    assert (await stage.attempt(newer))["closed_at"] is not None
    await stage.assert_charged(1)


async def test_an_earlier_attempt_that_failed_leaves_the_job_to_the_newer_one(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    first = provider_request()
    stage.fal.stands = {first.id: Rejected("content_policy_violation", "No.", Decimal(0))}

    await stage.hear(earlier, first, OVER)
    await stage.cancel_orphans(job_id)

    assert (await stage.job(job_id))["status"] == "SUBMITTING"
    attempt = await stage.attempt(earlier)
    assert attempt["closed_at"] is not None
    assert attempt["billed_units"] == 0
    assert await stage.answered(job_id, newer, provider_request())


@pytest.mark.parametrize("end", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
async def test_what_an_orphan_delivers_late_is_neither_charged_nor_shown(stage: Stage, end: JobStatus) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    assert await stage.answered(job_id, newer, provider_request())
    await stage.jobs.settle(job_id, OUTCOMES[end])
    ended = await stage.job(job_id)

    await stage.hear(earlier, provider_request(), Succeeded({"images": [{"url": "https://x.example/late.png"}]}))

    job, attempt = dict(await stage.job(job_id)), await stage.attempt(earlier)
    # Kept for the operator of a job that got nothing.
    assert (job.pop("late_result") is None) is (end is JobStatus.COMPLETED)
    assert job == {name: value for name, value in dict(ended).items() if name != "late_result"}
    assert None not in (attempt["orphaned_at"], attempt["closed_at"])
    assert [found.id for found in await stage.jobs.newest(orphans_only=True, limit=5)] == [job_id]
    shown = (await stage.jobs.inspect(job_id))["each_attempt"]
    assert [each["token"] for each in shown] == [earlier, newer]
    assert shown[1]["input_digest"] == DIGEST.hex()
    await stage.assert_charged(1 if end is JobStatus.COMPLETED else 0)


async def test_a_request_belongs_to_one_attempt(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    other, request = await stage.accept(), provider_request()
    assert await stage.answered(other, await stage.claim(other), request)
    orphan = provider_request()
    await stage.hear(earlier, orphan, UNUSABLE)
    before = [await stage.job(each) for each in (job_id, other)]

    for token, named in ((earlier, request), (newer, request), (newer, orphan), (earlier, provider_request())):
        for told in (Succeeded(RESULT), OVER, UNUSABLE):
            with pytest.raises(InvalidProviderEvent) as refused:
                await stage.hear(token, named, told)
            assert refused.value.reason == "unexpected_request"
    assert not await stage.answered(job_id, newer, orphan)

    assert [await stage.job(each) for each in (job_id, other)] == before
    await stage.assert_charged(2)


async def test_an_attempt_that_has_a_request_delivers_no_other_one(stage: Stage) -> None:
    """Also where two events come at once, each with a request of its own."""
    job_id, earlier, newer = await two_attempts(stage)
    assert await stage.jobs.record_orphan(earlier, "the first", is_over=True)
    end = AttemptEnd(token=earlier, takes_over=provider_request("the second"))

    assert not await stage.jobs.settle(job_id, Outcome.completed(RESULT), end)

    assert (await stage.job(job_id))["status"] == "SUBMITTING"
    assert (await stage.attempt(earlier))["fal_request_id"] == "the first"
    assert await stage.answered(job_id, newer, provider_request())


async def test_an_end_that_may_not_take_the_job_over_leaves_it_to_the_next_one_of_the_batch(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    assert await stage.jobs.record_orphan(earlier, "the first", is_over=True)
    mistaken = AttemptEnd(token=earlier, takes_over=provider_request("the second"))
    ends = [
        Settlement.of(job_id, Outcome.completed(RESULT), mistaken),
        Settlement.of(job_id, Outcome.failed("refused", "The input was refused."), AttemptEnd(token=newer)),
        Settlement.of(job_id, Outcome.canceled()),
    ]

    async with driver_connection(stage.engine) as driver:
        won = await settle_all(driver, ends)
        again = await settle_all(driver, ends, is_repeated=True)

    assert (won, again) == ([False, True, False], [False, True, False])
    assert (await stage.job(job_id))["error_code"] == "refused"
    await stage.assert_charged(0)


async def test_an_event_may_come_before_the_answer_to_its_own_post(stage: Stage) -> None:
    job_id = await stage.accept()
    token, request = await stage.claim(job_id), provider_request()

    await stage.hear(token, request, OVER)
    assert await stage.answered(job_id, token, request), "it follows this request already"
    await stage.hear(token, request, Succeeded(RESULT))
    assert await stage.answered(job_id, token, request)

    attempt = await stage.attempt(token)
    assert (attempt["outcome"], attempt["input_digest"], attempt["orphaned_at"]) == ("accepted", DIGEST, None)
    assert (CANCEL_ORPHANS, job_id) not in await queue_items(stage.sql)


@pytest.mark.parametrize("end", [None, JobStatus.COMPLETED, JobStatus.FAILED])
@pytest.mark.parametrize("share", [False, True])
async def test_a_second_request_of_an_attempt_is_an_orphan_and_is_stopped(
    stage: Stage, share: bool, end: JobStatus | None
) -> None:
    """What stands in front of fal repeated the POST: the event told of one run, and the answer names the other one."""
    job_id = await stage.accept()
    token, first, second, third = await stage.claim(job_id), *[provider_request() for _ in range(3)]
    if share:
        done = await asyncio.gather(
            stage.jobs.record_submission(job_id, token, first),
            *[stage.answered(job_id, token, each) for each in (second, third)],
        )
    else:
        await stage.hear(token, first, OVER)
        if end is not None:
            await stage.jobs.settle(job_id, OUTCOMES[end])
        done = [True, *[await stage.answered(job_id, token, each) for each in (second, third)]]
    if share and end is not None:
        await stage.jobs.settle(job_id, OUTCOMES[end])

    assert done == [True, False, False]
    # As after a commit whose answer was lost.
    assert not await stage.answered(job_id, token, second)
    await stage.assert_waits_for_cancel(job_id)
    before = await stage.job(job_id)
    await stage.cancel_orphans(job_id)

    assert stage.fal.cancels == {second.id: 1, third.id: 1}
    assert (before["fal_request_id"], before["attempt_token"]) == (first.id, token)
    assert await stage.job(job_id) == before
    orphans = await stage.sql.fetch("SELECT * FROM attempts WHERE token <> $1 ORDER BY number", token)
    assert [(row["number"], row["outcome"], row["fal_request_id"], row["input_digest"]) for row in orphans] == [
        (2, "accepted", second.id, DIGEST),
        (3, "accepted", third.id, DIGEST),
    ]
    assert all(None not in (row["orphaned_at"], row["cancel_sent_at"], row["closed_at"]) for row in orphans)
    assert await stage.jobs.load_orphans(job_id) == []
    if end is None:
        await stage.hear(token, first, Succeeded(RESULT))
    await stage.assert_charged(0 if end is JobStatus.FAILED else 1)


async def test_a_second_request_that_delivers_first_wins_the_job(stage: Stage) -> None:
    job_id = await stage.accept()
    token, first, second = await stage.claim(job_id), provider_request(), provider_request()
    await stage.hear(token, first, OVER)
    assert not await stage.answered(job_id, token, second)
    stage.fal.stands[second.id] = Succeeded(RESULT, Decimal(2))

    with pytest.raises(RetryLater):
        await stage.cancel_orphans(job_id)
    await stage.cancel_orphans(job_id)

    job = await stage.job(job_id)
    assert (job["status"], job["fal_request_id"]) == ("COMPLETED", second.id)
    assert stage.fal.cancels == {second.id: 1, first.id: 1}
    await stage.hear(token, first, Succeeded(RESULT))
    await stage.assert_charged(1)


async def test_a_second_request_of_an_earlier_attempt_keeps_no_number_from_the_next_claim(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    first, second = provider_request(), provider_request()
    assert await stage.jobs.record_orphan(earlier, first.id, is_over=True)

    assert not await stage.answered(job_id, earlier, second)
    assert await stage.jobs.release(job_id, newer, provider_wait("fal was busy"), input_digest=DIGEST)
    last = await stage.claim(job_id)

    assert [(await stage.attempt(token))["number"] for token in (earlier, newer, last)] == [1, 2, 4]
    await stage.cancel_orphans(job_id)
    assert stage.fal.cancels == {second.id: 1}
    assert await stage.answered(job_id, last, provider_request())
    await stage.assert_charged(1)


@pytest.mark.parametrize("is_old", [False, True])
async def test_the_request_of_another_job_is_nobodys_second_one(stage: Stage, is_old: bool) -> None:
    job_id, other = await stage.accept(), await stage.accept()
    token, first, second = await stage.claim(job_id), provider_request(), provider_request()
    await stage.hear(token, first, OVER)
    if is_old:
        old = uuid4()
        await stage.sql.execute(OLD_CLAIM, other, old)
        await stage.sql.execute(OLD_RECORD, other, old, second.id)
    else:
        assert await stage.answered(other, await stage.claim(other), second)

    assert not await stage.answered(job_id, token, second)

    assert await stage.jobs.load_orphans(job_id) == []
    assert (CANCEL_ORPHANS, job_id) not in await queue_items(stage.sql)
    assert (await stage.job(job_id))["attempts"] == 1


async def test_second_requests_race_with_claims_and_ends(stage: Stage) -> None:
    """Each is written once, whoever else has the job."""
    for _ in range(10):
        job_id, earlier, newer = await two_attempts(stage)
        assert await stage.jobs.record_orphan(earlier, provider_request().id, is_over=True)
        seconds = [provider_request() for _ in range(3)]
        others = [jobs_of(stage.engine) for _ in range(2)]

        await asyncio.gather(
            *[
                jobs.record_submission(job_id, earlier, each, input_digest=DIGEST)
                for jobs in (stage.jobs, *others)
                for each in seconds
            ],
            *[jobs.record_progress(job_id, JobStatus.IN_QUEUE) for jobs in others],
        )
        assert await stage.jobs.release(job_id, newer, provider_wait("fal was busy"), input_digest=DIGEST)
        last = await stage.claim(job_id)
        await asyncio.gather(
            *[jobs.settle(job_id, Outcome.canceled()) for jobs in others],
            *[jobs.record_submission(job_id, last, seconds[0], input_digest=DIGEST) for jobs in others],
        )

        rows = await stage.sql.fetch("SELECT number, fal_request_id FROM attempts WHERE job_id = $1", job_id)
        assert sorted(row["number"] for row in rows) == [1, 2, 3, 4, 5, 6]
        assert {one.id for one in seconds} <= {row["fal_request_id"] for row in rows}
        assert {one.request_id for one in await stage.jobs.load_orphans(job_id)} == {one.id for one in seconds}
    await stage.assert_charged(0)


async def test_the_answer_and_the_event_of_one_attempt_may_share_a_transaction(stage: Stage) -> None:
    job_id = await stage.accept()
    token, request = await stage.claim(job_id), provider_request()

    done = await asyncio.gather(
        stage.jobs.record_submission(job_id, token, request),
        stage.jobs.record_submission(job_id, token, request, input_digest=DIGEST),
        stage.jobs.record_submission(job_id, token, request),
    )

    assert done[1], "it follows this request"
    attempt = await stage.attempt(token)
    assert (attempt["outcome"], attempt["input_digest"]) == ("accepted", DIGEST)


@pytest.mark.parametrize("answers", [False, True])
async def test_an_orphan_that_goes_on_is_looked_at_ever_more_rarely_and_then_left(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    request = provider_request()
    await stage.hear(earlier, provider_request(), Succeeded(RESULT))
    assert not await stage.answered(job_id, newer, request)
    stage.fal.stands[request.id] = InProgress() if answers else ProviderUnavailable("no answer")
    stage.fal.cancels_fail = not answers

    waits = []
    for age_seconds in (0, 10, 1000, ORPHAN_SECONDS_MAX - 60):
        await stage.sql.execute(
            "UPDATE attempts SET orphaned_at = clock_timestamp() - make_interval(secs => $2) WHERE token = $1",
            newer,
            age_seconds,
        )
        with pytest.raises(RetryLater) as decision:
            await stage.cancel_orphans(job_id)
        waits.append(round(decision.value.delay_seconds, 1))
    monkeypatch.setattr(orphans_module, "ORPHAN_SECONDS_MAX", 60)
    with capture_logs() as logs:
        await stage.cancel_orphans(job_id)

    assert waits == [0.5, 5.0, 60.0, 60.0]
    # fal is told once, if it hears.
    assert stage.fal.cancels == {request.id: 1 if answers else 5}
    assert "generation_orphan_given_up" in [entry["event"] for entry in logs]
    assert (await stage.attempt(newer))["closed_at"] is not None
    await stage.assert_charged(1)


async def test_the_sweep_finds_an_orphan_that_nobody_sees_to(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    await stage.hear(earlier, provider_request(), Succeeded(RESULT))
    assert not await stage.answered(job_id, newer, provider_request())
    await stage.sql.execute("DELETE FROM pgqueuer")

    found = await lost_steps_of_jobs(stage.engine).requeue_lost()
    await stage.assert_waits_for_cancel(job_id)
    await stage.cancel_orphans(job_id)
    await stage.sql.execute("DELETE FROM pgqueuer")
    found_later = await lost_steps_of_jobs(stage.engine).requeue_lost()

    assert {step: job_ids for step, job_ids in found.items() if job_ids} == {CANCEL_ORPHANS: [job_id]}
    assert not any(found_later.values())


# As the release before claims, and records fal's answer.
OLD_CLAIM = """
UPDATE jobs SET status = 'SUBMITTING', attempts = attempts + 1, attempt_token = $2, claimed_at = clock_timestamp(),
       deadline_at = clock_timestamp() + interval '20 minutes', status_reason = NULL
 WHERE id = $1 AND status = 'QUEUED'
"""
OLD_RECORD = "UPDATE jobs SET status = 'SUBMITTED', fal_request_id = $3 WHERE id = $1 AND attempt_token = $2"


async def test_the_release_before_claims_and_records_beside_this_one(stage: Stage) -> None:
    job_id, old, old_request, request = await stage.accept(), uuid4(), provider_request(), provider_request()
    earlier = await stage.released(job_id)
    await stage.sql.execute(OLD_CLAIM, job_id, old)
    await stage.sql.execute(OLD_RECORD, job_id, old, old_request.id)

    await stage.hear(old, old_request, OVER)
    await stage.hear(earlier, request, Succeeded(RESULT))
    await stage.assert_waits_for_cancel(job_id)
    await stage.cancel_orphans(job_id)

    job = await stage.job(job_id)
    assert (job["status"], job["fal_request_id"]) == ("COMPLETED", request.id)
    kept = await stage.attempt(old)
    assert (kept["number"], kept["outcome"], kept["fal_request_id"]) == (2, None, old_request.id)
    assert stage.fal.cancels == {old_request.id: 1}


async def test_an_attempt_of_the_release_before_is_kept_when_this_one_claims_again(stage: Stage) -> None:
    job_id, old, request = await stage.accept(), uuid4(), provider_request()
    await stage.sql.execute(OLD_CLAIM, job_id, old)
    assert await stage.jobs.release(job_id, old, provider_wait("fal was busy"))
    newer = await stage.claim(job_id)

    await stage.hear(old, request, Succeeded(RESULT))

    job = await stage.job(job_id)
    assert (job["status"], job["fal_request_id"]) == ("COMPLETED", request.id)
    assert [(await stage.attempt(token))["number"] for token in (old, newer)] == [1, 2]


async def test_a_job_that_ended_before_attempts_had_rows_still_hears_of_its_run(stage: Stage) -> None:
    job_id = await stage.accept()
    token, request = await stage.claim(job_id), provider_request()
    await stage.jobs.settle(job_id, OUTCOMES[JobStatus.FAILED])
    await stage.sql.execute(
        "SET session_replication_role = replica; DELETE FROM attempts; SET session_replication_role = DEFAULT"
    )

    for _ in range(2):
        await stage.hear(token, request, Succeeded(RESULT))

    assert (await stage.job(job_id))["late_result"] is not None
    attempt = await stage.attempt(token)
    assert (attempt["number"], attempt["fal_request_id"]) == (1, request.id)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET fal_request_id = 'another'",
        "UPDATE jobs SET fal_request_id = 'orphan'",
        "UPDATE jobs SET fal_request_id = NULL",
        "UPDATE attempts SET fal_request_id = 'another' WHERE fal_request_id = 'orphan'",
        "UPDATE attempts SET token = gen_random_uuid()",
        "UPDATE attempts SET number = number + 5",
        "UPDATE attempts SET outcome = 'maybe'",
        "UPDATE attempts SET outcome = 'accepted', fal_request_id = NULL WHERE fal_request_id IS NULL",
        "UPDATE attempts SET input_digest = 'short'",
        "UPDATE attempts SET billed_units = -1",
        "UPDATE attempts SET closed_at = now() WHERE orphaned_at IS NULL",
        "DELETE FROM attempts",
    ],
)
async def test_the_database_refuses_what_no_attempt_does(stage: Stage, change: str) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    assert await stage.answered(job_id, newer, provider_request())
    await stage.hear(earlier, provider_request("orphan"), UNUSABLE)
    await stage.released(await stage.accept())

    with pytest.raises((asyncpg.CheckViolationError, asyncpg.InsufficientPrivilegeError)):
        await stage.sql.execute(change)


async def test_a_final_job_keeps_its_request(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    assert await stage.answered(job_id, newer, provider_request())
    await stage.hear(newer, provider_request((await stage.job(job_id))["fal_request_id"]), Succeeded(RESULT))
    await stage.hear(earlier, provider_request("orphan"), Succeeded(RESULT))

    with pytest.raises(asyncpg.CheckViolationError):
        await stage.sql.execute(
            "UPDATE jobs SET fal_request_id = 'orphan', attempt_token = $2 WHERE id = $1", job_id, earlier
        )


async def test_every_post_is_tagged_and_its_input_kept_as_a_digest(stage: Stage) -> None:
    job_id, request = await stage.accept(), provider_request()
    for _ in range(2):
        await stage.postponed(job_id)
    stage.fal.submits = [request]
    await stage.submit(job_id, has_history=True)

    rows = await stage.sql.fetch("SELECT * FROM attempts WHERE job_id = $1 ORDER BY number", job_id)
    assert stage.fal.seen_tags == [{"job": str(job_id), "attempt": number} for number in ("1", "2", "3")]
    assert [row["outcome"] for row in rows] == ["not_queued", "not_queued", "accepted"]
    assert [row["input_digest"] for row in rows] == [
        stage.fal.input_digest(parameters) for parameters in stage.fal.seen_parameters
    ]
    # The seed of each attempt is its own.
    assert rows[0]["input_digest"] == rows[1]["input_digest"] != rows[2]["input_digest"]


@pytest.mark.parametrize("has_history", [True, False])
async def test_of_a_submission_that_died_the_digest_is_reckoned(stage: Stage, has_history: bool) -> None:
    job_id = await stage.accept()
    token = await stage.claim(job_id)
    await stage.sql.execute("UPDATE jobs SET claimed_at = claimed_at - interval '31 seconds'")
    given = await stage.jobs.load_input(job_id)

    await stage.submit(job_id, has_history=has_history)

    attempt, sent = await stage.attempt(token), with_seed(given, token) if has_history else given.parameters
    assert attempt["outcome"] == "unknown"
    assert attempt["input_digest"] == stage.fal.input_digest(sent)
    assert stage.fal.seen_tags == []


@pytest.mark.parametrize("answer", ["accepted", "refused", "unknown", "not queued"])
async def test_an_earlier_attempt_wins_in_the_middle_of_a_post(stage: Stage, answer: str) -> None:
    job_id, first, second = await stage.accept(), provider_request(), provider_request()
    await stage.postponed(job_id)
    earlier = await stage.sql.fetchval("SELECT token FROM attempts")
    stage.fal.while_posting = lambda: stage.hear(earlier, first, Succeeded(RESULT))
    answers: dict[str, ProviderRequest | Exception] = {
        "accepted": second,
        "refused": SubmitRefused("invalid_input", "No."),
        "unknown": SubmitOutcomeUnknown("no answer"),
        "not queued": NotSubmitted("busy"),
    }
    stage.fal.submits = [answers[answer]]

    with capture_logs() as logs, suppress(RetryLater):
        await stage.submit(job_id)
    # The queue may ask again.
    await stage.submit(job_id)
    await stage.cancel_orphans(job_id)

    job = await stage.job(job_id)
    assert (job["status"], job["fal_request_id"]) == ("COMPLETED", first.id)
    newer = await stage.sql.fetchrow("SELECT * FROM attempts WHERE number = 2")
    assert newer is not None
    assert newer["outcome"] == answer.replace(" ", "_")
    assert stage.fal.cancels == ({second.id: 1} if answer == "accepted" else {})
    assert ("generation_orphaned" in [entry["event"] for entry in logs]) is (answer == "accepted")
    assert len(stage.fal.seen_tags) == 2
    await stage.assert_charged(1)


async def test_a_search_takes_no_orphan_for_the_run_of_a_lost_submission(stage: Stage) -> None:
    job_id, earlier, newer = await two_attempts(stage)
    assert await stage.answered(job_id, newer, provider_request("followed"))
    await stage.hear(earlier, provider_request("orphan"), UNUSABLE)

    known = await PostgresLostSubmissions(stage.engine).known(["followed", "orphan", "nobody's"])

    assert known == {"followed", "orphan"}


Racer = Callable[[], Awaitable[object]]


async def after(seconds: float, racer: Racer) -> None:
    await asyncio.sleep(seconds)
    with suppress(JobFinished):
        await racer()


async def test_whoever_comes_first_ends_the_job_and_every_other_run_is_seen_to(stage: Stage) -> None:
    """Events of both attempts, the newer one's answer, a look, a cancel by the user and the time limit, at once."""
    rounds, chance = 60, random.Random(20261128)
    by_number: Counter[int | None] = Counter()
    for _ in range(rounds):
        job_id, earlier, newer = await two_attempts(stage)
        first, second = provider_request(), provider_request()
        told = chance.choice([Succeeded(RESULT), Succeeded(RESULT), OVER, UNUSABLE])
        stage.fal.stands = {request.id: Succeeded(RESULT) for request in (first, second)}

        async def answer(job_id: UUID = job_id, newer: UUID = newer, second: ProviderRequest = second) -> None:
            await stage.answered(job_id, newer, second)

        racers: list[Racer] = [
            *[lambda told=told, first=first, earlier=earlier: stage.hear(earlier, first, told)] * 3,
            answer,
            lambda newer=newer, second=second: stage.hear(newer, second, Succeeded(RESULT)),  # type: ignore[misc]
            lambda job_id=job_id: stage.jobs.request_cancel(stage.customer.account_id, job_id),  # type: ignore[misc]
            lambda job_id=job_id: stage.jobs.settle(job_id, OUTCOMES[JobStatus.FAILED]),  # type: ignore[misc]
        ]
        await asyncio.gather(*(after(chance.uniform(0, 0.02), racer) for racer in racers))
        for _ in range(3):
            await stage.cancel_orphans(job_id)

        job = await stage.job(job_id)
        rows = [await stage.attempt(token) for token in (earlier, newer)]
        assert job["is_final"], dict(job)
        assert {row["outcome"] for row in rows} == {"not_queued", "accepted"}
        for row in rows:
            is_followed = row["fal_request_id"] == job["fal_request_id"]
            assert is_followed or row["closed_at"] is not None, (dict(job), dict(row))
            assert not (is_followed and row["orphaned_at"]), (dict(job), dict(row))
        assert job["status"] != "COMPLETED" or job["fal_request_id"] in (first.id, second.id)
        by_number[next((row["number"] for row in rows if row["fal_request_id"] == job["fal_request_id"]), None)] += 1

    assert by_number.keys() >= {1, 2}, by_number
    completed = await stage.sql.fetchval("SELECT count(*) FROM jobs WHERE status = 'COMPLETED'")
    await stage.assert_charged(completed)
