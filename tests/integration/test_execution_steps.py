"""The steps of a job on a real database, with a fal that says what a test tells it and answers that get lost."""

import asyncio
import gc
import json
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application import cancel as cancellation
from app.application.cancel import CancelJob
from app.application.execution import follow, large_inputs, pacing, settlement
from app.application.execution.breaker import Breaker
from app.application.execution.follow import FollowJob
from app.application.execution.limits import SUBMIT_LEASE_SECONDS
from app.application.execution.pacing import BACKSTOP_SECONDS_MAX, BACKSTOP_SECONDS_MIN, Backstop
from app.application.execution.steps import FOLLOW_JOB, RetryLater
from app.application.execution.submit import SubmitJob
from app.application.ports.provider import (
    InProgress,
    InQueue,
    NotSubmitted,
    Observation,
    ProviderRequest,
    ProviderUnavailable,
    Rejected,
    Stopped,
    SubmitOutcomeUnknown,
    SubmitRefused,
    Succeeded,
)
from app.domain.errors import DatabaseUnavailable, JobFinished, Overloaded
from app.domain.jobs import Job, JobStatus, PublicStatus
from app.domain.orders import Accepted
from app.domain.terms import ResultShape
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    COST_TOKENS,
    RESULT,
    Connection,
    Customer,
    PostgresJobs,
    accept_job,
    balance_of,
    claimed_job,
    connect,
    contents,
    job_in,
    jobs_of,
    new_job,
    open_account,
    provider_request,
    queue_items,
    until,
)

BALANCE_TOKENS = 12
PAID = BALANCE_TOKENS - COST_TOKENS
UNKNOWN = SubmitOutcomeUnknown("no answer")
UNREACHABLE = ProviderUnavailable("no answer")
AT_FAL = [JobStatus.SUBMITTED, JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS]

lost_answer = pytest.mark.parametrize("moment", ["before", "after"])


async def nothing() -> None:
    pass


@dataclass
class ScriptedProvider:
    """Returns or raises what it is told, one answer after the other, and counts."""

    submits: list[ProviderRequest | Exception] = field(default_factory=list)
    looks: list[Observation | Exception] = field(default_factory=list)
    cancels: list[Exception] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    while_posting: Callable[[], Awaitable[None]] = nothing

    async def submit(
        self,
        model_id: str,
        parameters: Mapping[str, Any],
        *,
        webhook_url: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ProviderRequest:
        self.calls["submit"] += 1
        await self.while_posting()
        answer = self.submits.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def input_digest(self, parameters: Mapping[str, Any]) -> bytes:
        return sha256(json.dumps(parameters).encode()).digest()

    def request_of(self, model_id: str, request_id: str) -> ProviderRequest:
        return provider_request(request_id)

    async def observe(self, request: ProviderRequest, shape: ResultShape) -> Observation:
        self.calls["observe"] += 1
        answer = self.looks.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cancel(self, request: ProviderRequest) -> None:
        self.calls["cancel"] += 1
        if self.cancels:
            raise self.cancels.pop(0)


@dataclass
class UnreliableJobs:
    """The port on PostgreSQL. An operation fails as often as it is told, before or after it was done."""

    jobs: PostgresJobs
    error: type[Exception] = DatabaseUnavailable
    fail_before: Counter[str] = field(default_factory=Counter)
    fail_after: Counter[str] = field(default_factory=Counter)

    def fail(self, operation: str, moment: str, times: int = 1) -> None:
        (self.fail_before if moment == "before" else self.fail_after)[operation] = times

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self.jobs, name)

        async def call(*args: Any, **named: Any) -> Any:
            if self.fail_before[name]:
                self.fail_before[name] -= 1
                raise self.error
            answer = await operation(*args, **named)
            if self.fail_after[name]:
                self.fail_after[name] -= 1
                raise self.error
            return answer

        return call

    def all_failed(self) -> bool:
        return not (self.fail_before + self.fail_after)


