"""The steps of many jobs at once: they share transactions, and nobody feels it."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import COPY_OUTPUTS, FOLLOW_JOB, SUBMIT_JOB
from app.application.ports.execution import JobState
from app.application.ports.provider import ProviderRequest
from app.domain.errors import JobFinished
from app.domain.jobs import JobStatus, Outcome
from app.infrastructure.postgres.database import driver_connection, open_engine
from app.infrastructure.postgres.jobs.settling import Settlement, settle_all
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.queue import enqueue
from tests.builders import (
    COST_TOKENS,
    LINE,
    OUTCOMES,
    RESULT,
    Connection,
    Customer,
    PostgresJobs,
    accept_job,
    balance_of,
    blocked,
    claimed_job,
    connect,
    job_in,
    jobs_of,
    new_job,
    open_account,
    payment,
    provider_request,
    queue_items,
)

JOBS = 12
ROUNDS = 6
ENDS = [OUTCOMES[status] for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED)]
PARTLY = Outcome.completed(RESULT, {LINE: 2})
BEYOND = Outcome.completed(RESULT, {LINE: COST_TOKENS + 1})


@pytest.fixture
async def customers(engine: AsyncEngine) -> Sequence[Customer]:
    return [await open_account(engine, 1000) for _ in range(4)]


async def claimed(engine: AsyncEngine, customers: Sequence[Customer], count: int = JOBS) -> list[tuple[UUID, UUID]]:
    return [await claimed_job(engine, customers[number % len(customers)]) for number in range(count)]


async def writers_of(sql: Connection) -> int:
    """How many transactions wrote the jobs last."""
    return int(await sql.fetchval("SELECT count(DISTINCT xmin::text) FROM jobs"))


async def test_claims_that_come_together_share_a_transaction(
    engine: AsyncEngine, sql: Connection, customers: Sequence[Customer]
) -> None:
    attempts = [(await accept_job(engine, customers[number % 4]), uuid4()) for number in range(JOBS)]
    jobs = jobs_of(engine)

    claims = await asyncio.gather(*(jobs.claim(*attempt) for attempt in attempts))

    rows = await sql.fetch("SELECT id, attempt_token, status, attempts FROM jobs")
    assert {tuple(row) for row in rows} == {(*attempt, "SUBMITTING", 1) for attempt in attempts}
    assert [claim is not None and claim.attempt for claim in claims] == [1] * JOBS
    assert await writers_of(sql) == 1


async def test_submissions_that_come_together_share_a_transaction(
    engine: AsyncEngine, sql: Connection, customers: Sequence[Customer]
) -> None:
    attempts = await claimed(engine, customers)
    requests = [provider_request() for _ in attempts]
    await sql.execute("DELETE FROM pgqueuer")
    jobs = jobs_of(engine)

    recorded = await asyncio.gather(
        *(
            jobs.record_submission(*attempt, request, look_after_seconds=60 * (number % 2))
            for number, (attempt, request) in enumerate(zip(attempts, requests, strict=True))
        )
    )
    states = await asyncio.gather(*(jobs.load(job_id) for job_id, _ in attempts))
    by_token = await asyncio.gather(*(jobs.load_attempt(token) for _, token in attempts))
    same_states: list[JobState | None] = [None if found is None else found.job for found in by_token]

    assert recorded == [True] * JOBS
    assert await writers_of(sql) == 1
    for seen in ([*states], same_states):
        assert [(state.id, state.attempt_token, state.request) for state in seen if state is not None] == [
            (*attempt, request) for attempt, request in zip(attempts, requests, strict=True)
        ]
    assert await queue_items(sql) == {(FOLLOW_JOB, job_id) for job_id, _ in attempts}
    due = {row["payload"] for row in await sql.fetch("SELECT payload FROM pgqueuer WHERE execute_after <= now()")}
    assert due == {job_id.bytes for job_id, _ in attempts[::2]}


async def test_ends_that_come_together_share_a_transaction(
    engine: AsyncEngine, sql: Connection, customers: Sequence[Customer]
) -> None:
    job_ids = [job_id for job_id, _ in await claimed(engine, customers)]
    outcomes = [(*ENDS, PARTLY)[number % 4] for number in range(JOBS)]
    jobs = jobs_of(engine)

    settled = await asyncio.gather(*map(jobs.settle, job_ids, outcomes))

    rows = await sql.fetch("SELECT id, status, refunded_tokens, result, error_code, error_message FROM jobs")
    found = {row["id"]: tuple(row)[1:] for row in rows}
    assert settled == [True] * JOBS
    assert await writers_of(sql) == 1
    for job_id, outcome in zip(job_ids, outcomes, strict=True):
        refunded = outcome.refunded_tokens if outcome.result else COST_TOKENS
        status, tokens, result, *error = found[job_id]
        assert (status, tokens, result is not None) == (outcome.status.value, refunded, outcome.result is not None)
        assert error == [outcome.error_code, outcome.error_message]
    refunds = [0, COST_TOKENS, COST_TOKENS, 2]
    balances = [await balance_of(engine, customer) for customer in customers]
    assert balances == [1000 - JOBS // 4 * (COST_TOKENS - refund) for refund in refunds]
    assert await PostgresLedger(engine).violations() == []


async def test_unknown_jobs_and_attempts_are_not_there_for_themselves_alone(
    engine: AsyncEngine, customers: Sequence[Customer]
) -> None:
    ((job_id, token),) = await claimed(engine, customers, 1)
    jobs = jobs_of(engine)

    states = await asyncio.gather(*map(jobs.load, (uuid4(), job_id, job_id)))
    found_by_token = await asyncio.gather(*map(jobs.load_attempt, (uuid4(), token, token)))
    by_token = [None if found is None else found.job for found in found_by_token]
    settled = await asyncio.gather(*(jobs.settle(each, Outcome.canceled()) for each in (uuid4(), job_id)))

    for found in (states, by_token):
        assert [state and state.id for state in found] == [None, job_id, job_id]
    assert settled == [False, True]


async def test_one_of_two_claims_of_a_job_gets_it_and_its_holder_gets_it_again(
    engine: AsyncEngine, sql: Connection, customers: Sequence[Customer]
) -> None:
    waiting = await accept_job(engine, customers[0])
    ((held, holder),) = await claimed(engine, customers, 1)
    jobs, rivals = jobs_of(engine), [uuid4(), uuid4()]

    claims = await asyncio.gather(
        *(jobs.claim(waiting, token) for token in rivals), *(jobs.claim(held, token) for token in (uuid4(), holder))
    )

    (winner,) = [token for token, claim in zip(rivals, claims, strict=False) if claim is not None]
    assert await sql.fetchval("SELECT attempt_token FROM jobs WHERE id = $1", waiting) == winner
    assert [claim is not None and claim.attempt for claim in claims[2:]] == [False, 1]


async def test_of_two_records_of_an_attempt_one_is_told_that_it_was_done(
    engine: AsyncEngine, customers: Sequence[Customer]
) -> None:
    (own, *_, other) = await claimed(engine, customers, 3)
    jobs, request, second = jobs_of(engine), provider_request(), provider_request()

    recorded = await asyncio.gather(
        jobs.record_submission(own[0], uuid4(), provider_request()),
        jobs.record_submission(*own, request),
        jobs.record_submission(*own, request),
        jobs.record_submission(*own, second),
        jobs.record_submission(*other, provider_request()),
    )

    state = await jobs.load(own[0])
    assert list(recorded) == [False, True, False, False, True]
    assert state is not None
    assert state.request == request


@pytest.mark.parametrize("outcomes", [(*ENDS, PARTLY), (PARTLY, *reversed(ENDS))])
async def test_of_many_ends_of_a_job_the_first_one_counts(
    engine: AsyncEngine, customers: Sequence[Customer], outcomes: Sequence[Outcome]
) -> None:
    first, second = [await job_in(engine, customers[0], JobStatus.IN_PROGRESS) for _ in range(2)]
    jobs = jobs_of(engine)

    settled = await asyncio.gather(
        *(jobs.settle(first, outcome) for outcome in outcomes), jobs.settle(second, Outcome.canceled())
    )

    assert settled == [True, False, False, False, True]
    job = await jobs.get(customers[0].account_id, first)
    assert (job.status, job.refunded_tokens) == (outcomes[0].status, outcomes[0].refunded_tokens)
    assert await PostgresLedger(engine).violations() == []


async def test_an_end_that_the_database_refuses_is_its_own_alone(
    engine: AsyncEngine, customers: Sequence[Customer]
) -> None:
    job_ids = [await job_in(engine, customer, JobStatus.IN_PROGRESS) for customer in customers]
    jobs = jobs_of(engine)

    answers = await asyncio.gather(
        *map(jobs.settle, job_ids, (ENDS[0], BEYOND, ENDS[1], ENDS[2])), return_exceptions=True
    )

    assert [answers[0], *answers[2:]] == [True] * 3
    assert isinstance(answers[1], asyncpg.CheckViolationError)
    assert [await balance_of(engine, customer) for customer in customers] == [995, 995, 1000, 1000]
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize("is_known_before", [True, False])
async def test_a_request_that_two_jobs_name_is_one_jobs_and_holds_up_nobody(
    engine: AsyncEngine, sql: Connection, customers: Sequence[Customer], *, is_known_before: bool
) -> None:
    attempts = await claimed(engine, customers, 4)
    jobs, shared = jobs_of(engine), provider_request()
    requests: list[ProviderRequest] = [shared, provider_request(), shared, provider_request()]
    await sql.execute("DELETE FROM pgqueuer")
    early = 1 if is_known_before else 0
    if is_known_before:
        assert await jobs.record_submission(*attempts[0], shared)

    recorded = await asyncio.gather(
        *(
            jobs.record_submission(*attempt, request)
            for attempt, request in list(zip(attempts, requests, strict=True))[early:]
        )
    )

    recorded = [True] * early + recorded
    assert [recorded[1], recorded[3], recorded[0] + recorded[2]] == [True, True, 1]
    (loser,) = [job_id for (job_id, _), done in zip(attempts, recorded, strict=True) if not done]
    assert await sql.fetchval("SELECT status FROM jobs WHERE id = $1", loser) == "SUBMITTING"
    assert await queue_items(sql) == {(FOLLOW_JOB, job_id) for job_id, _ in attempts if job_id != loser}


@pytest.mark.alone
async def test_an_end_takes_the_look_along_that_waits_for_it(
    engine: AsyncEngine, database: str, sql: Connection, customers: Sequence[Customer]
) -> None:
    waiting, picked, unknown, locked, other = attempts = await claimed(engine, customers, 5)
    jobs = jobs_of(engine)
    for attempt in attempts:
        if attempt == unknown:
            # fal may have it all the same, which a later look searches for.
            await jobs.record_submit_unknown(*attempt, "no answer")
        else:
            await jobs.record_submission(*attempt, provider_request(), look_after_seconds=60)
    await sql.execute("DELETE FROM pgqueuer WHERE entrypoint = $1", SUBMIT_JOB.name)
    await sql.execute("UPDATE pgqueuer SET status = 'picked' WHERE payload = $1", picked[0].bytes)

    async with connect(database) as holder, holder.transaction():
        await holder.execute("SELECT FROM pgqueuer WHERE payload = $1 FOR UPDATE", locked[0].bytes)
        async with asyncio.timeout(4):
            ended = await asyncio.gather(
                *(jobs.settle(job_id, ENDS[number % 3]) for number, (job_id, _) in enumerate(attempts[:-1]))
            )

    assert ended == [True] * 4
    kept = {(FOLLOW_JOB, job_id) for job_id, _ in (picked, unknown, locked, other)}
    kept |= {(COPY_OUTPUTS, job_id) for job_id, _ in (waiting, locked)}
    assert await queue_items(sql) == kept
    # The step of a picked one changes nothing, and neither does an end that comes late.
    assert not await jobs.settle(waiting[0], ENDS[1])
    assert await queue_items(sql) == kept


async def is_free(sql: Connection, table: str, row_id: UUID) -> bool:
    try:
        await sql.execute(f"SELECT FROM {table} WHERE id = $1 FOR NO KEY UPDATE NOWAIT", row_id)
    except asyncpg.LockNotAvailableError:
        return False
    return True


@pytest.mark.parametrize("table", ["jobs", "accounts"])
@pytest.mark.parametrize("is_backwards", [True, False])
async def test_locks_are_taken_in_the_order_of_the_ids(
    engine: AsyncEngine,
    database: str,
    sql: Connection,
    customers: Sequence[Customer],
    *,
    table: str,
    is_backwards: bool,
) -> None:
    """Whoever waits for the lowest holds none of the higher ones."""
    accounts = sorted(customers, key=lambda customer: customer.account_id)
    asked = [new_job(account) for account in reversed(accounts)]
    # On disk they lie the other way round, so that a statement that reads them there is found out.
    for job in reversed(asked):
        await jobs_of(engine).accept(job)
    ours = sorted(job.id for job in asked)
    lowest, *higher = ours if table == "jobs" else [account.account_id for account in accounts]
    in_turn = ours[::-1] if is_backwards else ours
    jobs = jobs_of(engine)

    async with sql.transaction():
        await sql.execute(f"SELECT FROM {table} WHERE id = $1 FOR NO KEY UPDATE", lowest)
        settling = asyncio.gather(*(jobs.settle(job_id, Outcome.canceled()) for job_id in in_turn))
        async with connect(database) as other:
            await blocked(other)
            free = [await is_free(other, table, each) for each in higher]

    assert free == [True] * 3
    assert await settling == [True] * 4


async def test_accepts_lock_accounts_in_the_order_of_the_ids(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    customers = []
    # On disk they lie the other way round, so that a statement that reads them there is found out.
    for account_id in sorted((uuid4() for _ in range(4)), reverse=True):
        customer = Customer(account_id, uuid4(), "")
        await sql.execute(
            "INSERT INTO accounts (id, external_user_id) VALUES ($1, $2)", account_id, customer.external_user_id
        )
        await PostgresPayments(engine).credit(payment(customer.external_user_id, COST_TOKENS))
        customers.append(customer)
    lowest, *higher = sorted(customer.account_id for customer in customers)
    jobs = jobs_of(engine)

    async with sql.transaction():
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", lowest)
        accepting = asyncio.gather(*(jobs.accept(new_job(customer)) for customer in customers))
        async with connect(database) as other:
            await blocked(other)
            free = [await is_free(other, "accounts", each) for each in higher]
    await accepting

    assert free == [True] * 3


async def test_items_are_queued_in_the_order_of_the_jobs(engine: AsyncEngine, sql: Connection) -> None:
    """Whoever waits for the lowest has queued none of the higher ones, in whatever order they were named."""
    lowest, *higher = job_ids = sorted(uuid4() for _ in range(4))

    async def queue(*ids: UUID) -> None:
        async with engine.begin() as connection:
            await enqueue(connection, FOLLOW_JOB, ids)

    async with engine.begin() as first:
        await enqueue(first, FOLLOW_JOB, [lowest])
        queueing = asyncio.create_task(queue(*job_ids[::-1]))
        await blocked(sql)
        async with asyncio.timeout(20):
            await queue(*higher)
    await queueing

    assert await queue_items(sql) == {(FOLLOW_JOB, job_id) for job_id in job_ids}


async def test_many_ends_and_cancels_that_meet_refund_once_and_never_wait_in_a_circle(
    database: str, engine: AsyncEngine, sql: Connection, customers: Sequence[Customer]
) -> None:
    # As in a large table: found by the index, each in the order in which the batch names it.
    for plan in ("seqscan", "bitmapscan", "hashjoin", "mergejoin"):
        await sql.execute(f"ALTER ROLE CURRENT_USER IN DATABASE {await current(sql)} SET enable_{plan} = off")
    wins = []
    async with open_engine(database) as one, open_engine(database) as other:
        here, there = jobs_of(one), jobs_of(other)
        for _ in range(ROUNDS):
            job_ids = [await accept_job(engine, customers[number % 4]) for number in range(JOBS)]
            cancels = [(customers[number % 4].account_id, job_id) for number, job_id in enumerate(job_ids)]
            attempts = await asyncio.gather(
                *(here.settle(job_id, ENDS[1]) for job_id in job_ids),
                *(there.settle(job_id, ENDS[2]) for job_id in reversed(job_ids)),
                *(cancel(here, *each) for each in reversed(cancels)),
                *(cancel(there, *each) for each in cancels),
            )
            wins.append(sum(attempts))

    assert wins == [JOBS] * ROUNDS
    assert [await balance_of(engine, customer) for customer in customers] == [1000] * 4
    assert await PostgresLedger(engine).violations() == []
    assert await sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'REFUND'") == JOBS * ROUNDS
    # The server adds a connection's when that is closed, and the batcher closes one that failed.
    await engine.dispose()
    assert await sql.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


async def current(sql: Connection) -> str:
    return str(await sql.fetchval("SELECT quote_ident(current_database())"))


async def cancel(jobs: PostgresJobs, account_id: UUID, job_id: UUID) -> bool:
    try:
        await jobs.request_cancel(account_id, job_id)
    except JobFinished:
        return False
    return True


async def test_a_repeat_waits_for_its_own_first_try_and_tells_what_became_of_it(
    database: str, engine: AsyncEngine, sql: Connection, customers: Sequence[Customer]
) -> None:
    job_ids = [await job_in(engine, customer, JobStatus.IN_PROGRESS) for customer in customers]
    endings = [Settlement.of(job_id, Outcome.canceled()) for job_id in job_ids]

    async def repeat() -> Any:
        async with driver_connection(engine) as driver:
            return await settle_all(driver, endings, is_repeated=True)

    async with sql.transaction():
        for job_id in job_ids[:2]:
            await sql.execute(
                "WITH job AS (UPDATE jobs SET status = 'CANCELED', error_code = 'canceled', refunded_tokens = 5"
                " WHERE id = $1 RETURNING *) INSERT INTO ledger_entries (account_id, kind, amount, job_id)"
                " SELECT account_id, 'REFUND', refunded_tokens, id FROM job",
                job_id,
            )
        repeating = asyncio.create_task(repeat())
        async with connect(database) as other:
            await blocked(other)

    assert await repeating == [True] * 4
    assert [await balance_of(engine, customer) for customer in customers] == [1000] * 4


async def test_who_waits_for_a_lock_holds_up_nobody_who_came_along(
    engine: AsyncEngine, database: str, customers: Sequence[Customer]
) -> None:
    held, *others = [job_id for job_id, _ in await claimed(engine, customers, 4)]
    jobs = jobs_of(engine)
    async with connect(database) as blocker, blocker.transaction():
        await blocker.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", held)
        waiting = asyncio.create_task(jobs.settle(held, Outcome.canceled()))
        settled = await asyncio.gather(*(jobs.settle(job_id, Outcome.canceled()) for job_id in others))
        is_held_up = not waiting.done()

    assert settled == [True] * 3
    assert is_held_up
    assert await waiting
