"""Accounts, keys and finished jobs, written by SQL: a million jobs take a minute or two instead of an hour."""

from dataclasses import dataclass
from uuid import UUID

from app.application.keys import new_key
from app.domain.keys import stored_form
from tests.builders import Connection

ACCOUNTS = 200
JOBS_OF_EACH_ACCOUNT = 25
CREDIT_TOKENS = 10**12
COST_TOKENS = 5

# pgbench draws the number of an account and makes the id of it.
ACCOUNT_ID_SQL = "('00000000-0000-7000-8000-' || lpad(({number})::text, 12, '0'))::uuid"

_ACCOUNTS = f"""
INSERT INTO accounts (id, external_user_id)
SELECT {ACCOUNT_ID_SQL.format(number="n")}, gen_random_uuid() FROM generate_series(1, $1::int) n
"""
_KEYS = f"""
INSERT INTO api_keys (digest, account_id, hint)
SELECT digest, {ACCOUNT_ID_SQL.format(number="n")}, hint
  FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY AS k (digest, hint, n)
"""
_EVENTS = """
INSERT INTO payment_events (source, event_id, account_id, amount)
SELECT 'benchmark', id::text, id, $1 FROM accounts
"""
_CREDITS = """
INSERT INTO ledger_entries (account_id, kind, amount, payment_source, payment_event_id)
SELECT account_id, 'CREDIT', amount, source, event_id FROM payment_events ORDER BY account_id
"""

# The triggers are off while this runs, so it does what they would: number the entries, carry the balance on.
_JOBS = f"""
INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds,
                  status, attempts, attempt_token, claimed_at, deadline_at, fal_request_id, fal_status_url,
                  fal_response_url, fal_cancel_url, result, created_at, updated_at)
SELECT uuidv7(moment - clock_timestamp()), {ACCOUNT_ID_SQL.format(number="1 + (n - 1) % $2::int")}, 'TEXT_TO_IMAGE',
       'fal-ai/wan-25-preview/text-to-image', '{{"prompt": "a lighthouse at dawn", "num_images": 1}}', {COST_TOKENS},
       1, 1200, 'COMPLETED', 1, gen_random_uuid(), moment, moment + interval '20 minutes', request_id, url || '/status',
       url, url || '/cancel', jsonb_build_object('images', jsonb_build_array(jsonb_build_object(
           'url', 'https://v3b.fal.media/files/b/0a1b2c3d/' || request_id || '.png', 'content_type', 'image/png',
           'width', 1024, 'height', 1024))), moment, moment + interval '8 seconds'
  FROM (SELECT n, now() - interval '30 days' * ($1::int - n + 1) / $1::int AS moment, request_id,
               'https://queue.fal.run/fal-ai/wan-25-preview/requests/' || request_id AS url
          FROM (SELECT n, gen_random_uuid()::text AS request_id FROM generate_series(1, $1::int) n) numbered) dated
"""
# In the store since their end, so that nothing is left to do for them and their links are those of any finished job.
_OUTPUTS = """
INSERT INTO outputs (job_id, number, created_at, expires_at, content_type, size_bytes, sha256, stored_at)
SELECT id, 0, updated_at, now() + interval '30 days', 'image/png', 1500000, sha256(uuid_send(id)), updated_at
  FROM jobs WHERE status = 'COMPLETED' AND NOT EXISTS (SELECT FROM outputs WHERE job_id = jobs.id)
"""
_DEBITS = """
INSERT INTO ledger_entries (account_id, seq, kind, amount, balance_after, job_id, created_at)
SELECT job.account_id, account.entry_count + job.place, 'DEBIT', job.cost_tokens,
       account.balance_tokens - job.place * job.cost_tokens, job.id, job.created_at
  FROM (SELECT id, account_id, cost_tokens, created_at, row_number() OVER (PARTITION BY account_id ORDER BY id) AS place
          FROM jobs WHERE NOT EXISTS (SELECT FROM ledger_entries WHERE job_id = jobs.id)) job
  JOIN accounts account ON account.id = job.account_id
 ORDER BY job.id
"""
_BALANCES = """
UPDATE accounts SET balance_tokens = entry.balance_after, entry_count = entry.seq
  FROM (SELECT DISTINCT ON (account_id) account_id, seq, balance_after FROM ledger_entries
         ORDER BY account_id, seq DESC) entry
 WHERE entry.account_id = accounts.id
"""


@dataclass(frozen=True, slots=True)
class User:
    """A caller of the service, with finished jobs to ask for."""

    external_user_id: UUID
    api_key: str
    job_id: UUID

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key}


async def add_users(connection: Connection) -> list[User]:
    keys = [new_key() for _ in range(ACCOUNTS)]
    stored = [stored_form(key) for key in keys]
    async with connection.transaction():
        await connection.execute(_ACCOUNTS, ACCOUNTS)
        await connection.execute(_KEYS, [key.digest for key in stored], [key.hint for key in stored])
        await connection.execute(_EVENTS, CREDIT_TOKENS)
        await connection.execute(_CREDITS)
    await add_jobs(connection, ACCOUNTS * JOBS_OF_EACH_ACCOUNT)
    found = await connection.fetch(
        "SELECT DISTINCT ON (a.id) a.external_user_id, j.id FROM accounts a JOIN jobs j ON j.account_id = a.id"
        " ORDER BY a.id, j.id"
    )
    return [User(row["external_user_id"], key, row["id"]) for row, key in zip(found, keys, strict=True)]


async def add_jobs(connection: Connection, count: int, accounts: int = ACCOUNTS) -> None:
    """`count` jobs that ended during the last month, of the first `accounts` accounts in turn."""
    await connection.execute("SET session_replication_role = replica")
    async with connection.transaction():
        await connection.execute(_JOBS, count, accounts, timeout=600)
        await connection.execute(_OUTPUTS, timeout=600)
        await connection.execute(_DEBITS, timeout=600)
        await connection.execute(_BALANCES, timeout=600)
    await connection.execute("RESET session_replication_role")
    await connection.execute("VACUUM (ANALYZE)", timeout=600)
    await connection.execute("CHECKPOINT", timeout=600)
