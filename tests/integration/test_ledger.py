"""Credits, and the view that says where the books do not add up."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import BalanceLimitExceeded, PaymentEventConflict
from app.domain.jobs import JobStatus
from app.domain.ledger import BALANCE_TOKENS_MAX, Adjustment, Violation
from app.domain.reversals import ReversalEvent
from app.infrastructure.postgres.adjustments import PostgresAdjustments
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.reversals import PostgresReversals
from tests.builders import (
    Connection,
    balance_of,
    connect,
    contents,
    database_copy,
    job_in,
    open_account,
    payment,
    run_with_engine,
)


async def balances(sql: Connection) -> list[int]:
    return [row[0] for row in await sql.fetch("SELECT balance_tokens FROM accounts")]


async def test_credits_once_when_25_deliveries_of_one_event_meet(crowd: AsyncEngine) -> None:
    customer = await open_account(crowd)
    payments, event = PostgresPayments(crowd), payment(customer.external_user_id, 7)

    credited = await asyncio.gather(*(payments.credit(event) for _ in range(25)))

    assert sorted(credited) == [False] * 24 + [True]
    assert await balance_of(crowd, customer) == 7
    assert await PostgresLedger(crowd).violations() == []


async def test_credits_once_when_25_deliveries_for_an_unknown_user_meet(crowd: AsyncEngine, sql: Connection) -> None:
    payments, event = PostgresPayments(crowd), payment(uuid4(), 7)

    credited = await asyncio.gather(*(payments.credit(event) for _ in range(25)))

    assert sorted(credited) == [False] * 24 + [True]
    assert await balances(sql) == [7]
    assert await PostgresLedger(crowd).violations() == []


async def test_credits_every_event_when_the_first_ones_of_an_unknown_user_meet(
    crowd: AsyncEngine, sql: Connection
) -> None:
    payments, external_user_id = PostgresPayments(crowd), uuid4()

    credited = await asyncio.gather(*(payments.credit(payment(external_user_id, amount)) for amount in range(1, 26)))

    assert credited == [True] * 25
    assert await balances(sql) == [sum(range(1, 26))]
    assert await PostgresLedger(crowd).violations() == []


async def test_credits_one_of_the_contents_when_they_race_for_an_event_id(crowd: AsyncEngine, sql: Connection) -> None:
    payments = PostgresPayments(crowd)
    events = [payment(uuid4(), amount, event_id="contested") for amount in range(1, 26)]

    outcomes = await asyncio.gather(*(payments.credit(event) for event in events), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes if outcome is not True] == [PaymentEventConflict] * 24
    assert await balances(sql) == [events[outcomes.index(True)].amount]
    assert await PostgresLedger(crowd).violations() == []


async def test_credits_the_same_id_of_another_source(engine: AsyncEngine) -> None:
    customer = await open_account(engine)
    payments = PostgresPayments(engine)
    assert await payments.credit(payment(customer.external_user_id, 7, event_id="one", source="webhook"))

    credited = await payments.credit(payment(customer.external_user_id, 8, event_id="one", source="operator"))

    assert credited
    assert await balance_of(engine, customer) == 15
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.parametrize("amount", [7, 8], ids=["same-amount", "other-amount"])
@pytest.mark.parametrize("is_known", [True, False], ids=["known-user", "unknown-user"])
async def test_writes_nothing_when_an_event_comes_back_for_another_user(
    engine: AsyncEngine, sql: Connection, *, is_known: bool, amount: int
) -> None:
    other = (await open_account(engine)).external_user_id if is_known else uuid4()
    payments = PostgresPayments(engine)
    await payments.credit(payment(uuid4(), 7, event_id="one"))
    before = await contents(sql)

    with pytest.raises(PaymentEventConflict):
        await payments.credit(payment(other, amount, event_id="one"))

    assert await contents(sql) == before
    assert await PostgresLedger(engine).violations() == []


async def test_writes_nothing_when_an_event_comes_back_with_another_amount(
    engine: AsyncEngine, sql: Connection
) -> None:
    payments, external_user_id = PostgresPayments(engine), uuid4()
    await payments.credit(payment(external_user_id, 7, event_id="one"))
    before = await contents(sql)

    with pytest.raises(PaymentEventConflict):
        await payments.credit(payment(external_user_id, 8, event_id="one"))

    assert await contents(sql) == before
    assert await PostgresLedger(engine).violations() == []


async def test_writes_nothing_when_an_event_comes_back_unchanged(engine: AsyncEngine, sql: Connection) -> None:
    payments, event = PostgresPayments(engine), payment(uuid4(), 7)
    await payments.credit(event)
    before = await contents(sql)

    credited = await payments.credit(event)

    assert not credited
    assert await contents(sql) == before


async def test_credits_up_to_the_largest_balance(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 1)
    payments = PostgresPayments(engine)

    credited = await payments.credit(payment(customer.external_user_id, BALANCE_TOKENS_MAX - 1))

    assert credited
    assert await balance_of(engine, customer) == BALANCE_TOKENS_MAX
    assert await PostgresLedger(engine).violations() == []


async def test_writes_nothing_when_the_balance_would_exceed_the_largest(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, BALANCE_TOKENS_MAX)
    payments = PostgresPayments(engine)
    before = await contents(sql)

    with pytest.raises(BalanceLimitExceeded):
        await payments.credit(payment(customer.external_user_id, 1))

    assert await contents(sql) == before
    assert await PostgresLedger(engine).violations() == []


async def test_writes_no_account_when_the_first_credit_exceeds_the_largest_balance(
    engine: AsyncEngine, sql: Connection
) -> None:
    payments = PostgresPayments(engine)

    with pytest.raises(BalanceLimitExceeded):
        await payments.credit(payment(uuid4(), BALANCE_TOKENS_MAX + 1))

    assert await balances(sql) == []
    assert await PostgresLedger(engine).violations() == []


# What each line of the view must notice: how to spoil the books, and everything that is wrong then.
# Statements run with triggers and foreign keys off, as nothing of the service could ever run them.
NO_CHECK = "ALTER TABLE {} DROP CONSTRAINT {}; ".format
LAST_CREDIT = "(SELECT max(id) FROM ledger_entries WHERE kind = 'CREDIT')"
REFUND = "kind = 'REFUND'"
REVERSED = "what is reversed of a payment is what its standing reversals come to"
ADJUSTED = "an adjustment has one entry of its amount"
CORRUPTIONS = {
    "a balance without an entry": (
        "UPDATE accounts SET balance_tokens = balance_tokens + 1 WHERE id = {rich}",
        {"balance is the sum of its entries", "tokens are conserved"},
    ),
    "tokens moved between two accounts": (
        (
            "UPDATE accounts SET balance_tokens = balance_tokens + CASE id WHEN {rich} THEN -1 ELSE 1 END"
            " WHERE id IN ({rich}, {lone})"
        ),
        {"balance is the sum of its entries"},
    ),
    "a debit that left a balance below zero": (
        NO_CHECK("ledger_entries", "ledger_entries_debit_is_covered")
        + "UPDATE payment_events SET amount = 1 WHERE account_id = {poor};"
        "UPDATE ledger_entries SET amount = 1, balance_after = 1 WHERE account_id = {poor} AND seq = 1;"
        "UPDATE ledger_entries SET balance_after = -4 WHERE account_id = {poor} AND seq = 2;"
        "UPDATE accounts SET balance_tokens = -4 WHERE id = {poor}",
        {"a debit leaves no balance below zero"},
    ),
    "a reversal that nobody booked": (
        (
            "INSERT INTO reversal_events (source, event_id, payment_event_id, amount)"
            " SELECT source, 'new', event_id, 1 FROM payment_events WHERE account_id = {lone}"
        ),
        {REVERSED},
    ),
    "a reversal that is gone": ("DELETE FROM reversal_events", {REVERSED}),
    "a reversal with another amount": ("UPDATE reversal_events SET amount = 1 WHERE amount IS NOT NULL", {REVERSED}),
    "a withdrawal that nobody booked": (
        (
            "INSERT INTO reversal_events (source, event_id, payment_event_id, withdraws)"
            " SELECT source, 'won', payment_event_id, event_id FROM reversal_events"
        ),
        {REVERSED},
    ),
    "a reversal that was booked on another account": (
        (
            "UPDATE ledger_entries SET reversed_source = 'webhook', payment_event_id = ("
            "SELECT event_id FROM payment_events WHERE account_id = {lone}) WHERE kind = 'REVERSAL'"
        ),
        {REVERSED},
    ),
    "an adjustment that nobody booked": (
        "INSERT INTO adjustments (id, account_id, amount, reason, actor) VALUES ('new', {rich}, 5, 'why', 'who')",
        {ADJUSTED},
    ),
    "an adjustment with another amount": ("UPDATE adjustments SET amount = amount + 1", {ADJUSTED}),
    "an adjustment that is gone": (
        "DELETE FROM adjustments",
        {"an entry belongs to a job or payment event that exists"},
    ),
    "a gap in the numbers": (
        "UPDATE ledger_entries SET seq = seq + 1 WHERE id = " + LAST_CREDIT + ";"
        "UPDATE accounts SET entry_count = entry_count + 1 WHERE id = {lone}",
        {"entries are numbered without a gap"},
    ),
    "a chain that breaks": (
        "UPDATE ledger_entries SET balance_after = balance_after + 1 WHERE id = " + LAST_CREDIT,
        {"each entry continues from the one before"},
    ),
    "an entry that was taken out": (
        "DELETE FROM ledger_entries WHERE account_id = {poor} AND kind = 'DEBIT'",
        {
            "a job has one debit of its cost",
            "balance is the sum of its entries",
            "the account counts its entries",
            "tokens are conserved",
        },
    ),
    "a payment event that is gone": (
        "DELETE FROM payment_events WHERE account_id = {lone}",
        {"an entry belongs to a job or payment event that exists"},
    ),
    "an account that miscounts": (
        "UPDATE accounts SET entry_count = entry_count + 1 WHERE id = {rich}",
        {"the account counts its entries"},
    ),
    "a job that was made cheaper": (
        "UPDATE jobs SET cost_tokens = 4 WHERE id = {live}",
        {"a job has one debit of its cost", "the lines of a job come to its cost"},
    ),
    "a job with two debits": (
        (
            "DROP INDEX ledger_entries_one_of_a_kind_per_job;"
            "UPDATE ledger_entries SET job_id = {completed} WHERE job_id = {waiting}"
        ),
        {"a job has one debit of its cost"},
    ),
    "a refund that the job does not know": (
        "UPDATE ledger_entries SET job_id = {completed} WHERE " + REFUND,
        {"a job has at most one refund, of what it says"},
    ),
    "two refunds of one job that add up": (
        "DROP INDEX ledger_entries_one_of_a_kind_per_job;"
        "UPDATE ledger_entries SET amount = 2, balance_after = balance_after - 3 WHERE " + REFUND + ";"
        "INSERT INTO ledger_entries (account_id, seq, kind, amount, balance_after, job_id)"
        " SELECT account_id, seq + 1, kind, 3, balance_after + 3, job_id FROM ledger_entries WHERE " + REFUND + ";"
        "UPDATE accounts SET entry_count = entry_count + 1 WHERE id = {rich}",
        {"a job has at most one refund, of what it says"},
    ),
    "a refund above the debit": (
        NO_CHECK("jobs", "jobs_refund_fits_status")
        + "UPDATE jobs SET status = 'COMPLETED', result = '{{}}', error_code = NULL, refunded_tokens = 6"
        " WHERE id = {failed};"
        "UPDATE ledger_entries SET amount = 6, balance_after = balance_after + 1 WHERE " + REFUND + ";"
        "UPDATE accounts SET balance_tokens = balance_tokens + 1 WHERE id = {rich}",
        {"a refund is at most the debit"},
    ),
    "a job that changed its account": (
        "UPDATE jobs SET account_id = {lone} WHERE id = {completed}",
        {"debit and refund are of the job's own account"},
    ),
    "a failed job that keeps a part": (
        NO_CHECK("jobs", "jobs_refund_fits_status") + "UPDATE jobs SET refunded_tokens = 4 WHERE id = {failed};"
        "UPDATE ledger_entries SET amount = 4, balance_after = balance_after - 1 WHERE " + REFUND + ";"
        "UPDATE accounts SET balance_tokens = balance_tokens - 1 WHERE id = {rich}",
        {"failed and canceled jobs are refunded in full"},
    ),
    "a refunded job that lives again": (
        NO_CHECK("jobs", "jobs_refund_fits_status")
        + "UPDATE jobs SET status = 'IN_QUEUE', error_code = NULL WHERE id = {failed}",
        {"live jobs are not refunded", "the account counts its unfinished jobs"},
    ),
    "an account that counts a job too many": (
        "UPDATE accounts SET unfinished_jobs = unfinished_jobs + 1 WHERE id = {rich}",
        {"the account counts its unfinished jobs"},
    ),
    "a window that counts what was not spent": (
        "INSERT INTO key_windows SELECT id, '2000-01-01', '9999-01-01', 9, 1 FROM keys WHERE account_id = {rich}",
        {"a window counts what its jobs cost"},
    ),
    "a job that came by the key of another account": (
        "UPDATE jobs SET key_id = (SELECT id FROM keys WHERE account_id <> {rich} LIMIT 1) WHERE account_id = {rich}",
        {"a job belongs to the account of its key"},
    ),
    "a completed job without a result": (
        NO_CHECK("jobs", "jobs_result_only_if_completed") + "UPDATE jobs SET result = NULL WHERE id = {completed}",
        {"a job is completed exactly when it has a result"},
    ),
    "a result of a job that is not completed": (
        NO_CHECK("jobs", "jobs_result_only_if_completed") + "UPDATE jobs SET result = '{{}}' WHERE id = {failed}",
        {"a job is completed exactly when it has a result"},
    ),
    "an event without its credit": (
        "INSERT INTO payment_events VALUES ('webhook', 'lost', {rich}, 9)",
        {"a payment event has one credit of its amount"},
    ),
    "an event with another amount": (
        "UPDATE payment_events SET amount = amount + 1 WHERE account_id = {lone}",
        {"a payment event has one credit of its amount"},
    ),
    "an event with another account": (
        "UPDATE payment_events SET account_id = {rich} WHERE account_id = {lone}",
        {"a payment event has one credit of its amount"},
    ),
    "a completed job that names lines which it did not give back": (
        """UPDATE jobs SET refunded_lines = '{{"text_to_image": 5}}' WHERE id = {completed}""",
        {"the lines that a job gives back come to its refund"},
    ),
    "an account that is gone": (
        "DELETE FROM accounts WHERE id = {lone}",
        {"tokens are conserved"},
    ),
}


@dataclass(frozen=True, slots=True)
class Books:
    dsn: str
    rows: Mapping[str, str]


@pytest.fixture(scope="module")
def books(postgres_dsn: str, template_database: str) -> Iterator[Books]:
    """An account with a job of each end, one that spent everything, one with a single credit, and one from which more
    was taken back than it had; as SQL literals.
    """

    async def keep(engine: AsyncEngine) -> dict[str, UUID]:
        owing = await open_account(engine)
        await PostgresPayments(engine).credit(payment(owing.external_user_id, 7, event_id="taken back"))
        reversal = ReversalEvent(source="webhook", event_id="refund", payment_event_id="taken back", amount=7)
        assert await PostgresReversals(engine).record(reversal) is not None
        user = owing.external_user_id
        taken = Adjustment(id="ticket", external_user_id=user, amount=-3, reason="why", actor="who")
        assert await PostgresAdjustments(engine).adjust(taken) == -3
        rich, poor, lone = await open_account(engine, 100), await open_account(engine, 5), await open_account(engine, 9)
        return {
            "rich": rich.account_id,
            "poor": poor.account_id,
            "lone": lone.account_id,
            "live": await job_in(engine, poor, JobStatus.QUEUED),
            "waiting": await job_in(engine, rich, JobStatus.QUEUED),
            "completed": await job_in(engine, rich, JobStatus.COMPLETED),
            "failed": await job_in(engine, rich, JobStatus.FAILED),
        }

    with database_copy(postgres_dsn, template_database) as dsn:
        ids = run_with_engine(dsn, keep)
        yield Books(dsn, {name: f"'{each}'" for name, each in ids.items()})


@asynccontextmanager
async def spoiled(books: Books, statements: str) -> AsyncIterator[Connection]:
    """Inside a transaction that never commits, so that the next test finds the books in order."""
    async with connect(books.dsn) as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET session_replication_role = replica;" + statements.format(**books.rows))
        yield connection
        await transaction.rollback()


async def test_finds_nothing_wrong_in_books_that_the_service_kept(books: Books) -> None:
    async with open_engine(books.dsn) as engine:
        violations = await PostgresLedger(engine).violations()

    assert violations == []


@pytest.mark.parametrize(("statements", "invariants"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
async def test_names_what_is_wrong_in_spoiled_books(books: Books, statements: str, invariants: set[str]) -> None:
    async with spoiled(books, statements) as sql:
        named = await sql.fetch("SELECT invariant FROM ledger_violations")

    assert {row["invariant"] for row in named} == invariants


async def test_spoils_the_books_for_every_line_of_the_view(books: Books) -> None:
    async with connect(books.dsn) as sql:
        definition = await sql.fetchval("SELECT definition FROM pg_views WHERE viewname = 'ledger_violations'")

    assert definition.count("UNION ALL") + 1 == len(set().union(*(named for _, named in CORRUPTIONS.values())))


async def test_hands_over_the_row_that_is_wrong(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 10)
    await open_account(engine, 10)
    await sql.execute("SET session_replication_role = replica")
    await sql.execute("UPDATE accounts SET entry_count = 7 WHERE id = $1", customer.account_id)

    violations = await PostgresLedger(engine).violations()

    assert violations == [Violation(invariant="the account counts its entries", subject=str(customer.account_id))]
