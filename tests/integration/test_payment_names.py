"""One payment is credited once, whichever header, process or release names it; sources name theirs apart."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import PaymentEventConflict
from app.domain.payments import source_of
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from tests.builders import Connection, Customer, balance_of, blocked, connect, open_account, payment
from tests.integration.api_on_postgres import SECRETS_BY_SOURCE, WEBHOOK_SECRET, Api, open_api

HEADERS = ("X-Event-Id", "Idempotency-Key")
# As releases up to revision 0007 write a payment.
FORMER_EVENT = """
INSERT INTO payment_events (source, event_id, account_id, amount) VALUES ($1, $2, $3, $4)
    ON CONFLICT (source, event_id) DO NOTHING RETURNING source
"""
FORMER_CREDIT = """
INSERT INTO ledger_entries (payment_source, payment_event_id, account_id, amount, kind)
VALUES ($1, $2, $3, $4, 'CREDIT')
"""


async def former_credit(
    sql: Connection, customer: Customer, source: str, event_id: str, pause_seconds: float = 0
) -> bool:
    """Whether a process of the release before credited it. Raises what the database says to it."""
    async with sql.transaction():
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", customer.account_id)
        values = (source, event_id, customer.account_id, 7)
        if not await sql.fetch(FORMER_EVENT, *values):
            return False
        await sql.execute(FORMER_CREDIT, *values)
        await asyncio.sleep(pause_seconds)
    return True


async def recorded_before(sql: Connection, customer: Customer, source: str, event_id: str) -> None:
    """A row from before the migration."""
    await sql.execute("ALTER TABLE payment_events DISABLE TRIGGER payment_events_named_once")
    assert await former_credit(sql, customer, source, event_id)
    await sql.execute("ALTER TABLE payment_events ENABLE TRIGGER payment_events_named_once")


async def deliver(
    api: Api, user: UUID, event_id: str, header: str = "X-Event-Id", *, amount: int = 7, source: str | None = None
) -> int:
    secret = WEBHOOK_SECRET if source is None else SECRETS_BY_SOURCE[source][0]
    answer = await api.http.post(
        "/webhook/topup" if source is None else f"/webhook/topup/{source}",
        json={"external_user_id": str(user), "amount": amount},
        headers={"X-Webhook-Secret": secret, header: event_id},
    )
    return answer.status_code


@pytest.fixture
async def other_api(crowd: AsyncEngine) -> AsyncIterator[Api]:
    """Another process, as far as the database can tell."""
    async with open_api(crowd) as api:
        yield api


async def assert_credited(engine: AsyncEngine, customer: Customer, tokens: int) -> None:
    assert await balance_of(engine, customer) == tokens
    assert await PostgresLedger(engine).violations() == []


async def test_credits_once_when_both_names_meet_in_two_processes(
    api: Api, other_api: Api, engine: AsyncEngine
) -> None:
    customer = await open_account(engine)
    ways = [(process, header) for process in (api, other_api) for header in HEADERS] * 5

    statuses = await asyncio.gather(
        *(deliver(process, customer.external_user_id, "pay_1", header) for process, header in ways)
    )

    assert statuses == [200] * 20
    await assert_credited(engine, customer, 7)


async def test_of_two_contents_under_both_names_one_is_credited(api: Api, other_api: Api, engine: AsyncEngine) -> None:
    customers = [await open_account(engine) for _ in range(2)]
    ways = [(customer, header) for customer in customers for header in HEADERS] * 5

    statuses = await asyncio.gather(
        *(
            deliver(process, customer.external_user_id, "pay_1", header)
            for process, (customer, header) in zip([api, other_api] * 10, ways, strict=True)
        )
    )

    assert Counter(statuses) == {200: 10, 409: 10}
    assert sorted([await balance_of(engine, customer) for customer in customers]) == [0, 7]
    assert await PostgresLedger(engine).violations() == []


async def test_the_same_id_of_two_sources_and_the_plain_webhook_are_three_payments(
    api: Api, other_api: Api, engine: AsyncEngine
) -> None:
    customer = await open_account(engine)
    sources: Sequence[str | None] = ("stripe", "yookassa", None)

    statuses = await asyncio.gather(
        *(
            deliver(process, customer.external_user_id, "1001", header, source=source)
            for process in (api, other_api)
            for header in HEADERS
            for source in sources
            for _ in range(4)
        )
    )

    assert statuses == [200] * 48
    await assert_credited(engine, customer, 21)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("source", ["webhook", "idempotency-key"])
async def test_what_was_recorded_before_is_known_under_either_name(
    api: Api, engine: AsyncEngine, sql: Connection, source: str, header: str
) -> None:
    customer, other = await open_account(engine), await open_account(engine)
    await recorded_before(sql, customer, source, "pay_1")

    repeated = await deliver(api, customer.external_user_id, "pay_1", header)
    foreign = await deliver(api, other.external_user_id, "pay_1", header)

    assert (repeated, foreign) == (200, 409)
    await assert_credited(engine, customer, 7)
    await assert_credited(engine, other, 0)


async def test_an_id_that_named_two_payments_before_goes_on_naming_both(
    api: Api, engine: AsyncEngine, sql: Connection
) -> None:
    customers = [await open_account(engine) for _ in range(2)]
    for customer, source in zip(customers, ("webhook", "idempotency-key"), strict=True):
        await recorded_before(sql, customer, source, "pay_1")

    statuses = [
        await deliver(api, customer.external_user_id, "pay_1", header) for customer in customers for header in HEADERS
    ]

    assert statuses == [200] * 4
    for customer in customers:
        await assert_credited(engine, customer, 7)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("source", ["webhook", "idempotency-key"])
async def test_what_an_older_process_credits_is_not_credited_again(
    api: Api, engine: AsyncEngine, sql: Connection, source: str, header: str
) -> None:
    customer = await open_account(engine)
    assert await former_credit(sql, customer, source, "pay_1")

    assert await deliver(api, customer.external_user_id, "pay_1", header) == 200
    await assert_credited(engine, customer, 7)


@pytest.mark.parametrize("header", HEADERS)
async def test_an_older_process_does_not_credit_again_and_can_say_so(
    api: Api, engine: AsyncEngine, sql: Connection, header: str
) -> None:
    customer = await open_account(engine)
    assert await deliver(api, customer.external_user_id, "pay_1", header) == 200

    # The name that it knows is a repeat; of the other one it says 503 with Retry-After, as for any lock.
    assert not await former_credit(sql, customer, "webhook", "pay_1")
    with pytest.raises(asyncpg.LockNotAvailableError):
        await former_credit(sql, customer, "idempotency-key", "pay_1")

    await assert_credited(engine, customer, 7)


@pytest.mark.parametrize("round_", range(5))
@pytest.mark.parametrize("source", ["webhook", "idempotency-key"])
async def test_old_and_new_processes_credit_once_when_they_meet(
    api: Api, other_api: Api, engine: AsyncEngine, database: str, *, source: str, round_: int
) -> None:
    customer = await open_account(engine)

    async def old() -> object:
        async with connect(database) as sql:
            try:
                return await former_credit(sql, customer, source, "pay_1", pause_seconds=0.01 * round_)
            except asyncpg.LockNotAvailableError:
                return 503

    outcomes = await asyncio.gather(
        *(old() for _ in range(5)),
        *(
            deliver(process, customer.external_user_id, "pay_1", header)
            for process in (api, other_api)
            for header in HEADERS
            for _ in range(5)
        ),
    )

    assert outcomes[5:] == [200] * 20
    await assert_credited(engine, customer, 7)


async def test_an_older_transaction_that_is_under_way_is_waited_for(
    api: Api, engine: AsyncEngine, sql: Connection, database: str
) -> None:
    customer, other = await open_account(engine), await open_account(engine)

    async with connect(database) as looking, sql.transaction():
        assert await former_credit(sql, customer, "idempotency-key", "pay_1")
        # Of another user, so that no lock of an account makes it wait.
        late = asyncio.create_task(deliver(api, other.external_user_id, "pay_1"))
        await blocked(looking)

    assert await late == 409
    await assert_credited(engine, customer, 7)
    await assert_credited(engine, other, 0)


async def test_a_batch_that_meets_an_older_process_credits_the_others(
    engine: AsyncEngine, sql: Connection, database: str
) -> None:
    customer, other = await open_account(engine), await open_account(engine)
    payments = PostgresPayments(engine)
    names = [f"pay_{number:02}" for number in range(20)]
    async with connect(database) as looking, sql.transaction():
        assert await former_credit(sql, other, "idempotency-key", "pay_07")
        crediting = asyncio.gather(
            *(payments.credit(payment(customer.external_user_id, 1, event_id=name)) for name in names),
            return_exceptions=True,
        )
        await blocked(looking)
    outcomes = await crediting

    refused = [name for name, outcome in zip(names, outcomes, strict=True) if isinstance(outcome, PaymentEventConflict)]
    assert refused == ["pay_07"]
    assert [outcome for outcome in outcomes if outcome is True] == [True] * 19
    await assert_credited(engine, customer, 19)
    await assert_credited(engine, other, 7)


async def test_no_statement_records_one_id_under_both_names(engine: AsyncEngine, sql: Connection) -> None:
    """Whatever switches the trigger off."""
    customer = await open_account(engine)
    assert await PostgresPayments(engine).credit(payment(customer.external_user_id, 7, event_id="pay_1"))
    await sql.execute("ALTER TABLE payment_events DISABLE TRIGGER payment_events_named_once")

    with pytest.raises(asyncpg.UniqueViolationError, match="payment_events_one_of_plain_webhook"):
        await sql.execute(
            "INSERT INTO payment_events (source, event_id, account_id, amount, is_of_plain_webhook)"
            " VALUES ('idempotency-key', 'pay_1', $1, 7, true)",
            customer.account_id,
        )


def test_no_name_of_a_source_is_one_of_ours() -> None:
    ours = {"webhook", "idempotency-key", "unidentified", "command-line", "development"}

    assert ours.isdisjoint(map(source_of, ours))
    assert len({source_of(name) for name in ours}) == len(ours)


async def test_an_id_of_another_source_is_free(engine: AsyncEngine) -> None:
    payments, user = PostgresPayments(engine), uuid4()
    names = ["webhook", "command-line", source_of("stripe"), source_of("yookassa")]

    assert [await payments.credit(payment(user, 1, event_id="1", source=name)) for name in names] == [True] * 4
