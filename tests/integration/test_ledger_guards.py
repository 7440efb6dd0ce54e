"""What no statement can do to the money, whoever sends it: PostgreSQL itself refuses."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.jobs import JobStatus
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import Connection, connect, contents, database_copy, job_in, open_account, payment, run_with_engine


@dataclass(frozen=True, slots=True)
class Refusal:
    """What PostgreSQL answers: the constraint it names, or the words of a trigger or of its own."""

    error: type[asyncpg.PostgresError]
    words: str


def constraint(name: str, error: type[asyncpg.PostgresError] = asyncpg.CheckViolationError) -> Refusal:
    return Refusal(error, name)


def unique(name: str) -> Refusal:
    return Refusal(asyncpg.UniqueViolationError, name)


def foreign(name: str) -> Refusal:
    return Refusal(asyncpg.ForeignKeyViolationError, name)


def restricted(name: str) -> Refusal:
    return Refusal(asyncpg.RestrictViolationError, name)


def guarded(words: str) -> Refusal:
    return Refusal(asyncpg.CheckViolationError, words)


def forbidden(operation: str, table: str) -> Refusal:
    return Refusal(asyncpg.InsufficientPrivilegeError, f"{operation} on {table} is not allowed")


OUT_OF_RANGE = Refusal(asyncpg.NumericValueOutOfRangeError, "bigint out of range")
FINAL = guarded("a final job never changes")
IDENTITY = guarded("what a job is and costs never changes")
NO_REFUND = guarded("has no refund")
REQUEST_ID = guarded("the provider request id is written once")


def event(amount: str, name: str = "new") -> str:
    return (
        "INSERT INTO payment_events (source, event_id, account_id, amount)"
        f" VALUES ('webhook', '{name}', {{account}}, {amount});"
    )


def credit(amount: str, name: str = "new", account: str = "{account}") -> str:
    return (
        "INSERT INTO ledger_entries (account_id, kind, amount, payment_source, payment_event_id)"
        f" VALUES ({account}, 'CREDIT', {amount}, 'webhook', '{name}');"
    )


def entry(kind: str, amount: str, job: str, account: str = "{account}") -> str:
    return (
        f"INSERT INTO ledger_entries (account_id, kind, amount, job_id) VALUES ({account}, '{kind}', {amount}, {job});"
    )


def job(cost: str = "5", job_id: str = "{new}") -> str:
    return (
        "INSERT INTO jobs"
        " (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)"
        f" VALUES ({job_id}, {{account}}, 'TEXT_TO_IMAGE', 'model', '{{{{}}}}', {cost}, 1, 60);"
    )


def change(assignments: str, job_id: str = "{live}") -> str:
    return f"UPDATE jobs SET {assignments} WHERE id = {job_id};"


def taken(kind: str, amount: str) -> str:
    return (
        "INSERT INTO ledger_entries (account_id, kind, amount, reversed_source, payment_event_id)"
        f" VALUES ({{account}}, '{kind}', {amount}, 'webhook', 'paid');"
    )


def reversal(amount: str, withdraws: str = "NULL", name: str = "new") -> str:
    return (
        "INSERT INTO reversal_events (source, event_id, payment_event_id, amount, withdraws)"
        f" VALUES ('webhook', '{name}', 'paid', {amount}, {withdraws});"
    )


def adjustment(amount: str, reason: str = "why", actor: str = "who", name: str = "new") -> str:
    return (
        "INSERT INTO adjustments (id, account_id, amount, reason, actor)"
        f" VALUES ('{name}', {{account}}, {amount}, '{reason}', '{actor}');"
    )


FAIL = "status = 'FAILED', error_code = 'refused', refunded_tokens = 5"
CANCEL = "status = 'CANCELED', error_code = 'canceled', refunded_tokens = 5"

ATTACKS: dict[str, tuple[str, Refusal]] = {
    # Payment events and their credits.
    "an event twice": (event("100", "paid"), unique("payment_events_pkey")),
    "an event again for another account": (
        event("100", "paid").replace("{account}", "{other}"),
        unique("payment_events_pkey"),
    ),
    "an event again with another amount": (event("99", "paid"), unique("payment_events_pkey")),
    "a second credit of an event": (credit("100", "paid"), unique("ledger_entries_one_credit_per_event")),
    "a credit of an event to another account": (
        event("7") + credit("7", account="{other}"),
        foreign("ledger_entries_credit_is_the_event"),
    ),
    "a credit above its event": (event("7") + credit("8"), foreign("ledger_entries_credit_is_the_event")),
    "a credit below its event": (event("7") + credit("6"), foreign("ledger_entries_credit_is_the_event")),
    "a credit of an event that never came": (credit("7"), foreign("ledger_entries_credit_is_the_event")),
    "a credit of no event": (
        "INSERT INTO ledger_entries (account_id, kind, amount) VALUES ({account}, 'CREDIT', 7)",
        constraint("ledger_entries_belong_somewhere"),
    ),
    "a credit of a job": (entry("CREDIT", "5", "{live}"), constraint("ledger_entries_belong_somewhere")),
    "an event without its credit": (event("7"), guarded("event webhook/new has no credit")),
    "an event of nothing": (event("0") + credit("0"), constraint("payment_events_amount_positive")),
    "an event that takes": (event("-1") + credit("-1"), constraint("payment_events_amount_positive")),
    "an event above 64 bits": (event("9223372036854775808"), OUT_OF_RANGE),
    "an event of all 64 bits": (
        event("9223372036854775807") + credit("9223372036854775807"),
        OUT_OF_RANGE,
    ),
    "an event above the largest balance": (
        event("9007199254740991") + credit("9007199254740991"),
        constraint("accounts_balance_limit"),
    ),
    "an event without a name": (event("7", "") + credit("7", ""), constraint("payment_events_event_id_length")),
    "an event changed": (
        "UPDATE payment_events SET amount = 200 WHERE event_id = 'paid'",
        forbidden("UPDATE", "payment_events"),
    ),
    "an event deleted": (
        "DELETE FROM payment_events WHERE event_id = 'paid'",
        forbidden("DELETE", "payment_events"),
    ),
    "a balance that moved for an entry that was dropped": (
        credit("100", "paid").removesuffix(";") + " ON CONFLICT DO NOTHING;",
        guarded("has no entry"),
    ),
    # What is taken back.
    "a reversal without its event": (taken("REVERSAL", "5"), forbidden("INSERT", "ledger_entries")),
    "a reinstatement without its event": (taken("REINSTATEMENT", "5"), forbidden("INSERT", "ledger_entries")),
    "an adjustment entry without an adjustment": (
        (
            "INSERT INTO ledger_entries (account_id, kind, amount, adjustment_id)"
            " VALUES ({account}, 'ADJUSTMENT', 5, 'new')"
        ),
        forbidden("INSERT", "ledger_entries"),
    ),
    "a credit that names a reversal": (
        event("7")
        + credit("7")
        .replace("payment_source,", "reversed_source, payment_source,")
        .replace(" 'webhook',", " 'webhook', 'webhook',"),
        constraint("ledger_entries_belong_somewhere"),
    ),
    "a reversal of nothing": (reversal("0"), constraint("reversal_events_amount_positive")),
    "a reversal that gives": (reversal("-5"), constraint("reversal_events_amount_positive")),
    "a reversal of neither sort": (reversal("NULL"), constraint("reversal_events_reverse_or_withdraw")),
    "a reversal of both sorts": (reversal("5", "'other'"), constraint("reversal_events_reverse_or_withdraw")),
    "a reversal without a name": (reversal("5", name=""), constraint("reversal_events_ids_length")),
    "a reversal twice": (reversal("5") * 2, unique("reversal_events_pkey")),
    "a reversal again with another amount": (reversal("5") + reversal("6"), unique("reversal_events_pkey")),
    "a reversal under the former name of a source": (
        reversal("5").replace("'webhook'", "'idempotency-key'"),
        constraint("reversal_events_source_current"),
    ),
    "a reversal that is changed": (
        reversal("5") + "UPDATE reversal_events SET amount = 1",
        forbidden("UPDATE", "reversal_events"),
    ),
    "a reversal that is deleted": (
        reversal("5") + "DELETE FROM reversal_events",
        forbidden("DELETE", "reversal_events"),
    ),
    "the reversals emptied": ("TRUNCATE reversal_events", forbidden("TRUNCATE", "reversal_events")),
    "an adjustment of nothing": (adjustment("0"), constraint("adjustments_amount_not_zero")),
    "an adjustment without a reason": (adjustment("5", reason=""), constraint("adjustments_texts_length")),
    "an adjustment of nobody": (adjustment("5", actor=""), constraint("adjustments_texts_length")),
    "an adjustment twice": (adjustment("5") * 2, unique("adjustments_pkey")),
    "an adjustment of no account": (
        adjustment("5").replace("{account}", "{new}"),
        foreign("adjustments_account_id_fkey"),
    ),
    "an adjustment beyond the largest balance": (
        adjustment("9007199254740991"),
        constraint("accounts_balance_limit"),
    ),
    "an adjustment beyond the smallest balance": (
        adjustment("-9007199254740991") + adjustment("-9007199254740991", name="other"),
        constraint("accounts_balance_limit"),
    ),
    "a debit of a balance below zero": (
        adjustment("-200") + job() + entry("DEBIT", "5", "{new}"),
        constraint("ledger_entries_debit_is_covered"),
    ),
    "an adjustment that is changed": (
        adjustment("5") + "UPDATE adjustments SET reason = 'other'",
        forbidden("UPDATE", "adjustments"),
    ),
    "an adjustment that is deleted": (
        adjustment("5") + "DELETE FROM adjustments",
        forbidden("DELETE", "adjustments"),
    ),
    "the adjustments emptied": ("TRUNCATE adjustments", forbidden("TRUNCATE", "adjustments")),
    # Jobs and their debits.
    "a job born failed": (
        job()
        .replace("cost_tokens,", "cost_tokens, status, error_code, refunded_tokens,")
        .replace(" 5, 1, 60)", " 5, 'FAILED', 'refused', 5, 1, 60)")
        + entry("DEBIT", "5", "{new}"),
        forbidden("INSERT", "jobs"),
    ),
    "a job born completed": (
        job()
        .replace("cost_tokens,", "cost_tokens, status, result,")
        .replace(" 5, 1, 60)", " 5, 'COMPLETED', '1', 1, 60)")
        + entry("DEBIT", "5", "{new}"),
        forbidden("INSERT", "jobs"),
    ),
    "an account given to another user": (
        "UPDATE accounts SET external_user_id = gen_random_uuid() WHERE id = {account}",
        forbidden("UPDATE", "accounts"),
    ),
    "a job of another model": (change("model_id = 'other'"), IDENTITY),
    "a job without its debit": (job(), guarded("has no debit")),
    "a job for nothing": (job("0"), constraint("jobs_cost_positive")),
    "a job that pays": (job("-5"), constraint("jobs_cost_positive")),
    "a debit below the price": (
        job() + entry("DEBIT", "4", "{new}"),
        foreign("ledger_entries_debit_is_the_cost"),
    ),
    "a debit above the price": (
        job() + entry("DEBIT", "6", "{new}"),
        foreign("ledger_entries_debit_is_the_cost"),
    ),
    "a debit of nothing": (
        job() + entry("DEBIT", "0", "{new}"),
        constraint("ledger_entries_amount_positive"),
    ),
    "a debit that gives": (
        job() + entry("DEBIT", "-5", "{new}"),
        constraint("ledger_entries_amount_positive"),
    ),
    "a debit above 64 bits": (job() + entry("DEBIT", "9223372036854775808", "{new}"), OUT_OF_RANGE),
    "a debit of another account": (
        job() + entry("DEBIT", "5", "{new}", account="{other}"),
        foreign("ledger_entries_debit_is_the_cost"),
    ),
    "a debit of no account": (
        job() + entry("DEBIT", "5", "{new}", account="{new}"),
        Refusal(asyncpg.ForeignKeyViolationError, "does not exist"),
    ),
    "a debit of no job": (entry("DEBIT", "5", "{new}"), foreign("ledger_entries_debit_is_the_cost")),
    "a second debit": (entry("DEBIT", "5", "{live}"), unique("ledger_entries_one_of_a_kind_per_job")),
    "an overdraft": (
        job("1000") + entry("DEBIT", "1000", "{new}"),
        constraint("ledger_entries_debit_is_covered"),
    ),
    "an entry of an unknown kind": (
        "INSERT INTO ledger_entries (account_id, kind, amount) VALUES ({account}, 'GRANT', 5)",
        constraint("ledger_entries_kind_known"),
    ),
    # Refunds.
    "a refund of a live job": (
        entry("REFUND", "5", "{live}"),
        foreign("ledger_entries_refund_is_the_jobs"),
    ),
    "a live job that says it was refunded": (
        change("refunded_tokens = 5") + entry("REFUND", "5", "{live}"),
        constraint("jobs_refund_fits_status"),
    ),
    "a refund of a completed job": (
        entry("REFUND", "5", "{completed}"),
        foreign("ledger_entries_refund_is_the_jobs"),
    ),
    "a completed job that says it was refunded": (
        change("refunded_tokens = 4", "{completed}") + entry("REFUND", "4", "{completed}"),
        FINAL,
    ),
    "a result and all the tokens": (
        change("status = 'COMPLETED', result = '{{}}', refunded_tokens = 5", "{submitted}")
        + entry("REFUND", "5", "{submitted}"),
        constraint("jobs_refund_fits_status"),
    ),
    "a refund below the price": (
        change(FAIL) + entry("REFUND", "4", "{live}"),
        foreign("ledger_entries_refund_is_the_jobs"),
    ),
    "a refund above the price": (
        change(FAIL) + entry("REFUND", "6", "{live}"),
        foreign("ledger_entries_refund_is_the_jobs"),
    ),
    "a refund to another account": (
        change(FAIL) + entry("REFUND", "5", "{live}", account="{other}"),
        foreign("ledger_entries_refund_is_the_jobs"),
    ),
    "a second refund of a failed job": (
        entry("REFUND", "5", "{failed}"),
        unique("ledger_entries_one_of_a_kind_per_job"),
    ),
    "a second refund of a canceled job": (
        entry("REFUND", "5", "{canceled}"),
        unique("ledger_entries_one_of_a_kind_per_job"),
    ),
    "a failure without its refund": (change(FAIL), NO_REFUND),
    "a cancel without its refund": (change(CANCEL), NO_REFUND),
    "a partial refund that is only said": (
        change("status = 'COMPLETED', result = '{{}}', refunded_tokens = 4", "{submitted}"),
        NO_REFUND,
    ),
    "a failure that keeps the tokens": (
        change("status = 'FAILED', error_code = 'refused'"),
        constraint("jobs_refund_fits_status"),
    ),
    "a cancel that keeps the tokens": (
        change("status = 'CANCELED', error_code = 'canceled'"),
        constraint("jobs_refund_fits_status"),
    ),
    # What a job is, and its end.
    "completed without a result": (
        change("status = 'COMPLETED'", "{submitted}"),
        constraint("jobs_result_only_if_completed"),
    ),
    "a result before the end": (change("result = '{{}}'"), constraint("jobs_result_only_if_completed")),
    "a failure without a reason": (
        change("status = 'FAILED', refunded_tokens = 5") + entry("REFUND", "5", "{live}"),
        constraint("jobs_error_only_if_failed"),
    ),
    "a completed job that runs again": (change("status = 'IN_PROGRESS', result = NULL", "{completed}"), FINAL),
    "a failed job that runs again": (
        change("status = 'QUEUED', refunded_tokens = 0, error_code = NULL", "{failed}"),
        FINAL,
    ),
    "a canceled job that completes": (
        change("status = 'COMPLETED', result = '{{}}', refunded_tokens = 0, error_code = NULL", "{canceled}"),
        FINAL,
    ),
    "a failed job that says canceled": (change("status = 'CANCELED'", "{failed}"), FINAL),
    "a delivered result that changes": (change("""result = '{{"images": []}}'""", "{completed}"), FINAL),
    "a delivered result that goes": (change("result = NULL", "{completed}"), FINAL),
    "a reason that changes afterwards": (change("error_code = 'other'", "{failed}"), FINAL),
    "an explanation that changes afterwards": (change("error_message = 'other'", "{failed}"), FINAL),
    "a price that falls": (change("cost_tokens = 1"), IDENTITY),
    "a price that rises": (change("cost_tokens = 6"), IDENTITY),
    "a job that moves to another account": (change("account_id = {other}"), IDENTITY),
    "a job of another kind": (change("kind = 'TEXT_TO_VIDEO'"), IDENTITY),
    "a job with another id": (change("id = {new}"), IDENTITY),
    "a job that is older": (change("created_at = created_at - interval '1 day'"), IDENTITY),
    "an unknown status": (change("status = 'DONE'", "{claimed}"), constraint("jobs_status_known")),
    "a job without a time limit": (job().replace("60", "0"), constraint("jobs_time_limit_positive")),
    "a request id that is rewritten": (change("fal_request_id = 'other'", "{submitted}"), REQUEST_ID),
    "a request id that is taken away": (change("fal_request_id = NULL", "{submitted}"), REQUEST_ID),
    "one request for two jobs": (
        change("fal_request_id = (SELECT fal_request_id FROM jobs WHERE id = {submitted})"),
        unique("jobs_fal_request_id_key"),
    ),
    "one attempt for two jobs": (
        change("attempt_token = (SELECT attempt_token FROM jobs WHERE id = {submitted})"),
        unique("jobs_attempt_token_key"),
    ),
    # The past.
    "an entry changed": ("UPDATE ledger_entries SET amount = 1", forbidden("UPDATE", "ledger_entries")),
    "an entry touched": ("UPDATE ledger_entries SET created_at = now()", forbidden("UPDATE", "ledger_entries")),
    "an entry changed by an upsert": (
        (
            "INSERT INTO ledger_entries (id, account_id, kind, amount, job_id) OVERRIDING SYSTEM VALUE"
            " SELECT id, account_id, kind, amount, job_id FROM ledger_entries WHERE kind = 'REFUND'"
            " ON CONFLICT (id) DO UPDATE SET amount = 1"
        ),
        forbidden("UPDATE", "ledger_entries"),
    ),
    "an entry deleted": ("DELETE FROM ledger_entries", forbidden("DELETE", "ledger_entries")),
    "the entries emptied": ("TRUNCATE ledger_entries", forbidden("TRUNCATE", "ledger_entries")),
    "the entries emptied through the events": (
        "TRUNCATE payment_events CASCADE",
        forbidden("TRUNCATE", "ledger_entries"),
    ),
    "the entries emptied through the jobs": ("TRUNCATE jobs CASCADE", forbidden("TRUNCATE", "ledger_entries")),
    "the entries emptied through the accounts": (
        "TRUNCATE accounts CASCADE",
        forbidden("TRUNCATE", "ledger_entries"),
    ),
    "an entry with a number of its own": (
        "INSERT INTO ledger_entries (id, account_id, kind, amount, job_id) VALUES (1, {account}, 'DEBIT', 5, {live})",
        Refusal(asyncpg.GeneratedAlwaysError, "cannot insert a non-DEFAULT value"),
    ),
    # Accounts.
    "a balance written": (
        "UPDATE accounts SET balance_tokens = 1000000 WHERE id = {account}",
        forbidden("UPDATE", "accounts"),
    ),
    "a balance written to what it is": (
        "UPDATE accounts SET balance_tokens = balance_tokens",
        forbidden("UPDATE", "accounts"),
    ),
    "a count of entries written": ("UPDATE accounts SET entry_count = 0", forbidden("UPDATE", "accounts")),
    "an account born with a balance": (
        "INSERT INTO accounts (id, external_user_id, balance_tokens) VALUES ({new}, {new}, 5)",
        forbidden("INSERT", "accounts"),
    ),
    "an account born with entries": (
        "INSERT INTO accounts (id, external_user_id, entry_count) VALUES ({new}, {new}, 1)",
        forbidden("INSERT", "accounts"),
    ),
    "two accounts of one user": (
        "INSERT INTO accounts (id, external_user_id) SELECT {new}, external_user_id FROM accounts WHERE id = {account}",
        unique("accounts_external_user_id_key"),
    ),
    "an account deleted": (
        "DELETE FROM api_keys; DELETE FROM accounts WHERE id = {account}",
        restricted("payment_events_account_id_fkey"),
    ),
    "a live job deleted": ("DELETE FROM jobs WHERE id = {live}", forbidden("DELETE", "jobs")),
    "a finished job deleted": ("DELETE FROM jobs WHERE id = {failed}", forbidden("DELETE", "jobs")),
}


@dataclass(frozen=True, slots=True)
class Target:
    dsn: str
    rows: Mapping[str, str]


@pytest.fixture(scope="module")
def target(postgres_dsn: str, template_database: str) -> Iterator[Target]:
    """What the attacks aim at, as SQL literals: two accounts, and a job of each sort."""

    async def fill(engine: AsyncEngine) -> dict[str, UUID]:
        account, other = await open_account(engine), await open_account(engine, 100)
        await PostgresPayments(engine).credit(payment(account.external_user_id, 100, event_id="paid"))
        statuses = {
            "live": JobStatus.QUEUED,
            "claimed": JobStatus.SUBMITTING,
            "submitted": JobStatus.SUBMITTED,
            "completed": JobStatus.COMPLETED,
            "failed": JobStatus.FAILED,
            "canceled": JobStatus.CANCELED,
        }
        jobs = {name: await job_in(engine, account, status) for name, status in statuses.items()}
        return {"account": account.account_id, "other": other.account_id, "new": uuid4(), **jobs}

    with database_copy(postgres_dsn, template_database) as dsn:
        ids = run_with_engine(dsn, fill)
        yield Target(dsn, {name: f"'{each}'" for name, each in ids.items()})


@pytest.fixture
async def sql(target: Target) -> AsyncIterator[Connection]:
    async with connect(target.dsn) as connection:
        yield connection


@pytest.mark.parametrize(("statements", "refusal"), ATTACKS.values(), ids=ATTACKS.keys())
async def test_refuses(target: Target, sql: Connection, statements: str, refusal: Refusal) -> None:
    transaction = sql.transaction()
    await transaction.start()

    with pytest.raises(asyncpg.PostgresError) as refused:
        # What waits for the commit is asked at once: an attack that gets through leaves nothing to the next test.
        await sql.execute(statements.format(**target.rows) + "; SET CONSTRAINTS ALL IMMEDIATE")

    await transaction.rollback()
    assert type(refused.value) is refusal.error
    assert refusal.words in (refused.value.constraint_name or str(refused.value))


async def test_a_commit_is_refused_like_the_statement_and_leaves_nothing(target: Target, sql: Connection) -> None:
    before = await contents(sql)

    for statements in (event("7"), job(), change(FAIL)):
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute(statements.format(**target.rows))

    assert await contents(sql) == before
    assert await sql.fetch("SELECT * FROM ledger_violations") == []


async def test_numbers_and_sums_an_entry_itself_whatever_it_says(target: Target, sql: Connection) -> None:
    forged = (
        "INSERT INTO ledger_entries (account_id, kind, amount, job_id, seq, balance_after)"
        " VALUES ({account}, 'DEBIT', 5, {new}, 99, 1000000);"
    )
    transaction = sql.transaction()
    await transaction.start()

    await sql.execute((job() + forged).format(**target.rows))

    assert await sql.fetch("SELECT * FROM ledger_violations") == []
    await transaction.rollback()