@dataclass
class Stage:
    engine: AsyncEngine
    sql: Connection
    customer: Customer
    provider: ScriptedProvider
    jobs: UnreliableJobs

    async def submit(self, job_id: UUID, *, webhooks_url: str | None = None) -> None:
        jobs = cast(PostgresJobs, self.jobs)
        backstop = None if webhooks_url is None else Backstop(jobs)
        await SubmitJob(jobs, self.provider, Breaker(), webhooks_url, backstop)(job_id)

    async def follow(self, job_id: UUID) -> None:
        await FollowJob(cast(PostgresJobs, self.jobs), self.provider)(job_id)

    async def look_again(self, job_id: UUID) -> None:
        """A look that does not end the job."""
        with pytest.raises(RetryLater):
            await self.follow(job_id)

    async def cancel(self, job_id: UUID) -> Job:
        follow = FollowJob(cast(PostgresJobs, self.jobs), self.provider)
        return (await CancelJob(cast(PostgresJobs, self.jobs), follow)(self.customer.account_id, job_id)).job

    async def ask_to_cancel(self, job_id: UUID) -> None:
        await jobs_of(self.engine).request_cancel(self.customer.account_id, job_id)

    async def job(self, job_id: UUID) -> Job:
        return await jobs_of(self.engine).get(self.customer.account_id, job_id)

    async def status(self, job_id: UUID) -> str:
        return str(await self.column(job_id, "status"))

    async def column(self, job_id: UUID, name: str) -> Any:
        return await self.sql.fetchval(f"SELECT {name} FROM jobs WHERE id = $1", job_id)

    async def set_back(self, job_id: UUID, moment: str, seconds: float) -> None:
        """As if the moment, or now, had been so long ago."""
        await self.sql.execute(
            f"UPDATE jobs SET {moment} = clock_timestamp() - make_interval(secs => $2) WHERE id = $1", job_id, seconds
        )

    async def balance(self) -> int:
        return await balance_of(self.engine, self.customer)

    async def assert_books_agree(self) -> None:
        assert await PostgresLedger(self.engine).violations() == []


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "PERSIST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(cancellation, "CANCEL_LOOK_SECONDS", 0.01)
    # Only a test of that ends a wait for fal, and no busy machine.
    monkeypatch.setattr(cancellation, "CANCEL_WAIT_SECONDS", 30)


@pytest.fixture
async def stage(engine: AsyncEngine, database: str) -> AsyncIterator[Stage]:
    async with connect(database) as sql:
        customer = await open_account(engine, BALANCE_TOKENS)
        yield Stage(engine, sql, customer, ScriptedProvider(), UnreliableJobs(jobs_of(engine)))


async def test_holds_few_large_inputs_at_once_and_small_ones_beside_them(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_inputs, "LARGE_INPUTS_MAX", 2)
    picture = b64encode(Random(1).randbytes(9000)).decode()
    customer, jobs = await open_account(stage.engine, 100), jobs_of(stage.engine)
    large = [replace(new_job(customer), parameters={"image_url": picture}) for _ in range(5)]
    small = [new_job(customer) for _ in range(3)]
    for job in (*large, *small):
        await jobs.accept(job)
    may_end, posting, most = asyncio.Event(), 0, 0

    async def take_long() -> None:
        nonlocal posting, most
        posting += 1
        most = max(most, posting)
        await may_end.wait()
        posting -= 1

    stage.provider.while_posting = take_long
    stage.provider.submits = [provider_request() for _ in (*large, *small)]
    submit = SubmitJob(cast(PostgresJobs, stage.jobs), stage.provider, Breaker())
    steps = [asyncio.create_task(submit(job.id)) for job in large]

    async def two_large_ones_are_there() -> bool:
        return posting >= 2

    await until(two_large_ones_are_there)
    await asyncio.sleep(0.3)
    with_large_ones = posting
    steps += [asyncio.create_task(submit(job.id)) for job in small]

    async def all_small_ones_are_there() -> bool:
        return posting == with_large_ones + len(small)

    await until(all_small_ones_are_there)
    waiting = [await stage.status(job.id) for job in large]
    may_end.set()
    ends = await asyncio.gather(*steps, return_exceptions=True)
    for job in large:
        await submit(job.id)

    assert Counter(map(type, ends)) == {type(None): 2 + len(small), RetryLater: 3}
    assert with_large_ones == 2
    assert most == 2 + len(small)
    assert Counter(waiting) == {"SUBMITTING": 2, "QUEUED": 3}
    assert stage.provider.calls["submit"] == len(large) + len(small)
    assert {await stage.status(job.id) for job in (*large, *small)} == {"SUBMITTED"}


async def test_a_job_that_was_given_back_while_its_claim_waited_is_claimed_again(stage: Stage) -> None:
    """The claim does not see what became claimable while it waited for the row."""
    job_id = await accept_job(stage.engine, stage.customer)

    async def claim_too_early(*_: UUID, **__: bool) -> None:
        return None

    vars(stage.jobs)["claim"] = claim_too_early
    with pytest.raises(RetryLater) as decision:
        await stage.submit(job_id)

    assert decision.value.delay_seconds == 0
    assert stage.provider.calls == {}
    assert await stage.status(job_id) == "QUEUED"


