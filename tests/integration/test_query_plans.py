"""What the busy operations read of large tables, as PostgreSQL itself counts it: entries of indexes, never all rows.

The operations run as they are: no statement is copied here.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.keys import new_key
from app.application.ports.execution import AttemptEnd
from app.domain.budgets import Budget, Period
from app.domain.job_filters import JobFilter
from app.domain.jobs import JobStatus, Outcome, PublicStatus
from app.domain.keys import digest_of, stored_form
from app.domain.orders import IdempotencyKey
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.evidence import PostgresLostSubmissions
from app.infrastructure.postgres.jobs import reader
from app.infrastructure.postgres.jobs.stored_inputs import PostgresStoredInputs
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.keys.windows import Spent, renew_windows
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import (
    COST_TOKENS,
    LINE,
    RESULT,
    Connection,
    Customer,
    claimed_job,
    job_in,
    jobs_of,
    new_job,
    open_account,
    payment,
    provider_request,
    provider_wait,
    until,
)

ROWS = 5_000
COMPLETED = JobFilter(statuses=[PublicStatus.COMPLETED])
FILL = f"""
INSERT INTO accounts (id, external_user_id) SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, {ROWS});
INSERT INTO keys (id, account_id, name, scopes, is_first) SELECT id, id, 'First key', ARRAY['read'], true FROM accounts
 WHERE external_user_id <> $user$;
INSERT INTO api_keys (digest, account_id, hint, key_id) SELECT sha256(id::text::bytea), account_id, 'tgk_1234', id
  FROM keys WHERE name = 'First key' AND account_id = id;
INSERT INTO payment_events (source, event_id, account_id, amount) SELECT 'webhook', id::text, id, 1 FROM accounts;
INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds,
                  status, attempts, attempt_token, fal_request_id, result, created_at)
SELECT gen_random_uuid(), (SELECT id FROM accounts WHERE external_user_id = $user$), 'TEXT_TO_IMAGE', 'model', '{{}}',
       5, 1, 1200, 'COMPLETED', 1, gen_random_uuid(), gen_random_uuid()::text, '{{}}', now() - number * interval '1 s'
  FROM generate_series(1, {ROWS}) AS number;
