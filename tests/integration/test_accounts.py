"""Keys: who gets one, who replaces it, and what is left of it in the database."""

import asyncio
import time
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.keys import new_key
from app.domain.accounts import Account, Scope
from app.domain.budgets import Budget, Period
from app.domain.keys import KEY_HINT_LENGTH, digest_of, stored_form
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.keys.rows import HIDDEN, hidden
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.tables import api_keys
from tests.builders import (
    Connection,
    accept_job,
    contents,
    dump,
    find_account,
    find_caller,
    jobs_of,
    new_job,
    open_account,
    open_key,
    payment,
    until,
)


async def live_keys(engine: AsyncEngine, *keys: str) -> list[str]:
    return [key for key in keys if await PostgresKeys(engine).find_by_key(digest_of(key)) is not None]


async def topped_up_user(engine: AsyncEngine) -> UUID:
    """A user whom only the payment provider has named so far."""
    external_user_id = uuid4()
    await PostgresPayments(engine).credit(payment(external_user_id, 7))
    return external_user_id


async def test_a_key_finds_its_account_and_the_balance(engine: AsyncEngine) -> None:
    customer = await open_account(engine, 7)
    await open_account(engine, 8)

    caller = await PostgresKeys(engine).find_by_key(digest_of(customer.api_key))

    assert caller is not None
    assert caller.account == Account(
        id=customer.account_id, external_user_id=customer.external_user_id, balance_tokens=7
    )
    assert caller.key.may_manage_keys


async def test_an_unknown_key_finds_nothing(engine: AsyncEngine) -> None:
    await open_account(engine)

    account = await PostgresKeys(engine).find_by_key(digest_of(new_key()))

    assert account is None


@pytest.mark.parametrize("is_known", [False, True], ids=["unknown-user", "user-with-a-balance"])
async def test_one_of_20_racing_first_keys_is_stored(crowd: AsyncEngine, sql: Connection, *, is_known: bool) -> None:
    external_user_id = await topped_up_user(crowd) if is_known else uuid4()
    keys = [new_key() for _ in range(20)]

    stored = await asyncio.gather(
        *(PostgresKeys(crowd).add_first_key(external_user_id, stored_form(key)) for key in keys)
    )

    winners = [key for key, is_stored in zip(keys, stored, strict=True) if is_stored]
    assert len(winners) == 1
    assert await live_keys(crowd, *keys) == winners
    assert await sql.fetchval("SELECT count(*) FROM accounts") == 1
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == 1


async def test_a_first_key_keeps_the_balance_that_came_before_it(engine: AsyncEngine) -> None:
    external_user_id, key = await topped_up_user(engine), new_key()

    stored = await PostgresKeys(engine).add_first_key(external_user_id, stored_form(key))

    assert stored
    assert (await find_account(engine, key)).balance_tokens == 7


async def test_a_second_first_key_writes_nothing(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine)
    before = await contents(sql)

    stored = await PostgresKeys(engine).add_first_key(customer.external_user_id, stored_form(new_key()))

    assert not stored
    assert await contents(sql) == before


async def test_a_user_whose_key_was_revoked_gets_no_first_key(engine: AsyncEngine) -> None:
    customer, key = await open_account(engine), new_key()
    await PostgresKeys(engine).revoke_keys(customer.external_user_id)

    stored = await PostgresKeys(engine).add_first_key(customer.external_user_id, stored_form(key))

    assert not stored
    assert await live_keys(engine, key, customer.api_key) == []


async def test_the_current_key_is_replaced(engine: AsyncEngine) -> None:
    customer, key = await open_account(engine), new_key()

    replaced = await PostgresKeys(engine).replace_key(
        customer.external_user_id, stored_form(key), digest_of(customer.api_key)
    )

    assert replaced
    assert await live_keys(engine, customer.api_key, key) == [key]


async def test_the_operator_replaces_any_key(engine: AsyncEngine) -> None:
    customer, key = await open_account(engine), new_key()

    replaced = await PostgresKeys(engine).replace_key(customer.external_user_id, stored_form(key), None)

    assert replaced
    assert await live_keys(engine, customer.api_key, key) == [key]


async def test_the_operator_gives_a_key_after_a_revocation(engine: AsyncEngine) -> None:
    customer, key = await open_account(engine), new_key()
    await PostgresKeys(engine).revoke_keys(customer.external_user_id)

    replaced = await PostgresKeys(engine).replace_key(customer.external_user_id, stored_form(key), None)

    assert replaced
    assert await live_keys(engine, customer.api_key, key) == [key]