async def test_a_job_goes_all_the_way_and_is_posted_once(stage: Stage) -> None:
    job_id, request = await accept_job(stage.engine, stage.customer), provider_request()
    seen = [await stage.status(job_id)]

    async def note_status() -> None:
        seen.append(await stage.status(job_id))

    stage.provider.while_posting = note_status
    stage.provider.submits = [request]
    stage.provider.looks = [InQueue(3), InProgress(), InQueue(0), InProgress(), Succeeded(RESULT)]
    await stage.submit(job_id)
    await note_status()
    for _ in range(4):
        await stage.look_again(job_id)
        await note_status()
    await stage.follow(job_id)

    job = await stage.job(job_id)
    assert seen == ["QUEUED", "SUBMITTING", "SUBMITTED", "IN_QUEUE", "IN_PROGRESS", "IN_QUEUE", "IN_PROGRESS"]
    assert (job.status, job.result, job.fal_request_id) == (JobStatus.COMPLETED, RESULT, request.id)
    assert stage.provider.calls == {"submit": 1, "observe": 5}
    assert await stage.balance() == PAID
    await stage.assert_books_agree()


@lost_answer
async def test_a_claim_whose_answer_is_lost_leads_to_one_post(stage: Stage, moment: str) -> None:
    job_id, request = await accept_job(stage.engine, stage.customer), provider_request()
    stage.provider.submits = [request]
    stage.jobs.fail("claim", moment)

    await stage.submit(job_id)

    assert stage.jobs.all_failed()
    assert stage.provider.calls["submit"] == 1
    assert (await stage.status(job_id), await stage.column(job_id, "attempts")) == ("SUBMITTED", 1)
    assert (await stage.job(job_id)).fal_request_id == request.id


@lost_answer
async def test_a_submission_is_recorded_however_often_the_database_fails_at_it(stage: Stage, moment: str) -> None:
    job_id, request = await accept_job(stage.engine, stage.customer), provider_request()
    stage.provider.submits = [request]
    stage.jobs.fail("record_submission", moment, times=7)

    await stage.submit(job_id)

    assert stage.provider.calls["submit"] == 1
    assert (await stage.job(job_id)).fal_request_id == request.id
    assert await stage.status(job_id) == "SUBMITTED"
    assert (FOLLOW_JOB, job_id) in await queue_items(stage.sql)


async def test_a_submission_is_recorded_although_too_many_wait_for_the_database(stage: Stage) -> None:
    job_id, request = await accept_job(stage.engine, stage.customer), provider_request()
    stage.provider.submits = [request]
    stage.jobs.error = Overloaded
    for operation in ("claim", "record_submission"):
        stage.jobs.fail(operation, "before", times=3)

    await stage.submit(job_id)

    assert stage.jobs.all_failed()
    assert stage.provider.calls["submit"] == 1
    assert (await stage.job(job_id)).fal_request_id == request.id


@pytest.mark.parametrize(("webhooks_url", "seconds"), [(None, 0), ("https://ours.example/webhooks/fal", 5)])
async def test_the_first_look_leaves_the_event_time_to_come(
    stage: Stage, webhooks_url: str | None, seconds: int
) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits, stage.provider.looks = [provider_request()], [Stopped()]
    due = (
        "SELECT round(extract(epoch FROM execute_after - created)) FROM pgqueuer WHERE entrypoint = 'generation.follow'"
    )

    await stage.submit(job_id, webhooks_url=webhooks_url)
    first_look = await stage.sql.fetchval(due)
    await jobs_of(stage.engine).look_now(job_id)
    brought_forward = await stage.sql.fetchval("SELECT bool_and(execute_after <= now()) FROM pgqueuer")
    canceled = await stage.cancel(job_id)

    assert (first_look, brought_forward) == (seconds, True)
    assert canceled.status is JobStatus.CANCELED


