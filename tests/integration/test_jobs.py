"""Jobs and the money that belongs to them, under every race that real use can bring."""

import asyncio
from base64 import b64encode
from collections import Counter
from dataclasses import replace
from itertools import permutations
from random import Random
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import COPY_OUTPUTS, FOLLOW_JOB, SUBMIT_JOB
from app.application.ports.execution import Claim, LargeInput
from app.domain.attempts import JobInput
from app.domain.errors import InsufficientBalance, JobFinished, JobNotFound
from app.domain.jobs import TRANSITIONS, JobStatus, Outcome, PublicStatus
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    COST_TOKENS,
    OUTCOMES,
    RESULT,
    Connection,
    accept_job,
    balance_of,
    claimed_job,
    contents,
    job_in,
    jobs_of,
    new_job,
    open_account,
    provider_request,
    provider_wait,
    queue_items,
)

LIVE = [status for status in JobStatus if not status.is_final]
FINAL = [status for status in JobStatus if status.is_final]
SENT = [status for status in LIVE if status is not JobStatus.QUEUED]


async def status_of(sql: Connection, job_id: UUID) -> str:
    return str(await sql.fetchval("SELECT status FROM jobs WHERE id = $1", job_id))


async def assert_books_agree(engine: AsyncEngine) -> None:
    assert await PostgresLedger(engine).violations() == []


async def test_accepting_debits_stores_and_queues(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 12)
    asked = new_job(customer, cost_tokens=5)

    job = (await jobs_of(engine).accept(asked)).job

    assert (job.id, job.kind, job.model_id, job.cost_tokens) == (asked.id, asked.kind, asked.model_id, 5)
    assert job.public_status is PublicStatus.QUEUED
    assert await balance_of(engine, customer) == 7
    assert await queue_items(sql) == {(SUBMIT_JOB, job.id)}
    assert await jobs_of(engine).get(customer.account_id, job.id) == job
    await assert_books_agree(engine)


@pytest.mark.parametrize(
    "trigger",
    [
        "TRIGGER at_once AFTER INSERT ON pgqueuer",
        "CONSTRAINT TRIGGER last_moment AFTER INSERT ON pgqueuer DEFERRABLE INITIALLY DEFERRED",
    ],
    ids=["when it is queued", "at the commit"],
)
async def test_accepting_leaves_nothing_when_the_queue_fails(
    engine: AsyncEngine, sql: Connection, trigger: str
) -> None:
    customer = await open_account(engine, 12)
    await sql.execute(f"CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION refuse_change()")
    before = await contents(sql)

    with pytest.raises(Exception, match="INSERT on pgqueuer is not allowed"):
        await jobs_of(engine).accept(new_job(customer))

    assert await contents(sql) == before


async def test_accepting_without_the_tokens_writes_nothing(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, COST_TOKENS - 1)
    before = await contents(sql)

    with pytest.raises(InsufficientBalance):
        await jobs_of(engine).accept(new_job(customer))

    assert await contents(sql) == before


