"""Revision 0018: secrets of the releases before get their keys beside a busy service, an account after the other."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID

import pytest
from alembic import command
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.domain.keys import StoredKey
from app.infrastructure.postgres import migrations
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.keys.issuing import PostgresKeys
from app.infrastructure.postgres.migrations import current_revision, head_revision, migrate
from tests.builders import Connection, blocked, connect
from tests.integration.test_migrations import ACCEPT_BEFORE_TERMS, ACCOUNT_BEFORE_KEYS, run_alembic, schema

SECRETS = 50_000
ACCOUNTS_OF_A_SLICE = 500
LOCK_SECONDS_MAX = 2
MANY_SECRETS = """
WITH account AS (INSERT INTO accounts (id, external_user_id)
                 SELECT gen_random_uuid(), gen_random_uuid() FROM generate_series(1, $1) RETURNING id)
INSERT INTO api_keys (digest, account_id, hint) SELECT sha256(id::text::bytea), id, 'tgk_1234' FROM account
"""
# As the release before rotates: the account is locked, its secret ends, and another one begins.
ROTATE = """
UPDATE api_keys SET revoked_at = now() WHERE account_id = $1 AND revoked_at IS NULL;
INSERT INTO api_keys (digest, account_id, hint) VALUES (sha256(gen_random_uuid()::text::bytea), $1, 'tgk_1234')
"""
FIND = (
    "SELECT account_id FROM api_keys JOIN accounts ON accounts.id = account_id WHERE digest = $1 AND revoked_at IS NULL"
)
# An account has one key, the first one, and all its secrets belong to it.
WRONG_KEYS = """
SELECT account_id FROM api_keys LEFT JOIN keys USING (account_id) GROUP BY account_id
HAVING count(DISTINCT keys.id) <> 1 OR NOT bool_and(keys.is_first AND api_keys.key_id = keys.id)
    OR min(keys.created_at) <> min(api_keys.created_at)