async def test_the_first_look_beside_many_jobs_comes_in_time_for_the_limit(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LOOKS_PER_SECOND_MAX", 0.001)
    other = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    job = await jobs_of(stage.engine).accept(new_job(stage.customer, time_limit_seconds=60))
    stage.provider.submits = [provider_request()]

    await stage.submit(job.job.id, webhooks_url="https://ours.example/webhooks/fal")
    after_the_limit = await stage.sql.fetchval(
        "SELECT extract(epoch FROM execute_after - deadline_at)::float8 FROM pgqueuer, jobs"
        " WHERE dedupe_key = 'generation.follow:' || jobs.id AND jobs.id <> $1",
        other,
    )

    assert 0 < after_the_limit < 5


@lost_answer
async def test_an_unknown_outcome_is_recorded_although_the_database_fails(stage: Stage, moment: str) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [UNKNOWN]
    stage.jobs.fail("record_submit_unknown", moment)

    await stage.submit(job_id)

    assert stage.jobs.all_failed()
    assert stage.provider.calls["submit"] == 1
    assert await stage.status(job_id) == "SUBMITTING"
    assert await stage.column(job_id, "submit_unknown_at") is not None
    assert (FOLLOW_JOB, job_id) in await queue_items(stage.sql)


@lost_answer
async def test_a_refusal_is_refunded_once_although_the_database_fails(stage: Stage, moment: str) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [SubmitRefused("invalid_input", "fal did not accept this input.")]
    stage.jobs.fail("settle", moment)

    await stage.submit(job_id)

    job = await stage.job(job_id)
    assert stage.jobs.all_failed()
    assert stage.provider.calls["submit"] == 1
    assert (job.status, job.error_code) == (JobStatus.FAILED, "invalid_input")
    assert job.error_message == "fal did not accept this input. Nothing was charged."
    assert await stage.balance() == BALANCE_TOKENS
    await stage.assert_books_agree()


@lost_answer
async def test_what_never_reached_fal_is_posted_by_the_next_attempt_although_the_database_fails(
    stage: Stage, moment: str
) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [NotSubmitted("fal is busy"), provider_request()]
    stage.jobs.fail("release", moment)

    with pytest.raises(RetryLater):
        await stage.submit(job_id)
    between = (await stage.status(job_id), await stage.column(job_id, "status_reason"))
    await stage.submit(job_id)

    assert stage.jobs.all_failed()
    assert between == ("QUEUED", "fal is busy")
    assert stage.provider.calls["submit"] == 2
    assert (await stage.status(job_id), await stage.column(job_id, "attempts")) == ("SUBMITTED", 2)
    assert await stage.balance() == PAID


@lost_answer
async def test_a_result_is_settled_once_when_the_look_is_repeated_after_a_failure(stage: Stage, moment: str) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    stage.provider.looks = [Rejected("provider_error", "fal could not run it."), Succeeded(RESULT)]
    stage.jobs.fail("settle", moment)

    with pytest.raises(DatabaseUnavailable):
        await stage.follow(job_id)
    await stage.follow(job_id)

    # Where the first answer was only lost, the job was final, and nobody looked again.
    expected = (JobStatus.COMPLETED, PAID, 2) if moment == "before" else (JobStatus.FAILED, BALANCE_TOKENS, 1)
    job = await stage.job(job_id)
    assert (job.status, await stage.balance(), stage.provider.calls["observe"]) == expected
    await stage.assert_books_agree()


async def test_gives_up_recording_at_last_and_never_posts_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "PERSIST_TRIES_MAX", 3)
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [provider_request()]
    stage.jobs.fail("record_submission", "before", times=4)

    with pytest.raises(DatabaseUnavailable):
        await stage.submit(job_id)
    with pytest.raises(RetryLater):
        await stage.submit(job_id)

    assert stage.jobs.all_failed()
    assert stage.provider.calls["submit"] == 1
    assert await stage.status(job_id) == "SUBMITTING"


async def test_a_run_of_an_attempt_that_fal_had_refused_is_adopted_and_not_posted_again(stage: Stage) -> None:
    job_id, request = await accept_job(stage.engine, stage.customer), provider_request()
    stage.provider.submits = [NotSubmitted("fal asks to slow down")]
    with pytest.raises(RetryLater):
        await stage.submit(job_id)
    attempt_token = await stage.column(job_id, "attempt_token")

    assert await jobs_of(stage.engine).record_submission(job_id, attempt_token, request)
    await stage.submit(job_id)
    stage.provider.looks = [Succeeded(RESULT)]
    await stage.follow(job_id)

    assert (await stage.job(job_id)).status is JobStatus.COMPLETED
    assert stage.provider.calls == {"submit": 1, "observe": 1}
    assert await stage.balance() == PAID
    await stage.assert_books_agree()