@pytest.mark.parametrize("proof", ["unknown", "of another account", "replaced", "revoked"])
async def test_no_other_key_proves_the_right_to_replace(engine: AsyncEngine, sql: Connection, proof: str) -> None:
    accounts = PostgresKeys(engine)
    customer, other = await open_account(engine), await open_account(engine)
    replaced, revoked = await open_account(engine), await open_account(engine)
    await accounts.replace_key(replaced.external_user_id, stored_form(new_key()), None)
    await accounts.revoke_keys(revoked.external_user_id)
    victim, key = {
        "unknown": (customer, new_key()),
        "of another account": (customer, other.api_key),
        "replaced": (replaced, replaced.api_key),
        "revoked": (revoked, revoked.api_key),
    }[proof]
    before = await contents(sql)

    is_replaced = await accounts.replace_key(victim.external_user_id, stored_form(new_key()), digest_of(key))

    assert not is_replaced
    assert await contents(sql) == before


@pytest.mark.parametrize("current", [None, digest_of("tgk_none")], ids=["operator", "key"])
async def test_there_is_nothing_to_replace_for_an_unknown_user(
    engine: AsyncEngine, sql: Connection, current: bytes | None
) -> None:
    before = await contents(sql)

    replaced = await PostgresKeys(engine).replace_key(uuid4(), stored_form(new_key()), current)

    assert not replaced
    assert await contents(sql) == before


async def test_one_of_20_replacements_by_the_same_key_succeeds(crowd: AsyncEngine) -> None:
    customer, keys = await open_account(crowd), [new_key() for _ in range(20)]
    current = digest_of(customer.api_key)

    replaced = await asyncio.gather(
        *(PostgresKeys(crowd).replace_key(customer.external_user_id, stored_form(key), current) for key in keys)
    )

    winners = [key for key, is_replaced in zip(keys, replaced, strict=True) if is_replaced]
    assert len(winners) == 1
    assert await live_keys(crowd, customer.api_key, *keys) == winners


async def test_one_key_lives_after_20_replacements_by_the_operator(crowd: AsyncEngine) -> None:
    customer, keys = await open_account(crowd), [new_key() for _ in range(20)]

    replaced = await asyncio.gather(
        *(PostgresKeys(crowd).replace_key(customer.external_user_id, stored_form(key), None) for key in keys)
    )

    assert replaced == [True] * 20
    assert len(await live_keys(crowd, customer.api_key, *keys)) == 1


async def test_a_revoked_key_finds_nothing(engine: AsyncEngine) -> None:
    customer, other = await open_account(engine), await open_account(engine)

    revoked = await PostgresKeys(engine).revoke_keys(customer.external_user_id)

    assert revoked
    assert await live_keys(engine, customer.api_key, other.api_key) == [other.api_key]


async def test_there_is_nothing_to_revoke_twice_or_for_an_unknown_user(engine: AsyncEngine) -> None:
    customer, accounts = await open_account(engine), PostgresKeys(engine)
    await accounts.revoke_keys(customer.external_user_id)

    revoked = [await accounts.revoke_keys(customer.external_user_id), await accounts.revoke_keys(uuid4())]

    assert revoked == [False, False]