INSERT INTO attempts (token, job_id, number, claimed_at, outcome, outcome_at, fal_request_id, orphaned_at, closed_at)
SELECT attempt_token, id, 1, now(), 'accepted', now(), fal_request_id, now(), now() FROM jobs;
INSERT INTO ledger_entries (account_id, seq, kind, amount, balance_after, job_id)
SELECT account_id, 10 + row_number() OVER (), 'DEBIT', 5, 0, id FROM jobs;
INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id)
SELECT account_id, id::text, sha256(id::text::bytea), id FROM jobs;
INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status)
SELECT 0, 'other', uuid_send(id), 'other:' || id, 'queued' FROM jobs;
"""


@pytest.fixture
async def customer(database: str, sql: Connection) -> Customer:
    """Owns all the jobs there are."""
    async with open_engine(database) as engine:
        customer = await open_account(engine, 1_000)
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute(FILL.replace("$user$", f"'{customer.external_user_id}'"))
    await sql.execute("ANALYZE")
    return customer


async def rows_read(sql: Connection, database: str, operation: Callable[[AsyncEngine], Awaitable[object]]) -> set[str]:
    """The tables that were read from one end to the other, in their own order or by an index."""
    before = await _rows_read(sql)
    async with open_engine(database) as engine:
        await operation(engine)
    # A session reports what it read when it ends.
    await until(lambda: _is_over(sql))
    return _read_whole(before, await _rows_read(sql))


async def _is_over(sql: Connection) -> bool:
    query = (
        "SELECT NOT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'tollgate')"
    )
    return bool(await sql.fetchval(query))


async def _rows_read(sql: Connection) -> Mapping[str, int]:
    """By table, one row after the other, and by index."""
    # Those of this session too: what it has read itself is none of the operation's.
    await sql.execute("SELECT pg_stat_force_next_flush()")
    query = """
        SELECT relname, seq_tup_read FROM pg_stat_user_tables
        UNION ALL SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes
    """
    return {row[0]: row[1] for row in await sql.fetch(query)}


def _read_whole(before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    return {name for name, count in after.items() if count - before[name] >= ROWS}


def _key() -> IdempotencyKey:
    return IdempotencyKey(str(uuid4()), bytes(32))


async def middle_job(sql: Connection, customer: Customer) -> UUID:
    job_id: UUID = await sql.fetchval(
        "SELECT id FROM jobs WHERE account_id = $1 ORDER BY created_at OFFSET $2 LIMIT 1",
        customer.account_id,
        ROWS // 2,
    )
    return job_id


async def test_a_request_reads_its_own_rows_however_large_the_tables_are(
    sql: Connection, database: str, customer: Customer
) -> None:
    job_id = await middle_job(sql, customer)
    user, account = customer.external_user_id, customer.account_id
    operations: Mapping[str, Callable[[AsyncEngine], Awaitable[object]]] = {
        "key": lambda on: PostgresKeys(on).find_by_key(digest_of(customer.api_key)),
        "first key": lambda on: PostgresKeys(on).add_first_key(uuid4(), stored_form(new_key())),
        "other key": lambda on: PostgresKeys(on).replace_key(user, stored_form(new_key()), None),
        "status": lambda on: jobs_of(on).get(account, job_id),
        "list": lambda on: jobs_of(on).page(account, limit=20),
        "list behind others": lambda on: jobs_of(on).page(account, limit=20, offset=ROWS // 2),
        "next page": lambda on: jobs_of(on).page(account, limit=20, after=job_id),
        "page of those that fit": lambda on: jobs_of(on).find(account, COMPLETED, limit=100),
        "next of those that fit": lambda on: jobs_of(on).find(account, COMPLETED, limit=100, after=job_id),
        "inputs": lambda on: PostgresStoredInputs(on).of_jobs(account, [job_id]),
        "ledger": lambda on: PostgresLedger(on).entries(user, limit=20),
        "next entries": lambda on: PostgresLedger(on).entries(user, limit=20, before_seq=ROWS // 2),
        "accept": lambda on: jobs_of(on).accept(new_job(customer)),
        "accept with a key": lambda on: jobs_of(on).accept(new_job(customer), _key()),
        "known key": lambda on: jobs_of(on).find_by_idempotency_key(account, _key()),
        "top-up": lambda on: PostgresPayments(on).credit(payment(user, 7)),
        "top-up of a new user": lambda on: PostgresPayments(on).credit(payment(uuid4(), 7)),
    }

    read = {name: await rows_read(sql, database, operation) for name, operation in operations.items()}

    assert read == {name: set() for name in operations}


async def test_a_filter_that_nothing_fits_looks_through_no_more_than_it_may(
    sql: Connection, database: str, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, wanted = customer.account_id, JobFilter(statuses=[PublicStatus.FAILED])

    def find(on: AsyncEngine) -> Awaitable[object]:
        return jobs_of(on).find(account, wanted, limit=100)

    assert "jobs_newest_first" in await rows_read(sql, database, find)
    monkeypatch.setattr(reader, "LOOKED_AT_MAX", ROWS // 2)
    assert await rows_read(sql, database, find) == set()


async def test_what_is_done_with_the_account_locked_reads_the_newest_entries_alone(
    sql: Connection, database: str, customer: Customer
) -> None:
    budget, before = Budget(100, Period.EVER), Spent(7, ROWS)
    key_id = await sql.fetchval("SELECT id FROM keys WHERE account_id = $1", customer.account_id)

    async def renew(on: AsyncEngine) -> None:
        async with on.begin() as connection:
            sums = {budget.window(datetime.now(UTC)): before}
            await renew_windows(connection, customer.account_id, key_id, budget, sums)

    assert await rows_read(sql, database, renew) == set()
    assert await sql.fetchval("SELECT spent_tokens FROM key_windows") == before.tokens


async def test_a_step_reads_its_own_rows_however_large_the_tables_are(
    sql: Connection, database: str, customer: Customer
) -> None:
    async with open_engine(database) as engine:
        queued = (await jobs_of(engine).accept(new_job(customer))).job.id
        canceled = (await jobs_of(engine).accept(new_job(customer))).job.id
        job_id, attempt_token = await claimed_job(engine, customer)
        posted_again, earlier = await claimed_job(engine, customer)
        assert await jobs_of(engine).release(posted_again, earlier, provider_wait("busy"))
        assert await jobs_of(engine).claim(posted_again, uuid4()) is not None
    request = provider_request()
    won = AttemptEnd(token=earlier, takes_over=request)
    operations: Mapping[str, Callable[[AsyncEngine], Awaitable[object]]] = {
        "claim": lambda on: jobs_of(on).claim(queued, uuid4()),
        "cancel": lambda on: jobs_of(on).request_cancel(customer.account_id, canceled, _key()),
        "record": lambda on: jobs_of(on).record_submission(job_id, attempt_token, provider_request()),
        "count the looks": lambda on: jobs_of(on).count_waiting_looks(),
        "load": lambda on: jobs_of(on).load(job_id),
        "load by attempt": lambda on: jobs_of(on).load_attempt(attempt_token),
        "load by earlier attempt": lambda on: jobs_of(on).load_attempt(earlier),
        "orphan": lambda on: jobs_of(on).record_orphan(earlier, request.id, is_over=False),
        "orphans": lambda on: jobs_of(on).load_orphans(posted_again),
        "end of an orphan": lambda on: jobs_of(on).update_orphan(earlier, is_over=True),
        "look now": lambda on: jobs_of(on).look_now(job_id),
        "rival": lambda on: PostgresLostSubmissions(on).has_rival(job_id, timedelta(minutes=1)),
        "known requests": lambda on: PostgresLostSubmissions(on).known([str(uuid4())]),
        "settle": lambda on: jobs_of(on).settle(job_id, Outcome.completed(RESULT, {LINE: COST_TOKENS - 1})),
        "settle and note": lambda on: jobs_of(on).settle(
            job_id, Outcome.completed(RESULT), AttemptEnd(token=attempt_token, billed_units=Decimal(1))
        ),
        "end by an earlier attempt": lambda on: jobs_of(on).settle(posted_again, Outcome.completed(RESULT), won),
        "forget keys": lambda on: jobs_of(on).forget_idempotency_keys(),
    }

    read = {name: await rows_read(sql, database, operation) for name, operation in operations.items()}

    assert read == {name: set() for name in operations}


async def test_notices_a_table_that_is_read_whole(sql: Connection, database: str, customer: Customer) -> None:
    async def count(on: AsyncEngine) -> None:
        async with on.connect() as connection:
            await connection.exec_driver_sql("SELECT count(cost_tokens) FROM jobs")

    assert await rows_read(sql, database, count)


FILL_UNFINISHED = f"""
INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds,
                  status, attempts, attempt_token, fal_request_id)
