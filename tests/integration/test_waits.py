"""How a wait is written down, how it ends, and what is read of all of them: the operations, against PostgreSQL."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import SUBMISSIONS
from app.application.ports.execution import Wait
from app.domain.errors import JobFinished
from app.domain.jobs import JobStatus, WaitingFor
from app.domain.kinds import GenerationKind
from app.domain.waiting import RUNS_KEPT, Outlook
from app.infrastructure.postgres.admission import PostgresAdmission
from app.infrastructure.postgres.crowds import PostgresCrowds
from app.infrastructure.postgres.heartbeats import Heartbeats
from app.infrastructure.postgres.jobs.outlooks import PostgresOutlooks
from app.infrastructure.postgres.jobs.paces import Run, RunTimes
from tests.builders import (
    COST_TOKENS,
    MODEL_IDS,
    OUTCOMES,
    OWN_PAUSE,
    Connection,
    Customer,
    accept_job,
    balance_of,
    claimed_job,
    jobs_of,
    open_account,
    provider_request,
    provider_wait,
)
from tests.torture_report import report

DAY = 86_400
BALANCE_TOKENS = 100
MODEL = MODEL_IDS[GenerationKind.TEXT_TO_IMAGE]
LIMIT = Wait(reason="others are under way", waiting_for=WaitingFor.YOUR_LIMIT, is_providers=False)
LOCKED = Wait(reason="the key is refused", waiting_for=WaitingFor.PROVIDER_LOCKED, is_providers=True)
OVER = provider_wait("fal is away", seconds_max=DAY)


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, BALANCE_TOKENS)


async def set_back(sql: Connection, job_id: UUID, seconds: int = 2 * DAY) -> None:
    await sql.execute(
        "UPDATE jobs SET provider_waiting_since = now() - make_interval(secs => $2) WHERE id = $1", job_id, seconds
    )


async def waiting(sql: Connection, job_id: UUID) -> tuple[str | None, bool, str | None]:
    """What it waits for, whether the time counts, and the sentence."""
    row = await sql.fetchrow(
        "SELECT waiting_for, provider_waiting_since IS NOT NULL, status_reason FROM jobs WHERE id = $1", job_id
    )
    assert row is not None
    return tuple(row)


async def test_the_time_counts_from_the_first_wait_for_fal_and_not_through_others(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    jobs, job_id = jobs_of(engine), await accept_job(engine, customer)
    since = "SELECT provider_waiting_since FROM jobs WHERE id = $1"

    await jobs.record_waiting(job_id, provider_wait("fal is away"))
    first = await sql.fetchval(since, job_id)
    await jobs.record_waiting(job_id, LOCKED)
    token = uuid4()
    claim = await jobs.claim(job_id, token)
    assert claim is not None
    assert claim.seconds_waiting_for_provider is not None
    assert await waiting(sql, job_id) == (None, True, None)
    assert await jobs.release(job_id, token, provider_wait("busy"))
    await jobs.record_waiting(job_id, OWN_PAUSE)
    assert await sql.fetchval(since, job_id) == first
    assert await waiting(sql, job_id) == ("your_limit", True, "no answer")

    await jobs.record_waiting(job_id, LIMIT)
    assert await waiting(sql, job_id) == ("your_limit", False, "others are under way")


async def test_what_says_the_same_again_is_not_written(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id = await accept_job(engine, customer)
    await jobs_of(engine).record_waiting(job_id, LOCKED)
    before = await sql.fetchval("SELECT xmin::text FROM jobs WHERE id = $1", job_id)

    assert await jobs_of(engine).record_waiting(job_id, LOCKED) is False

    assert await sql.fetchval("SELECT xmin::text FROM jobs WHERE id = $1", job_id) == before


async def test_a_wait_that_is_too_long_ends_with_its_refund(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    jobs, job_id = jobs_of(engine), await accept_job(engine, customer)
    await jobs.record_waiting(job_id, provider_wait("fal is away"))
    assert await jobs.record_waiting(job_id, OVER) is False
    await set_back(sql, job_id)

    assert await jobs.record_waiting(job_id, OVER) is True
    assert await jobs.record_waiting(job_id, OVER) is False

    job = await jobs.get(customer.account_id, job_id)
    assert (job.status, job.error_code, job.refunded_tokens) == (JobStatus.FAILED, "queue_timeout", COST_TOKENS)
    assert await balance_of(engine, customer) == BALANCE_TOKENS


async def test_a_refused_submission_ends_what_has_waited_too_long(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    jobs = jobs_of(engine)
    job_id, token = await claimed_job(engine, customer)
    await set_back(sql, job_id)

    assert await jobs.release(job_id, token, OVER) is False

    assert (await jobs.get(customer.account_id, job_id)).error_code == "queue_timeout"
    assert await balance_of(engine, customer) == BALANCE_TOKENS


@pytest.mark.parametrize("is_unknown", [False, True])
async def test_what_may_have_been_sent_is_never_ended_so(
    engine: AsyncEngine, sql: Connection, customer: Customer, is_unknown: bool
) -> None:
    jobs = jobs_of(engine)
    job_id, token = await claimed_job(engine, customer)
    if is_unknown:
        assert await jobs.record_submit_unknown(job_id, token, "no answer")
    await set_back(sql, job_id)

    assert await jobs.record_waiting(job_id, OVER) is False
    if is_unknown:
        assert await jobs.release(job_id, token, OVER) is False

    assert (await jobs.get(customer.account_id, job_id)).status is JobStatus.SUBMITTING
    assert await balance_of(engine, customer) == BALANCE_TOKENS - COST_TOKENS


async def test_whoever_ends_or_claims_it_at_once_there_is_one_end_and_one_refund(
    crowd: AsyncEngine, sql: Connection
) -> None:
    jobs = jobs_of(crowd)
    customer = await open_account(crowd, BALANCE_TOKENS)
    for _ in range(20):
        job_id = await accept_job(crowd, customer)
        await set_back(sql, job_id)

        outcomes = await asyncio.gather(
            *(jobs_of(crowd).record_waiting(job_id, OVER) for _ in range(6)),
            *(jobs_of(crowd).claim(job_id, uuid4()) for _ in range(2)),
            jobs.request_cancel(customer.account_id, job_id),
            return_exceptions=True,
        )

        assert all(isinstance(each, JobFinished) for each in outcomes if isinstance(each, BaseException))
        job = await jobs.get(customer.account_id, job_id)
        is_claimed = any(each not in (None, True, False) for each in outcomes[6:8])
        assert sum(each is True for each in outcomes[:6]) == (job.error_code == "queue_timeout")
        assert is_claimed is (job.status is JobStatus.SUBMITTING)
        refunds = await sql.fetchval(
            "SELECT count(*) FROM ledger_entries WHERE job_id = $1 AND kind = 'REFUND'", job_id
        )
        assert refunds == (not is_claimed)
        if is_claimed:
            await jobs.settle(job_id, OUTCOMES[JobStatus.FAILED])
    assert await balance_of(crowd, customer) == BALANCE_TOKENS
    assert not await sql.fetchval("SELECT count(*) FROM ledger_violations")


async def test_those_that_are_put_off_unseen_say_why(engine: AsyncEngine, sql: Connection, customer: Customer) -> None:
    job_ids = [await accept_job(engine, customer) for _ in range(3)]
    neighbours = await accept_job(engine, await open_account(engine, BALANCE_TOKENS))

    await PostgresCrowds(engine).put_off_submissions(customer.account_id, 30, 1, OWN_PAUSE)

    assert {await waiting(sql, job_id) for job_id in job_ids} == {("your_limit", True, "no answer")}
    assert await waiting(sql, neighbours) == (None, False, None)


async def test_what_waits_for_its_turn_again_forgets_that_it_waited_for_fal(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    jobs = jobs_of(engine)
    in_turn, put_off, sent = [await accept_job(engine, customer) for _ in range(3)]
    for job_id in (in_turn, put_off, sent):
        await jobs.record_waiting(job_id, LOCKED)
    await sql.execute("UPDATE pgqueuer SET execute_after = now() - interval '1 minute'")
    await sql.execute(
        "UPDATE pgqueuer SET execute_after = now() + interval '1 minute' WHERE payload = $1", put_off.bytes
    )
    assert await jobs.claim(sent, uuid4()) is not None
    works = Heartbeats(engine, lambda: [SUBMISSIONS.name], lambda: [MODEL])
    await works.beat()

    assert await jobs.forget_waits() == 0
    await sql.execute("DELETE FROM heartbeats")
    # Nobody works: after a stop everything is late.
    assert await jobs.forget_waits() == 0
    await Heartbeats(engine, lambda: [SUBMISSIONS.name], lambda: ["another model"]).beat()
    assert await jobs.forget_waits() == 1
    assert await jobs.forget_waits() == 0

    assert await waiting(sql, in_turn) == (None, False, None)
    assert await waiting(sql, put_off) == ("provider_locked", True, "the key is refused")


@pytest.mark.parametrize(
    ("locked", "waited", "is_closed"),
    [([MODEL], 901, True), ([MODEL], 899, False), (["*"], 901, True), ([], 901, False)],
)
async def test_new_jobs_are_refused_while_the_model_is_locked_and_the_oldest_has_waited(
    engine: AsyncEngine, sql: Connection, locked: list[str], waited: int, is_closed: bool
) -> None:
    job_id = await accept_job(engine, await open_account(engine, BALANCE_TOKENS))
    await jobs_of(engine).record_waiting(job_id, LOCKED)
    await set_back(sql, job_id, waited)
    await Heartbeats(engine, list, lambda: locked, lambda: locked).beat()
    admission = PostgresAdmission(engine, 900)

    assert await admission.is_closed_to(MODEL) is is_closed
    assert await admission.is_closed_to("another") is (is_closed and locked == ["*"])


async def test_the_newest_runs_are_kept_by_all_together(engine: AsyncEngine, sql: Connection) -> None:
    one, other = RunTimes(engine), RunTimes(engine)
    one.add(Run(MODEL, float(number)) for number in range(150))
    await one.flush()
    other.add([Run(MODEL, 1000.0 + number) for number in range(100)] + [Run("another", 1.0), Run(MODEL, None)])

    await asyncio.gather(other.flush(), one.flush())

    seconds = await sql.fetchval("SELECT seconds FROM model_paces WHERE model_id = $1", MODEL)
    assert seconds == [1099.0 - number for number in range(100)] + [149.0 - number for number in range(100)]
    assert len(seconds) == RUNS_KEPT


async def test_only_what_completes_is_a_run(engine: AsyncEngine, sql: Connection, customer: Customer) -> None:
    jobs = jobs_of(engine)
    for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED):
        job_id, token = await claimed_job(engine, customer)
        assert await jobs.record_submission(job_id, token, provider_request())
        await sql.execute("UPDATE jobs SET claimed_at = claimed_at - interval '7 seconds' WHERE id = $1", job_id)
        assert await jobs.settle(job_id, OUTCOMES[status])
    # An end that is told again is no second run.
    assert not await jobs.settle(job_id, OUTCOMES[JobStatus.COMPLETED])

    async with asyncio.timeout(20):
        while not (kept := await sql.fetchval("SELECT seconds FROM model_paces")):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert len(kept) == 1
    assert 7 <= kept[0] < 30


WAITING_JOBS = 100_000
FILL = f"""
INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status, execute_after)
SELECT -10 * number, 'generation.submit', uuid_send(gen_random_uuid()), 'generation.submit:' || number, 'queued', now()
  FROM generate_series(1, {WAITING_JOBS}) AS number;