async def test_an_attempt_that_a_later_one_replaced_is_not_adopted(stage: Stage) -> None:
    job_id, later = await accept_job(stage.engine, stage.customer), provider_request()
    stage.provider.submits = [NotSubmitted("fal asks to slow down"), later]
    with pytest.raises(RetryLater):
        await stage.submit(job_id)
    first_token = await stage.column(job_id, "attempt_token")
    await stage.submit(job_id)

    assert not await jobs_of(stage.engine).record_submission(job_id, first_token, provider_request())
    assert await stage.column(job_id, "fal_request_id") == later.id


@pytest.mark.parametrize(("wished", "expected"), [(None, 1), (30, 30)])
async def test_waits_before_the_next_attempt_as_long_as_fal_asks(
    stage: Stage, wished: float | None, expected: float
) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [NotSubmitted("fal is busy", wished)]

    with pytest.raises(RetryLater) as decision:
        await stage.submit(job_id)

    assert expected / 2 <= decision.value.delay_seconds <= expected
    assert wished is None or decision.value.delay_seconds == wished


@pytest.mark.parametrize("status", [*AT_FAL, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
async def test_never_posts_what_is_at_fal_or_final(stage: Stage, status: JobStatus) -> None:
    job_id = await job_in(stage.engine, stage.customer, status)
    before = await contents(stage.sql)

    await stage.submit(job_id)

    assert stage.provider.calls == {}
    assert await contents(stage.sql) == before


async def test_two_workers_with_the_same_job_post_it_once(stage: Stage) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    may_answer = asyncio.Event()
    stage.provider.submits = [provider_request()]

    async def wait() -> None:
        # A second POST fails the test at once, and does not wait for it.
        if stage.provider.calls["submit"] == 1:
            await may_answer.wait()

    async def has_posted() -> bool:
        return stage.provider.calls["submit"] == 1

    stage.provider.while_posting = wait
    first = asyncio.create_task(stage.submit(job_id))
    await until(has_posted)

    with pytest.raises(RetryLater):
        await stage.submit(job_id)
    may_answer.set()
    await first

    assert stage.provider.calls["submit"] == 1
    assert await stage.status(job_id) == "SUBMITTED"


async def test_a_cancel_while_the_post_runs_is_sent_to_fal_and_refunded_once_fal_confirms(stage: Stage) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [provider_request()]
    stage.provider.looks = [Stopped()]
    stage.provider.while_posting = lambda: stage.ask_to_cancel(job_id)

    await stage.submit(job_id)
    between = (await stage.status(job_id), await stage.balance())
    await stage.follow(job_id)

    assert between == ("SUBMITTED", PAID)
    assert stage.provider.calls == {"submit": 1, "cancel": 1, "observe": 1}
    assert await stage.status(job_id) == "CANCELED"
    assert await stage.balance() == BALANCE_TOKENS
    await stage.assert_books_agree()


async def test_a_cancel_while_the_post_runs_ends_what_never_reached_fal(stage: Stage) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [NotSubmitted("fal is busy")]
    stage.provider.while_posting = lambda: stage.ask_to_cancel(job_id)

    with pytest.raises(RetryLater):
        await stage.submit(job_id)
    await stage.submit(job_id)

    assert stage.provider.calls["submit"] == 1
    assert (await stage.status(job_id), await stage.balance()) == ("CANCELED", BALANCE_TOKENS)
    await stage.assert_books_agree()


async def test_an_unknown_outcome_is_never_posted_again_and_refunded_after_its_time_limit_only(stage: Stage) -> None:
    job_id = await accept_job(stage.engine, stage.customer)
    stage.provider.submits = [UNKNOWN]

    await stage.submit(job_id)
    await stage.submit(job_id)
    await stage.set_back(job_id, "claimed_at", 3600)
    await stage.submit(job_id)
    await stage.look_again(job_id)
    within = (await stage.status(job_id), await stage.balance())
    await stage.set_back(job_id, "deadline_at", 1)
    await stage.follow(job_id)

    job = await stage.job(job_id)
    assert within == ("SUBMITTING", PAID)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "submit_unknown")
    assert stage.provider.calls == {"submit": 1}
    assert await stage.balance() == BALANCE_TOKENS
    await stage.assert_books_agree()


async def test_an_unknown_outcome_that_the_user_wants_canceled_ends_canceled_after_its_time_limit(stage: Stage) -> None:
    job_id, attempt_token = await claimed_job(stage.engine, stage.customer)
    await jobs_of(stage.engine).record_submit_unknown(job_id, attempt_token, "no answer")
    await stage.ask_to_cancel(job_id)

    await stage.look_again(job_id)
    within = (await stage.status(job_id), await stage.balance())
    await stage.set_back(job_id, "deadline_at", 1)
    await stage.follow(job_id)

    assert within == ("SUBMITTING", PAID)
    assert (await stage.status(job_id), await stage.balance()) == ("CANCELED", BALANCE_TOKENS)


async def test_a_claim_of_a_process_that_is_gone_becomes_unknown_after_the_lease(stage: Stage) -> None:
    job_id, _ = await claimed_job(stage.engine, stage.customer)
    await stage.set_back(job_id, "claimed_at", SUBMIT_LEASE_SECONDS + 1)

    await stage.submit(job_id)

    assert stage.provider.calls == {}
    assert await stage.status(job_id) == "SUBMITTING"
    assert await stage.column(job_id, "submit_unknown_at") is not None
    assert (FOLLOW_JOB, job_id) in await queue_items(stage.sql)
    assert await stage.balance() == PAID


async def test_a_claim_within_the_lease_is_left_alone_until_the_lease_is_over(stage: Stage) -> None:
    job_id, _ = await claimed_job(stage.engine, stage.customer)
    await stage.set_back(job_id, "claimed_at", 10)
    before = await contents(stage.sql)

    with pytest.raises(RetryLater) as decision:
        await stage.submit(job_id)

    remaining = SUBMIT_LEASE_SECONDS - 10
    assert remaining - 5 < decision.value.delay_seconds <= remaining + 1
    assert stage.provider.calls == {}
    assert await contents(stage.sql) == before


async def test_a_claim_that_was_taken_for_lost_meanwhile_is_not_posted(stage: Stage) -> None:
    """The database was away for longer than the lease between the claim and its answer."""
    job_id = await accept_job(stage.engine, stage.customer)
    claim = stage.jobs.jobs.claim

    async def claim_and_lose_the_lease(job_id: UUID, attempt_token: UUID, **_: Any) -> None:
        await claim(job_id, attempt_token)
        await stage.jobs.jobs.record_submit_unknown(job_id, attempt_token, "the submitting process ended")
        vars(stage.jobs)["claim"] = claim
        raise DatabaseUnavailable

    vars(stage.jobs)["claim"] = claim_and_lose_the_lease

    await stage.submit(job_id)

    assert stage.provider.calls == {}
    assert await stage.status(job_id) == "SUBMITTING"


@pytest.mark.parametrize("status", AT_FAL)
async def test_a_failed_look_changes_nothing(stage: Stage, status: JobStatus) -> None:
    job_id = await job_in(stage.engine, stage.customer, status)
    stage.provider.looks = [UNREACHABLE] * 3
    before = await contents(stage.sql)

    for _ in range(3):
        await stage.look_again(job_id)

    assert await contents(stage.sql) == before


@pytest.mark.parametrize(("age_seconds", "left_seconds"), [(1, 900), (40, 900), (40, 7), (1000, 900), (1000, 7)])
async def test_the_next_look_with_webhooks_comes_after_as_long_again_but_before_the_time_limit(
    stage: Stage, age_seconds: float, left_seconds: float
) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.set_back(job_id, "claimed_at", age_seconds)
    await stage.set_back(job_id, "deadline_at", -left_seconds)
    stage.provider.looks = [InProgress()]

    with pytest.raises(RetryLater) as decision:
        await FollowJob(cast(PostgresJobs, stage.jobs), stage.provider, Backstop(cast(PostgresJobs, stage.jobs)))(
            job_id
        )

    pause = min(max(age_seconds, BACKSTOP_SECONDS_MIN), BACKSTOP_SECONDS_MAX)
    expected = min(pause, left_seconds + 1)
    assert expected * 0.8 < decision.value.delay_seconds < expected * 1.2


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED])
async def test_does_not_look_for_what_is_not_at_fal(stage: Stage, status: JobStatus) -> None:
    job_id = await job_in(stage.engine, stage.customer, status)
    before = await contents(stage.sql)

    await stage.follow(job_id)
    await stage.follow(uuid4())

    assert stage.provider.calls == {}
    assert await contents(stage.sql) == before