"""
LARGEST_TRANSACTION = "SELECT max(rows) FROM (SELECT count(*) AS rows FROM {} GROUP BY xmin::text) AS written"


@pytest.fixture
async def engine(empty_database: str) -> AsyncIterator[AsyncEngine]:
    async with open_engine(empty_database) as engine:
        yield engine


@pytest.fixture
async def sql(empty_database: str) -> AsyncIterator[Connection]:
    async with connect(empty_database) as connection:
        yield connection


async def upgrade(engine: AsyncEngine, revision: str) -> None:
    await run_alembic(engine, partial(command.upgrade, revision=revision))


async def rotate(sql: Connection, account_id: UUID) -> None:
    async with sql.transaction():
        await sql.execute("SELECT FROM accounts WHERE id = $1 FOR NO KEY UPDATE", account_id)
        for statement in ROTATE.split(";"):
            await sql.execute(statement, account_id)


@pytest.mark.alone
async def test_nobody_waits_for_all_secrets(empty_database: str, engine: AsyncEngine, sql: Connection) -> None:
    """No lock is waited for as long as all of them take; and no transaction writes more than a few of them."""
    await upgrade(engine, "0014")
    account_id = await sql.fetchval(ACCOUNT_BEFORE_KEYS, bytes(32))
    await sql.execute(MANY_SECRETS, SECRETS)
    others = [row["id"] for row in await sql.fetch("SELECT id FROM accounts WHERE id <> $1 LIMIT 20000", account_id)]
    is_over, times = asyncio.Event(), {"find": 0, "accept": 0, "rotate": 0}

    async def work(name: str) -> None:
        async with connect(empty_database) as connection:
            await connection.execute(f"SET lock_timeout = '{LOCK_SECONDS_MAX}s'")
            while not is_over.is_set():
                if name == "find":
                    assert await connection.fetchval(FIND, bytes(32)) == account_id
                elif name == "accept":
                    await connection.execute(ACCEPT_BEFORE_TERMS, account_id)
                else:
                    await rotate(connection, others[times[name]])
                times[name] += 1
                await asyncio.sleep(0.01)

    working = [asyncio.create_task(work(name)) for name in times]
    await asyncio.sleep(0.3)
    try:
        await migrate(engine)
    finally:
        is_over.set()
        # Each of them raises where a lock was not to be had.
        await asyncio.gather(*working)

    assert min(times.values()) > 20
    assert await sql.fetchval(LARGEST_TRANSACTION.format("api_keys")) <= 2 * ACCOUNTS_OF_A_SLICE
    assert await sql.fetchval(LARGEST_TRANSACTION.format("keys")) <= ACCOUNTS_OF_A_SLICE
    assert await sql.fetch(WRONG_KEYS) == []
    assert await sql.fetchval("SELECT count(*) FROM keys WHERE deleted_at IS NULL") == SECRETS + 1
    assert await sql.fetchval("SELECT unfinished_jobs FROM accounts WHERE id = $1", account_id) == times["accept"]
    assert await sql.fetch("SELECT * FROM ledger_violations") == []


async def test_what_the_release_before_does_in_between_stays_of_one_key(engine: AsyncEngine, sql: Connection) -> None:
    await upgrade(engine, "0014")
    accounts = [
        await sql.fetchval(ACCOUNT_BEFORE_KEYS.replace("'event'", f"'event {number}'"), bytes([number] * 32))
        for number in range(4)
    ]
    await sql.execute("UPDATE api_keys SET created_at = now() - interval '1 day'")
    await sql.execute(ACCEPT_BEFORE_TERMS, accounts[0])
    await upgrade(engine, "0017")
    _, rotated, revoked, both = accounts
    for account_id in (rotated, both):
        await rotate(sql, account_id)
    await sql.execute("UPDATE api_keys SET revoked_at = now() WHERE account_id = ANY($1)", [revoked, both])
    await sql.execute("UPDATE jobs SET status = 'SUBMITTING', attempts = 1, attempt_token = gen_random_uuid(),"
                      " claimed_at = now()")  # fmt: skip
    await sql.execute("UPDATE jobs SET status = 'COMPLETED', result = '{}'")

    await migrate(engine)

    assert await sql.fetch(WRONG_KEYS) == []
    ended = "SELECT account_id FROM keys WHERE deleted_at IS NOT NULL"
    # One that the release before ends after it has a key keeps the key, and has no secret.
    assert [row["account_id"] for row in await sql.fetch(ended)] == [revoked]
    assert await sql.fetchval("SELECT max(unfinished_jobs) FROM accounts") == 0
    assert await sql.fetch("SELECT * FROM ledger_violations") == []


async def test_passes_over_what_is_locked_and_goes_on_from_there_after_its_death(
    empty_database: str, engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_SECONDS", 30)
    await upgrade(engine, "0017")
    # As they are where nobody has given them a key yet.
    await sql.execute("ALTER TABLE api_keys DISABLE TRIGGER api_keys_belong_to_a_key")
    await sql.execute(MANY_SECRETS, 2 * ACCOUNTS_OF_A_SLICE + 1)
    await sql.execute("ALTER TABLE api_keys ENABLE TRIGGER api_keys_belong_to_a_key")

    async with connect(empty_database) as other, other.transaction():
        await other.execute("SELECT FROM accounts ORDER BY id LIMIT 1 FOR NO KEY UPDATE")
        migration = asyncio.create_task(migrate(engine))
        await blocked(sql)
        assert await sql.fetchval("SELECT count(key_id) FROM api_keys") == 2 * ACCOUNTS_OF_A_SLICE
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        with pytest.raises(DatabaseUnavailable):
            await migration
    assert await current_revision(engine) == "0017"

    await migrate(engine)

    assert await sql.fetch(WRONG_KEYS) == []
    assert await sql.fetchval("SELECT count(*) FROM keys") == 2 * ACCOUNTS_OF_A_SLICE + 1


async def test_a_database_whose_secrets_have_their_keys_already_comes_to_the_same(
    empty_database: str, database: str, engine: AsyncEngine, sql: Connection
) -> None:
    """As revision 0015 once left it, which did all this by itself."""
    await upgrade(engine, "0018")
    await sql.execute(ACCOUNT_BEFORE_KEYS, bytes(32))
    keys = await sql.fetch("SELECT * FROM keys")
    await sql.execute("UPDATE tollgate_version SET version_num = '0017'")

    await migrate(engine)

    assert await current_revision(engine) == head_revision()
    assert await schema(empty_database) == await schema(database)
    assert await sql.fetch("SELECT * FROM keys") == keys


async def test_goes_on_behind_a_slice_that_is_locked_as_a_whole(
    empty_database: str, engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_WAIT_SECONDS", 30)
    await upgrade(engine, "0017")
    await sql.execute("ALTER TABLE api_keys DISABLE TRIGGER api_keys_belong_to_a_key")
    await sql.execute(MANY_SECRETS, 2 * ACCOUNTS_OF_A_SLICE)
    await sql.execute("ALTER TABLE api_keys ENABLE TRIGGER api_keys_belong_to_a_key")

    async with connect(empty_database) as other, other.transaction():
        lock = "SELECT FROM accounts ORDER BY id LIMIT $1 FOR NO KEY UPDATE"
        await other.execute(lock, ACCOUNTS_OF_A_SLICE)
        migration = asyncio.create_task(migrate(engine))
        await blocked(sql)
        assert await sql.fetchval("SELECT count(key_id) FROM api_keys") == ACCOUNTS_OF_A_SLICE

    await migration
    assert await sql.fetch(WRONG_KEYS) == []


async def test_a_secret_that_was_replaced_before_it_had_a_key_stays_dead(engine: AsyncEngine, sql: Connection) -> None:
    await upgrade(engine, "0014")
    account_id = await sql.fetchval(ACCOUNT_BEFORE_KEYS, bytes(32))
    user = await sql.fetchval("SELECT external_user_id FROM accounts WHERE id = $1", account_id)
    await upgrade(engine, "0017")
    first, second = [StoredKey(digest=bytes([number]) * 32, hint="tgk_5678") for number in (1, 2)]

    assert not await PostgresKeys(engine).add_first_key(user, first)
    assert await PostgresKeys(engine).replace_key(user, second, None)
    await migrate(engine)

    live = await sql.fetch("SELECT digest FROM api_keys WHERE revoked_at IS NULL")
    assert [row["digest"] for row in live] == [second.digest]
    assert await sql.fetch(WRONG_KEYS) == []


async def test_a_view_of_violations_that_is_there_already_becomes_the_present_one(
    database: str, engine: AsyncEngine, sql: Connection
) -> None:
    """Revision 0015 once made a slower one."""
    definition = "SELECT pg_get_viewdef('ledger_violations'::regclass)"
    await upgrade(engine, "0018")
    await sql.execute("CREATE OR REPLACE VIEW ledger_violations (invariant, subject) AS SELECT '', '' WHERE false")

    await migrate(engine)

    async with connect(database) as present:
        assert await sql.fetchval(definition) == await present.fetchval(definition)
    assert "unfinished" in await sql.fetchval(definition)