async def test_a_secret_that_the_release_before_issues_is_one_of_the_first_key(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer, key = await open_account(engine), new_key()
    before = await find_caller(engine, customer.api_key)

    await sql.execute("UPDATE api_keys SET revoked_at = now() WHERE account_id = $1", customer.account_id)
    await sql.execute(
        "INSERT INTO api_keys (digest, account_id, hint) VALUES ($1, $2, 'tgk_')", digest_of(key), customer.account_id
    )

    assert (await find_caller(engine, key)).key.id == before.key.id


async def test_a_user_whom_the_release_before_gives_a_key_has_a_first_one(engine: AsyncEngine, sql: Connection) -> None:
    external_user_id, key = await topped_up_user(engine), new_key()

    await sql.execute(
        "INSERT INTO api_keys (digest, account_id, hint) SELECT $1, id, 'tgk_' FROM accounts"
        " WHERE external_user_id = $2",
        digest_of(key),
        external_user_id,
    )

    assert (await find_caller(engine, key)).key.may_manage_keys
    assert not await PostgresKeys(engine).add_first_key(external_user_id, stored_form(new_key()))


async def test_the_release_before_does_not_find_a_key_that_may_not_do_everything(
    engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine)
    secret = await open_key(engine, customer, scopes=[Scope.READ])

    found = await sql.fetch("SELECT FROM api_keys WHERE digest = $1 AND revoked_at IS NULL", digest_of(secret))

    assert found == []
    assert (await find_caller(engine, secret)).key.scopes == {Scope.READ}


async def test_what_hides_a_secret_is_the_same_in_sql(engine: AsyncEngine) -> None:
    customer = await open_account(engine)
    async with engine.connect() as connection:
        assert await connection.scalar(select(HIDDEN).where(api_keys.c.account_id == customer.account_id)) == hidden(
            digest_of(customer.api_key)
        )


async def test_the_database_refuses_what_is_no_digest(engine: AsyncEngine, sql: Connection) -> None:
    customer, key = await open_account(engine), new_key()
    await PostgresKeys(engine).revoke_keys(customer.external_user_id)

    with pytest.raises(asyncpg.CheckViolationError, match="api_keys_digest_length"):
        await sql.execute(
            "INSERT INTO api_keys (digest, account_id, hint) VALUES ($1, $2, 'tgk_')", key.encode(), customer.account_id
        )


async def test_a_key_is_nowhere_in_the_database(engine: AsyncEngine, sql: Connection) -> None:
    customer = await open_account(engine, 7)
    await PostgresKeys(engine).replace_key(
        customer.external_user_id, stored_form(new_key()), digest_of(customer.api_key)
    )

    exported = await dump(sql)

    key = customer.api_key.encode()
    assert digest_of(customer.api_key).hex().encode() in exported
    assert key[:KEY_HINT_LENGTH] in exported
    assert key[: KEY_HINT_LENGTH + 1] not in exported
    assert key.hex().encode() not in exported


@pytest.mark.alone
async def test_a_key_is_replaced_and_revoked_within_a_second_while_its_user_starts_jobs_without_pause(
    crowd: AsyncEngine,
) -> None:
    customer, accounts, key = await open_account(crowd, 10**6), PostgresKeys(crowd), new_key()
    is_over, accepted, seconds = asyncio.Event(), [0] * 6, []

    async def start_jobs(number: int) -> None:
        while not is_over.is_set():
            await accept_job(crowd, customer)
            accepted[number] += 1

    async def all_have_begun() -> bool:
        return all(accepted)

    starting = [asyncio.create_task(start_jobs(number)) for number in range(6)]
    await until(all_have_begun)
    before = sum(accepted)
    for _ in range(5):
        began_seconds = time.monotonic()
        await accounts.replace_key(customer.external_user_id, stored_form(key := new_key()), None)
        await accounts.revoke_keys(customer.external_user_id)
        seconds.append(time.monotonic() - began_seconds)
    is_over.set()
    await asyncio.gather(*starting)

    assert max(seconds) < 1
    assert sum(accepted) > before
    assert await live_keys(crowd, customer.api_key, key) == []


async def test_a_role_that_knows_nothing_of_the_new_tables_goes_on_issuing_secrets_and_ending_jobs(
    engine: AsyncEngine, sql: Connection
) -> None:
    """As that of a process of the release before, where another role migrates."""
    customer = await open_account(engine, 100)
    budgeted = (await find_caller(engine, await open_key(engine, customer, budget=Budget(20, Period.DAY)))).key
    job_id = (await jobs_of(engine).accept(new_job(customer, cost_tokens=20), key=budgeted)).job.id
    role, old = f"role_{uuid4().hex}", "accounts, api_keys, jobs, ledger_entries"
    await sql.execute(f"CREATE ROLE {role}; GRANT SELECT, INSERT, UPDATE ON {old} TO {role}; SET ROLE {role}")

    await sql.execute(
        "INSERT INTO api_keys (digest, hint, account_id) VALUES ($1, 'abcd', $2)", bytes(32), customer.account_id
    )
    await sql.execute(
        """
        WITH ended AS (
            UPDATE jobs SET status = 'FAILED', error_code = 'timeout', error_message = '', refunded_tokens = cost_tokens
             WHERE id = $1 RETURNING *)
        INSERT INTO ledger_entries (account_id, kind, amount, job_id)
        SELECT account_id, 'REFUND', refunded_tokens, id FROM ended
        """,
        job_id,
    )

    await sql.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert await sql.fetchval("SELECT spent_tokens FROM key_windows") == 0
    assert await sql.fetchval("SELECT count(*) FROM api_keys JOIN keys ON keys.id = key_id WHERE is_first") == 2
    assert await PostgresLedger(engine).violations() == []