"""


@pytest.mark.alone
async def test_a_hundred_thousand_that_wait_are_one_look_and_a_bisection(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    await sql.execute(FILL)
    await sql.execute("ANALYZE pgqueuer")
    job_id = await accept_job(engine, customer)
    job = replace(await jobs_of(engine).get(customer.account_id, job_id), fair_tag=500_005)
    outlooks = PostgresOutlooks(engine, places_max=8)

    began = time.monotonic()
    told = await outlooks.of(job)
    look_seconds = time.monotonic() - began
    began = time.monotonic()
    for _ in range(1000):
        assert await outlooks.of(job) == told
    each_seconds = (time.monotonic() - began) / 1000

    # With the job's own item, whose tag is the first of all.
    assert told == Outlook(WaitingFor.FAIR_SHARE, 50_001, None)
    assert look_seconds < 2
    assert each_seconds < 0.001
    report("outlooks", {"look_ms": round(look_seconds * 1000), "answer_us": round(each_seconds * 1_000_000, 1)})


async def test_a_job_that_no_look_has_seen_is_told_nothing_yet(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    outlooks = PostgresOutlooks(engine)
    first = await jobs_of(engine).get(customer.account_id, await accept_job(engine, customer))
    assert (await outlooks.of(first)).position == 0

    second = await jobs_of(engine).get(customer.account_id, await accept_job(engine, customer))

    assert second.created_at > datetime.now(UTC) - timedelta(minutes=1)
    assert await outlooks.of(second) == Outlook(WaitingFor.FAIR_SHARE, None, None)