async def test_accepts_as_many_as_the_balance_pays_for_when_30_come_at_once(
    crowd: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(crowd, 10 * COST_TOKENS)
    asked = [new_job(customer) for _ in range(30)]

    outcomes = await asyncio.gather(*(jobs_of(crowd).accept(job) for job in asked), return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    accepted = {outcome.job.id for outcome in outcomes if not isinstance(outcome, BaseException)}
    assert [type(each) for each in refused] == [InsufficientBalance] * 20
    assert len(accepted) == 10
    assert {row["id"] for row in await sql.fetch("SELECT id FROM jobs")} == accepted
    assert await queue_items(sql) == {(SUBMIT_JOB, job_id) for job_id in accepted}
    assert await sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'DEBIT'") == 10
    assert await balance_of(crowd, customer) == 0
    await assert_books_agree(crowd)


async def test_gives_the_attempt_to_one_of_20_racers(crowd: AsyncEngine, sql: Connection) -> None:
    job_id = await accept_job(crowd, await open_account(crowd, 12))
    attempt_tokens = [uuid4() for _ in range(20)]

    claims = await asyncio.gather(*(jobs_of(crowd).claim(job_id, token) for token in attempt_tokens))

    (winner,) = [token for token, claim in zip(attempt_tokens, claims, strict=True) if claim is not None]
    row = await sql.fetchrow("SELECT status, attempts, attempt_token FROM jobs")
    assert row is not None
    assert tuple(row) == ("SUBMITTING", 1, winner)


async def test_a_claim_says_what_to_send(engine: AsyncEngine) -> None:
    asked = new_job(await open_account(engine, 12))
    await jobs_of(engine).accept(asked)

    claim = await jobs_of(engine).claim(asked.id, uuid4())

    assert claim == Claim(
        account_id=asked.account_id,
        model_id=asked.model_id,
        input=JobInput(parameters=asked.parameters),
        attempt=1,
        time_limit_seconds=asked.time_limit_seconds,
    )


async def test_claims_small_inputs_alone_where_large_ones_have_to_wait(engine: AsyncEngine, sql: Connection) -> None:
    customer, jobs = await open_account(engine, 100), jobs_of(engine)
    small, large = new_job(customer), new_job(customer)
    picture = f"data:image/png;base64,{b64encode(Random(1).randbytes(9000)).decode()}"
    large = replace(large, parameters={**large.parameters, "image_urls": [picture]})
    for job in (small, large):
        await jobs.accept(job)

    claims = await asyncio.gather(
        *(jobs.claim(job.id, uuid4(), may_be_large=False) for job in (large, small, large)), return_exceptions=True
    )
    row = await sql.fetchrow("SELECT status, attempts, attempt_token FROM jobs WHERE id = $1", large.id)
    at_last = await jobs.claim(large.id, uuid4())
    too_late = await jobs.claim(small.id, uuid4(), may_be_large=False)

    assert [type(claim) for claim in claims] == [LargeInput, Claim, LargeInput]
    assert row is not None
    assert tuple(row) == ("QUEUED", 0, None)
    assert at_last is not None
    assert at_last.input.parameters == large.parameters
    assert too_late is None


async def test_does_not_claim_what_is_not_waiting(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    job_ids = [await job_in(engine, customer, status) for status in (*SENT, *FINAL)]
    before = await contents(sql)

    claims = [await jobs_of(engine).claim(job_id, uuid4()) for job_id in job_ids]

    assert claims == [None] * 7
    assert await contents(sql) == before


async def test_a_released_job_can_be_claimed_again(engine: AsyncEngine) -> None:
    job_id, attempt_token = await claimed_job(engine, await open_account(engine, 12))
    jobs = jobs_of(engine)

    released = await jobs.release(job_id, attempt_token, provider_wait("fal was busy"))

    assert released
    claim = await jobs.claim(job_id, uuid4())
    assert claim is not None
    assert claim.attempt == 2


async def test_does_not_release_what_may_be_at_fal(engine: AsyncEngine, sql: Connection) -> None:
    job_id, attempt_token = await claimed_job(engine, await open_account(engine, 12))
    await jobs_of(engine).record_submit_unknown(job_id, attempt_token, "no answer")

    released = await jobs_of(engine).release(job_id, attempt_token, provider_wait("too late"))

    assert not released
    assert await status_of(sql, job_id) == "SUBMITTING"


async def test_a_recorded_submission_is_stored_and_queued_for_a_look(engine: AsyncEngine, sql: Connection) -> None:
    job_id, attempt_token = await claimed_job(engine, await open_account(engine, 12))
    request = provider_request()

    recorded = await jobs_of(engine).record_submission(job_id, attempt_token, request)

    state = await jobs_of(engine).load(job_id)
    assert recorded
    assert state is not None
    assert (state.status, state.request, state.is_submit_unknown) == (JobStatus.SUBMITTED, request, False)
    assert (FOLLOW_JOB, job_id) in await queue_items(sql)


async def test_an_unknown_submission_stays_paid_and_is_queued_for_a_look(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 12)
    job_id, attempt_token = await claimed_job(engine, customer)

    recorded = await jobs_of(engine).record_submit_unknown(job_id, attempt_token, "no answer")

    state = await jobs_of(engine).load(job_id)
    assert recorded
    assert state is not None
    assert (state.status, state.request, state.is_submit_unknown) == (JobStatus.SUBMITTING, None, True)
    assert (FOLLOW_JOB, job_id) in await queue_items(sql)
    assert await balance_of(engine, customer) == 12 - COST_TOKENS


async def test_a_late_answer_to_an_unknown_submission_is_recorded(engine: AsyncEngine) -> None:
    job_id, attempt_token = await claimed_job(engine, await open_account(engine, 12))
    jobs, request = jobs_of(engine), provider_request()
    await jobs.record_submit_unknown(job_id, attempt_token, "no answer")

    recorded = await jobs.record_submission(job_id, attempt_token, request)

    state = await jobs.load(job_id)
    assert recorded
    assert state is not None
    assert (state.status, state.request, state.is_submit_unknown) == (JobStatus.SUBMITTED, request, False)


async def test_another_attempt_changes_nothing(engine: AsyncEngine, sql: Connection) -> None:
    job_id, _ = await claimed_job(engine, await open_account(engine, 12))
    jobs, stranger = jobs_of(engine), uuid4()
    before = await contents(sql)

    done = [
        await jobs.release(job_id, stranger, provider_wait("not ours")),
        await jobs.record_submission(job_id, stranger, provider_request()),
        await jobs.record_submit_unknown(job_id, stranger, "not ours"),
    ]

    assert done == [False, False, False]
    assert await contents(sql) == before


async def test_an_earlier_attempt_changes_nothing(engine: AsyncEngine, sql: Connection) -> None:
    job_id, earlier = await claimed_job(engine, await open_account(engine, 12))
    jobs = jobs_of(engine)
    await jobs.release(job_id, earlier, provider_wait("fal was busy"))
    await jobs.claim(job_id, uuid4())
    before = await contents(sql)

    done = [
        await jobs.release(job_id, earlier, provider_wait("late")),
        await jobs.record_submission(job_id, earlier, provider_request()),
        await jobs.record_submit_unknown(job_id, earlier, "late"),
    ]

    assert done == [False, False, False]
    assert await contents(sql) == before


async def test_nothing_changes_a_settled_job(engine: AsyncEngine, sql: Connection) -> None:
    customer, jobs = await open_account(engine, 100), jobs_of(engine)
    settled = [await claimed_job(engine, customer) for _ in FINAL]
    for (job_id, _), status in zip(settled, FINAL, strict=True):
        await jobs.settle(job_id, OUTCOMES[status])
    before = await contents(sql)

    done = []
    for job_id, attempt_token in settled:
        done += [
            await jobs.release(job_id, attempt_token, provider_wait("late")),
            await jobs.record_submission(job_id, attempt_token, provider_request()),
            await jobs.record_submit_unknown(job_id, attempt_token, "late"),
            await jobs.record_progress(job_id, JobStatus.IN_PROGRESS),
            await jobs.settle(job_id, Outcome.completed({"images": []})),
            await jobs.settle(job_id, Outcome.failed("late", "Too late.")),
            await jobs.settle(job_id, Outcome.canceled()),
        ]
        await jobs.record_cancel_sent(job_id)

    assert done == [False] * 21
    after = await contents(sql)
    # What fal answered is a fact about the attempt, whatever became of the job.
    del before["attempts"], after["attempts"]
    assert after == before


async def test_counts_the_looks_that_wait_and_nothing_else(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    for status in (JobStatus.QUEUED, JobStatus.SUBMITTING, JobStatus.SUBMITTED, JobStatus.IN_PROGRESS):
        await job_in(engine, customer, status)
    await job_in(engine, customer, JobStatus.COMPLETED)
    assert await jobs_of(engine).count_waiting_looks() == 2

    await sql.execute("UPDATE pgqueuer SET status = 'picked'")

    assert await jobs_of(engine).count_waiting_looks() == 0


@pytest.mark.parametrize("end", FINAL)
async def test_a_late_look_changes_nothing(engine: AsyncEngine, sql: Connection, end: JobStatus) -> None:
    job_id = await job_in(engine, await open_account(engine, 12), end)
    before = await contents(sql)

    recorded = [
        await jobs_of(engine).record_progress(job_id, status) for status in (JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS)
    ]

    assert recorded == [False, False]
    assert await contents(sql) == before


async def test_a_request_id_of_another_job_is_not_recorded(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 12)
    (first, first_token), (second, second_token) = [await claimed_job(engine, customer) for _ in range(2)]
    jobs, request = jobs_of(engine), provider_request()

    assert await jobs.record_submission(first, first_token, request)
    assert not await jobs.record_submission(second, second_token, request)

    assert await status_of(sql, second) == "SUBMITTING"
    assert (FOLLOW_JOB, second) not in await queue_items(sql)


async def test_progress_goes_back_and_forth(engine: AsyncEngine, sql: Connection) -> None:
    job_id = await job_in(engine, await open_account(engine, 12), JobStatus.SUBMITTED)
    seen = []

    for status in (JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS, JobStatus.IN_QUEUE):
        assert await jobs_of(engine).record_progress(job_id, status)
        seen.append(await status_of(sql, job_id))

    assert seen == ["IN_QUEUE", "IN_PROGRESS", "IN_QUEUE"]


async def test_no_progress_of_a_job_that_was_never_submitted(engine: AsyncEngine, sql: Connection) -> None:
    job_id, _ = await claimed_job(engine, await open_account(engine, 12))

    recorded = await jobs_of(engine).record_progress(job_id, JobStatus.IN_PROGRESS)

    assert not recorded
    assert await status_of(sql, job_id) == "SUBMITTING"


async def test_a_job_is_overdue_after_its_time_limit(engine: AsyncEngine) -> None:
    customer, jobs = await open_account(engine, 12), jobs_of(engine)
    asked = [new_job(customer, time_limit_seconds=seconds) for seconds in (1, 3600)]
    for job in asked:
        await jobs.accept(job)
        await jobs.claim(job.id, uuid4())
        await jobs.record_cancel_sent(job.id)

    await asyncio.sleep(1.1)
    states = [await jobs.load(job.id) for job in asked]

    assert [state is not None and state.is_overdue for state in states] == [True, False]
    assert all(state is not None and 1 < state.seconds_since_claim < 60 for state in states)
    assert all(state is not None and 1 < (state.seconds_since_cancel_sent or 0) < 60 for state in states)


async def test_a_cancel_is_sent_at_one_time_however_often_it_is_recorded(engine: AsyncEngine, sql: Connection) -> None:
    job_id = await job_in(engine, await open_account(engine, 12), JobStatus.IN_PROGRESS)
    await jobs_of(engine).record_cancel_sent(job_id)
    before = await contents(sql)

    await jobs_of(engine).record_cancel_sent(job_id)

    assert await contents(sql) == before


async def test_completing_keeps_the_tokens_and_the_result(engine: AsyncEngine) -> None:
    customer = await open_account(engine, len(SENT) * COST_TOKENS)
    job_ids = [await job_in(engine, customer, status) for status in SENT]

    settled = [await jobs_of(engine).settle(job_id, OUTCOMES[JobStatus.COMPLETED]) for job_id in job_ids]

    jobs = [await jobs_of(engine).get(customer.account_id, job_id) for job_id in job_ids]
    assert settled == [True] * len(SENT)
    for job in jobs:
        assert (job.status, job.result, job.refunded_tokens) == (JobStatus.COMPLETED, RESULT, 0)
        assert (job.error_code, job.error_message) == (None, None)
    assert await balance_of(engine, customer) == 0
    await assert_books_agree(engine)


@pytest.mark.parametrize("end", [JobStatus.FAILED, JobStatus.CANCELED])
async def test_an_end_without_a_result_gives_all_tokens_back(engine: AsyncEngine, end: JobStatus) -> None:
    customer = await open_account(engine, len(LIVE) * COST_TOKENS)
    job_ids = [await job_in(engine, customer, status) for status in LIVE]

    settled = [await jobs_of(engine).settle(job_id, OUTCOMES[end]) for job_id in job_ids]

    jobs = [await jobs_of(engine).get(customer.account_id, job_id) for job_id in job_ids]
    assert settled == [True] * len(LIVE)
    for job in jobs:
        assert (job.status, job.result, job.refunded_tokens) == (end, None, COST_TOKENS)
        assert (job.error_code, job.error_message) == (OUTCOMES[end].error_code, OUTCOMES[end].error_message)
    assert await balance_of(engine, customer) == len(LIVE) * COST_TOKENS
    await assert_books_agree(engine)


async def test_one_of_40_racing_finishers_wins(crowd: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(crowd, 100)
    outcomes = [OUTCOMES[FINAL[number % 3]] for number in range(40)]
    won = []

    for turn in range(4):
        job_id = await job_in(crowd, customer, JobStatus.IN_PROGRESS)
        racers = outcomes[turn:] + outcomes[:turn]
        settled = await asyncio.gather(*(jobs_of(crowd).settle(job_id, outcome) for outcome in racers))
        won.append(([racers[number].status for number in range(40) if settled[number]], await status_of(sql, job_id)))

    assert all(winners == [status] for winners, status in won)
    refunds = sum(status != "COMPLETED" for _, status in won)
    assert await sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'REFUND'") == refunds
    assert await balance_of(crowd, customer) == 100 - (4 - refunds) * COST_TOKENS
    await assert_books_agree(crowd)


async def test_refunds_once_when_8_cancels_meet(crowd: AsyncEngine) -> None:
    customer = await open_account(crowd, 12)
    job_id = await accept_job(crowd, customer)

    answers = await asyncio.gather(
        *(jobs_of(crowd).request_cancel(customer.account_id, job_id) for _ in range(8)), return_exceptions=True
    )

    assert Counter(type(answer).__name__ for answer in answers) == {"Job": 1, "JobFinished": 7}
    assert await balance_of(crowd, customer) == 12
    await assert_books_agree(crowd)


async def test_a_cancel_and_a_claim_that_meet_never_both_have_the_job(crowd: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(crowd, 10 * COST_TOKENS)
    job_ids = [await accept_job(crowd, customer) for _ in range(10)]
    jobs = jobs_of(crowd)

    canceled, claims = await asyncio.gather(
        asyncio.gather(*(jobs.request_cancel(customer.account_id, job_id) for job_id in job_ids)),
        asyncio.gather(*(jobs.claim(job_id, uuid4()) for job_id in job_ids)),
    )

    assert {(job.public_status, claim is not None) for job, claim in zip(canceled, claims, strict=True)} <= {
        (PublicStatus.CANCELED, False),
        (PublicStatus.CANCELING, True),
    }
    refunds = sum(claim is None for claim in claims)
    assert await sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'REFUND'") == refunds
    assert await balance_of(crowd, customer) == refunds * COST_TOKENS
    await assert_books_agree(crowd)


async def test_a_cancel_and_a_result_that_meet_never_both_take_effect(crowd: AsyncEngine) -> None:
    customer = await open_account(crowd, 10 * COST_TOKENS)
    claimed = [await claimed_job(crowd, customer) for _ in range(10)]
    jobs = jobs_of(crowd)
    for job_id, _ in claimed:
        await jobs.request_cancel(customer.account_id, job_id)

    released, completed = await asyncio.gather(
        asyncio.gather(*(jobs.release(job_id, token, provider_wait("busy")) for job_id, token in claimed)),
        asyncio.gather(*(jobs.settle(job_id, OUTCOMES[JobStatus.COMPLETED]) for job_id, _ in claimed)),
    )

    assert released == [False] * 10
    ends = [(await jobs.get(customer.account_id, job_id)).status for job_id, _ in claimed]
    assert ends == [JobStatus.COMPLETED if won else JobStatus.CANCELED for won in completed]
    assert await balance_of(crowd, customer) == ends.count(JobStatus.CANCELED) * COST_TOKENS
    await assert_books_agree(crowd)


async def test_a_cancel_before_anything_was_sent_refunds_at_once(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 12)
    job_id = await accept_job(engine, customer)

    job = await jobs_of(engine).request_cancel(customer.account_id, job_id)

    assert (job.public_status, job.refunded_tokens) == (PublicStatus.CANCELED, COST_TOKENS)
    assert await balance_of(engine, customer) == 12
    await assert_books_agree(engine)


async def test_a_cancel_of_what_may_run_only_notes_the_wish(engine: AsyncEngine) -> None:
    customer = await open_account(engine, len(SENT) * COST_TOKENS)
    job_ids = [await job_in(engine, customer, status) for status in SENT]

    jobs = [await jobs_of(engine).request_cancel(customer.account_id, job_id) for job_id in job_ids]

    states = [await jobs_of(engine).load(job_id) for job_id in job_ids]
    assert [job.status for job in jobs] == SENT
    assert {(job.public_status, job.refunded_tokens) for job in jobs} == {(PublicStatus.CANCELING, 0)}
    assert all(state is not None and state.cancel_requested for state in states)
    assert await balance_of(engine, customer) == 0


async def test_the_first_wish_to_cancel_counts(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 12)
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    first = await jobs_of(engine).request_cancel(customer.account_id, job_id)

    second = await jobs_of(engine).request_cancel(customer.account_id, job_id)

    assert second.cancel_requested_at == first.cancel_requested_at


async def test_a_release_after_a_cancel_cancels_and_refunds(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 12)
    job_id, attempt_token = await claimed_job(engine, customer)
    await jobs_of(engine).request_cancel(customer.account_id, job_id)

    released = await jobs_of(engine).release(job_id, attempt_token, provider_wait("fal was busy"))

    job = await jobs_of(engine).get(customer.account_id, job_id)
    assert not released
    assert (job.status, job.refunded_tokens) == (JobStatus.CANCELED, COST_TOKENS)
    assert await balance_of(engine, customer) == 12
    await assert_books_agree(engine)


async def test_does_not_cancel_what_is_finished(engine: AsyncEngine, sql: Connection) -> None:
    customer, jobs = await open_account(engine, 100), jobs_of(engine)
    job_ids = [await job_in(engine, customer, status) for status in FINAL]
    before = await contents(sql)

    answers = [
        (await asyncio.gather(jobs.request_cancel(customer.account_id, job_id), return_exceptions=True))[0]
        for job_id in job_ids
    ]

    assert [type(answer) for answer in answers] == [JobFinished] * 3
    assert await contents(sql) == before


async def test_another_account_neither_sees_nor_cancels_the_job(engine: AsyncEngine, sql: Connection) -> None:
    job_id = await accept_job(engine, await open_account(engine, 12))
    stranger = (await open_account(engine)).account_id
    before = await contents(sql)

    with pytest.raises(JobNotFound):
        await jobs_of(engine).get(stranger, job_id)
    with pytest.raises(JobNotFound):
        await jobs_of(engine).request_cancel(stranger, job_id)

    assert await jobs_of(engine).page(stranger, limit=10, offset=0) == []
    assert await contents(sql) == before


async def test_an_unknown_job_is_not_there(engine: AsyncEngine) -> None:
    jobs, account_id, unknown = jobs_of(engine), (await open_account(engine)).account_id, uuid4()

    with pytest.raises(JobNotFound):
        await jobs.get(account_id, unknown)
    with pytest.raises(JobNotFound):
        await jobs.request_cancel(account_id, unknown)
    with pytest.raises(JobNotFound):
        await jobs.inspect(unknown)

    assert await jobs.load(unknown) is None
    assert await jobs.claim(unknown, uuid4()) is None
    assert await jobs.settle(unknown, Outcome.canceled()) is False


@pytest.mark.parametrize("are_simultaneous", [False, True])
async def test_lists_the_newest_first_page_by_page(
    engine: AsyncEngine, sql: Connection, *, are_simultaneous: bool
) -> None:
    customer = await open_account(engine, 100)
    job_ids = [await accept_job(engine, customer) for _ in range(7)]
    await accept_job(engine, await open_account(engine, 12))
    if are_simultaneous:
        # Rewritten in a mixed order, so that the order of the rows on disk is of no help.
        await sql.execute("SET session_replication_role = replica")
        for job_id in job_ids[1::2] + job_ids[::2]:
            await sql.execute("UPDATE jobs SET created_at = '2026-01-01Z' WHERE id = $1", job_id)

    pages = [await jobs_of(engine).page(customer.account_id, limit=3, offset=offset) for offset in (0, 3, 6, 9)]

    assert [[job.id for job in page] for page in pages] == [
        job_ids[6:3:-1],
        job_ids[3:0:-1],
        job_ids[:1],
        [],
    ]


async def test_shows_the_operator_the_newest_of_all_accounts(engine: AsyncEngine) -> None:
    customers = [await open_account(engine, 12), await open_account(engine, 12)]
    finished = await job_in(engine, customers[0], JobStatus.COMPLETED)
    first = await accept_job(engine, customers[0])
    second = await accept_job(engine, customers[1])

    everything = await jobs_of(engine).newest(unfinished_only=False, limit=10)
    unfinished = await jobs_of(engine).newest(unfinished_only=True, limit=1)

    assert [job.id for job in everything] == [second, first, finished]
    assert [job.id for job in unfinished] == [second]


async def test_shows_the_operator_every_column_of_a_job(engine: AsyncEngine) -> None:
    asked = new_job(await open_account(engine, 12))
    await jobs_of(engine).accept(asked)

    shown = await jobs_of(engine).inspect(asked.id)

    assert {"parameters", "attempt_token", "status_reason", "deadline_at", "late_result"} <= shown.keys()
    assert shown["parameters"] == asked.parameters


async def test_requeues_every_unfinished_job_for_the_step_it_waits_for(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    ids = {status: await job_in(engine, customer, status) for status in JobStatus}
    unknown, attempt_token = await claimed_job(engine, customer)
    await jobs_of(engine).record_submit_unknown(unknown, attempt_token, "no answer")
    await sql.execute("DELETE FROM pgqueuer")

    requeued = await jobs_of(engine).requeue_lost()

    expected = {(SUBMIT_JOB, ids[status]) for status in (JobStatus.QUEUED, JobStatus.SUBMITTING)}
    expected |= {(FOLLOW_JOB, ids[status]) for status in SENT if status is not JobStatus.SUBMITTING}
    expected |= {(FOLLOW_JOB, unknown), (COPY_OUTPUTS, ids[JobStatus.COMPLETED])}
    assert await queue_items(sql) == expected
    assert sorted(requeued) == sorted(job_id for _, job_id in expected)


@pytest.mark.parametrize("status", ["queued", "picked"])
async def test_leaves_alone_what_the_queue_looks_after(engine: AsyncEngine, sql: Connection, status: str) -> None:
    customer = await open_account(engine, 100)
    for each in LIVE:
        await job_in(engine, customer, each)
    await sql.execute("UPDATE pgqueuer SET status = $1::text::pgqueuer_status", status)
    before = await contents(sql)

    requeued = await jobs_of(engine).requeue_lost()

    assert requeued == []
    assert await contents(sql) == before


async def test_an_item_for_the_other_step_does_not_look_after_a_job(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    submitted = await job_in(engine, customer, JobStatus.SUBMITTED)
    await sql.execute("DELETE FROM pgqueuer WHERE entrypoint = $1", FOLLOW_JOB.name)

    requeued = await jobs_of(engine).requeue_lost()

    assert requeued == [submitted]
    assert await queue_items(sql) == {(SUBMIT_JOB, submitted), (FOLLOW_JOB, submitted)}


async def test_requeues_the_one_job_that_is_asked_for(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    first, second = [await accept_job(engine, customer) for _ in range(2)]
    finished = await job_in(engine, customer, JobStatus.FAILED)
    await sql.execute("DELETE FROM pgqueuer")
    jobs = jobs_of(engine)

    requeued = [await jobs.requeue_lost(job_id) for job_id in (second, finished, uuid4())]

    assert requeued == [[second], [], []]
    assert await queue_items(sql) == {(SUBMIT_JOB, second)}
    assert await jobs.requeue_lost() == [first]


async def test_queues_nothing_for_a_job_whose_status_only_a_newer_release_knows(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    newer = [await job_in(engine, customer, JobStatus.SUBMITTED), await accept_job(engine, customer)]
    ours = await accept_job(engine, customer)
    # As a newer release's migration would leave the schema.
    await sql.execute("ALTER TABLE jobs DROP CONSTRAINT jobs_status_known")
    await sql.execute("ALTER TABLE jobs DISABLE TRIGGER jobs_guard")
    await sql.execute("UPDATE jobs SET status = 'STORING' WHERE id = ANY($1)", newer)
    await sql.execute("DELETE FROM pgqueuer")

    requeued = await jobs_of(engine).requeue_lost()

    assert requeued == [ours]
    assert await queue_items(sql) == {(SUBMIT_JOB, ours)}


async def test_queues_a_lost_job_once_when_sweeps_meet(crowd: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(crowd, 100)
    job_ids = [await accept_job(crowd, customer) for _ in range(10)]
    await sql.execute("DELETE FROM pgqueuer")

    await asyncio.gather(*(jobs_of(crowd).requeue_lost() for _ in range(10)))

    assert await queue_items(sql) == {(SUBMIT_JOB, job_id) for job_id in job_ids}


async def test_the_database_allows_the_transitions_of_the_domain_and_no_others(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    ids = {status: await job_in(engine, customer, status) for status in JobStatus}

    allowed = {
        (start, end) for start, end in permutations(JobStatus, 2) if await can_become(sql, ids[start], start, end)
    }

    assert allowed == {(start, end) for start, ends in TRANSITIONS.items() for end in ends}


async def can_become(sql: Connection, job_id: UUID, start: JobStatus, end: JobStatus) -> bool:
    """Whether PostgreSQL takes the change with everything that belongs to the end, up to the checks at commit."""
    is_refunded = end in (JobStatus.FAILED, JobStatus.CANCELED)
    transaction = sql.transaction()
    await transaction.start()
    try:
        await sql.execute(
            "UPDATE jobs SET status = $2, refunded_tokens = $3, error_code = $4, result = $5 WHERE id = $1",
            job_id,
            end.value,
            COST_TOKENS if is_refunded else 0,
            "reason" if is_refunded else None,
            "{}" if end is JobStatus.COMPLETED else None,
        )
        if is_refunded and not start.is_final:
            await sql.execute(
                "INSERT INTO ledger_entries (account_id, kind, amount, job_id)"
                " SELECT account_id, 'REFUND', cost_tokens, id FROM jobs WHERE id = $1",
                job_id,
            )
        await sql.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except asyncpg.CheckViolationError:
        return False
    else:
        return True
    finally:
        await transaction.rollback()


async def test_the_database_and_the_domain_agree_on_what_is_final(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    for status in JobStatus:
        await job_in(engine, customer, status)

    rows = await sql.fetch("SELECT status, is_final FROM jobs")

    assert {JobStatus(row["status"]): row["is_final"] for row in rows} == {each: each.is_final for each in JobStatus}


async def test_a_cancel_brings_the_next_look_forward_and_never_back(engine: AsyncEngine, sql: Connection) -> None:
    customer, jobs = await open_account(engine, 100), jobs_of(engine)
    due_seconds = {}
    for after_seconds in (100.0, 1.0):
        job_id, attempt_token = await claimed_job(engine, customer)
        await jobs.record_submission(job_id, attempt_token, provider_request(), look_after_seconds=after_seconds)
        await jobs.request_cancel(customer.account_id, job_id)
        due_seconds[after_seconds] = float(
            await sql.fetchval(
                "SELECT extract(epoch FROM execute_after - now()) FROM pgqueuer WHERE dedupe_key = $1",
                f"{FOLLOW_JOB.name}:{job_id}",
            )
        )

    assert 1 < due_seconds[100.0] <= 3
    assert due_seconds[1.0] <= 1