SELECT gen_random_uuid(), $account$, 'TEXT_TO_IMAGE', 'model', '{{}}', 5, 1, 1200, 'SUBMITTED', 1, gen_random_uuid(),
       gen_random_uuid()::text
  FROM generate_series(1, {ROWS});
INSERT INTO attempts (token, job_id, number, claimed_at, fal_request_id)
SELECT attempt_token, id, 1, now(), fal_request_id FROM jobs WHERE status = 'SUBMITTED' AND attempts = 1
    ON CONFLICT DO NOTHING;
INSERT INTO pgqueuer (priority, entrypoint, payload, dedupe_key, status, execute_after)
SELECT 0, 'generation.follow', uuid_send(id), 'generation.follow:' || id, 'queued', now() + interval '1 hour'
  FROM jobs WHERE status = 'SUBMITTED';
"""
STEPS_OF_A_JOB = (JobStatus.QUEUED, JobStatus.IN_PROGRESS, JobStatus.COMPLETED, JobStatus.FAILED)


async def test_steps_read_their_own_rows_also_by_plans_from_when_few_jobs_were_unfinished(
    sql: Connection, database: str, customer: Customer
) -> None:
    """A plan stays until statistics are gathered anew, however many jobs begin meanwhile."""
    async with open_engine(database) as engine:
        other = await open_account(engine, 1_000)
        await _take_all_steps(engine, other)
        async with sql.transaction():
            await sql.execute("SET LOCAL session_replication_role = replica")
            await sql.execute(FILL_UNFINISHED.replace("$account$", f"'{customer.account_id}'"))
        before = await _rows_read(sql)
        await _take_all_steps(engine, other)
    await until(lambda: _is_over(sql))

    assert _read_whole(before, await _rows_read(sql)) == set()


async def _take_all_steps(engine: AsyncEngine, customer: Customer) -> None:
    for status in STEPS_OF_A_JOB:
        await job_in(engine, customer, status)
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    await jobs_of(engine).request_cancel(customer.account_id, job_id)
    await jobs_of(engine).record_cancel_sent(job_id)
    await jobs_of(engine).record_overdue(job_id)
    await jobs_of(engine).look_now(job_id)