@pytest.mark.parametrize("status", AT_FAL)
@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Succeeded(RESULT), (JobStatus.COMPLETED, None, PAID)),
        (Rejected("provider_error", "fal could not run it."), (JobStatus.FAILED, "provider_error", BALANCE_TOKENS)),
        (Stopped(), (JobStatus.CANCELED, "canceled", BALANCE_TOKENS)),
    ],
    ids=["succeeded", "rejected", "stopped"],
)
async def test_fals_verdict_ends_the_job_with_the_money_that_belongs_to_it(
    stage: Stage, status: JobStatus, verdict: Observation, expected: tuple[JobStatus, str | None, int]
) -> None:
    job_id = await job_in(stage.engine, stage.customer, status)
    stage.provider.looks = [verdict]

    await stage.follow(job_id)

    job = await stage.job(job_id)
    assert (job.status, job.error_code, await stage.balance()) == expected
    await stage.assert_books_agree()


async def test_a_failed_look_after_a_pause_beyond_the_time_limit_ends_nothing(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.set_back(job_id, "deadline_at", 24 * 3600)
    stage.provider.looks = [UNREACHABLE]

    await stage.look_again(job_id)

    assert await stage.status(job_id) == "IN_PROGRESS"
    assert await stage.column(job_id, "overdue_noticed_at") is not None
    assert stage.provider.calls == {"cancel": 1, "observe": 1}
    assert await stage.balance() == PAID


async def test_a_result_after_the_time_limit_is_delivered_and_charged_within_the_grace(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.set_back(job_id, "deadline_at", 600)
    stage.provider.looks = [InProgress(), Succeeded(RESULT)]

    await stage.look_again(job_id)
    await stage.set_back(job_id, "overdue_noticed_at", follow.CANCEL_GRACE_SECONDS - 20)
    await stage.follow(job_id)

    assert (await stage.status(job_id), await stage.balance()) == ("COMPLETED", PAID)
    assert stage.provider.calls["cancel"] == 1


@pytest.mark.parametrize(("user_cancels", "expected"), [(False, "timed_out"), (True, "canceled")])
async def test_fal_stopping_after_the_time_limit_is_a_failure_unless_the_user_asked_for_it(
    stage: Stage, user_cancels: bool, expected: str
) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.set_back(job_id, "deadline_at", 600)
    if user_cancels:
        await jobs_of(stage.engine).request_cancel(stage.customer.account_id, job_id)
    stage.provider.looks = [Stopped()]

    await stage.follow(job_id)

    assert ((await stage.job(job_id)).error_code, await stage.balance()) == (expected, BALANCE_TOKENS)


@pytest.mark.parametrize(
    ("look", "grace_seconds"),
    [
        pytest.param(UNREACHABLE, follow.UNANSWERED_GRACE_SECONDS, id="no-answer"),
        pytest.param(InProgress(), follow.CANCEL_GRACE_SECONDS, id="in-progress"),
        pytest.param(InQueue(0), follow.CANCEL_GRACE_SECONDS, id="in-queue"),
    ],
)
async def test_is_given_up_and_refunded_when_the_grace_after_the_time_limit_is_over(
    stage: Stage, look: Observation | Exception, grace_seconds: int
) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.set_back(job_id, "deadline_at", 600)
    stage.provider.looks = [look, look, look]

    await stage.look_again(job_id)
    await stage.set_back(job_id, "overdue_noticed_at", grace_seconds - 20)
    await stage.look_again(job_id)
    await stage.set_back(job_id, "overdue_noticed_at", grace_seconds + 1)
    await stage.follow(job_id)

    job = await stage.job(job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "timed_out")
    assert stage.provider.calls == {"cancel": 1, "observe": 3}
    assert await stage.balance() == BALANCE_TOKENS
    await stage.assert_books_agree()


async def test_a_result_that_comes_with_the_last_look_counts(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.set_back(job_id, "deadline_at", 3600)
    await stage.set_back(job_id, "overdue_noticed_at", 3000)
    stage.provider.looks = [Succeeded(RESULT)]

    await stage.follow(job_id)

    assert (await stage.status(job_id), await stage.balance()) == ("COMPLETED", PAID)


async def test_fal_is_told_to_stop_until_it_has_heard_it(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.set_back(job_id, "deadline_at", 600)
    stage.provider.cancels = [UNREACHABLE, UNREACHABLE]
    stage.provider.looks = [InProgress()] * 4
    told = []

    for _ in range(4):
        await stage.look_again(job_id)
        told.append(await stage.column(job_id, "cancel_sent_at") is not None)

    assert told == [False, False, True, True]
    assert stage.provider.calls["cancel"] == 3


async def test_nobody_is_told_to_stop_before_the_time_limit_without_a_wish(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_QUEUE)
    stage.provider.looks = [InQueue(0), InProgress(), UNREACHABLE]

    for _ in range(3):
        await stage.look_again(job_id)

    assert stage.provider.calls["cancel"] == 0
    assert await stage.column(job_id, "overdue_noticed_at") is None


async def test_a_cancel_that_found_the_request_queued_is_final_after_the_grace(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_QUEUE)
    await stage.ask_to_cancel(job_id)
    stage.provider.looks = [InQueue(0)] * 3

    await stage.look_again(job_id)
    await stage.set_back(job_id, "cancel_sent_at", follow.CANCEL_GRACE_SECONDS - 20)
    await stage.look_again(job_id)
    await stage.set_back(job_id, "cancel_sent_at", follow.CANCEL_GRACE_SECONDS + 1)
    await stage.follow(job_id)

    assert (await stage.status(job_id), await stage.balance()) == ("CANCELED", BALANCE_TOKENS)
    assert stage.provider.calls["cancel"] == 1
    await stage.assert_books_agree()


async def test_a_cancel_that_found_the_request_running_waits_for_fal_until_the_time_limit(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    await stage.ask_to_cancel(job_id)
    stage.provider.looks = [InProgress(), InProgress(), UNREACHABLE, Succeeded(RESULT)]

    await stage.look_again(job_id)
    await stage.set_back(job_id, "cancel_sent_at", 10 * follow.CANCEL_GRACE_SECONDS)
    await stage.look_again(job_id)
    await stage.look_again(job_id)
    await stage.follow(job_id)

    assert (await stage.status(job_id), await stage.balance()) == ("COMPLETED", PAID)
    assert stage.provider.calls["cancel"] == 1


async def test_a_waiting_job_is_canceled_without_a_word_to_fal(stage: Stage) -> None:
    job_id = await accept_job(stage.engine, stage.customer)

    job = await stage.cancel(job_id)

    assert (job.status, job.refunded_tokens) == (JobStatus.CANCELED, COST_TOKENS)
    assert stage.provider.calls == {}
    assert await stage.balance() == BALANCE_TOKENS
    await stage.assert_books_agree()


async def test_twenty_cancels_at_once_ask_fal_no_more_often_than_one(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    stage.provider.looks = [InProgress(), InProgress(), Stopped()]
    cancel = CancelJob(cast(PostgresJobs, stage.jobs), FollowJob(cast(PostgresJobs, stage.jobs), stage.provider))

    answers = await asyncio.gather(
        *(cancel(stage.customer.account_id, job_id) for _ in range(20)), return_exceptions=True
    )

    assert {type(answer) for answer in answers} <= {Accepted, JobFinished}
    assert {answer.job.status for answer in answers if isinstance(answer, Accepted)} == {JobStatus.CANCELED}
    assert stage.provider.calls == {"cancel": 1, "observe": 3}
    assert await stage.balance() == BALANCE_TOKENS


async def test_a_look_that_fails_after_its_caller_was_answered_is_nobodys_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_WAIT_SECONDS", 0.05)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    is_answered, has_failed = asyncio.Event(), asyncio.Event()

    async def fail_late(_: UUID) -> None:
        await is_answered.wait()
        has_failed.set()
        raise DatabaseUnavailable

    cancel = CancelJob(jobs_of(stage.engine), cast(FollowJob, fail_late))
    job = (await cancel(stage.customer.account_id, job_id)).job
    is_answered.set()
    await has_failed.wait()
    await asyncio.sleep(0)
    gc.collect()

    assert job.public_status is PublicStatus.CANCELING
    assert complaints == []


async def test_a_cancel_answers_with_the_end_when_fal_confirms_in_time(stage: Stage) -> None:
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_QUEUE)
    stage.provider.looks = [InQueue(0), UNREACHABLE, Stopped()]

    job = await stage.cancel(job_id)

    assert job.status is JobStatus.CANCELED
    assert stage.provider.calls == {"cancel": 1, "observe": 3}
    assert await stage.balance() == BALANCE_TOKENS


async def test_a_cancel_answers_canceling_when_fal_takes_too_long(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_WAIT_SECONDS", 0.2)
    job_id = await job_in(stage.engine, stage.customer, JobStatus.IN_PROGRESS)
    stage.provider.looks = [InProgress()] * 1000

    job = await stage.cancel(job_id)

    assert job.public_status is PublicStatus.CANCELING
    assert stage.provider.calls["cancel"] == 1
    assert await stage.balance() == PAID
