"""Very many events of one account, by SQL: through the API they would take hours.

The statements are not the service's own, but the triggers are, which write the facts into the inbox and hold the books:
each job is accepted with its debit, starts, and ends with a result or its refund; each payment has its credit. Several
connections write at once, and some transactions stay open, so that facts are committed in another order than written.
"""

import asyncio
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg
from uuid_utils.compat import uuid7

from torture.wishes import PRICE_TOKENS

JOBS = 250
# Of each job three, and as many payments as jobs. What falls below the mark comes beside.
EVENTS = 4 * JOBS
REFUSED_EACH = 5
# As much as the jobs cost that are not refused, so that a batch leaves the balance as it was.
PAID_TOKENS = PRICE_TOKENS * (REFUSED_EACH - 1) // REFUSED_EACH
START_TOKENS = 10_000_000
# A balance falls below it with each batch, and comes back where no other batch is at work.
MARK_TOKENS = START_TOKENS - PRICE_TOKENS * JOBS // 2
CONNECTIONS = 4
STAYS_OPEN = 0.2
OPEN_SECONDS = (0.1, 1.0)
STATEMENT_SECONDS_MAX = 120

_ACCEPT = f"""
WITH job AS (
    INSERT INTO jobs (id, account_id, kind, model_id, parameters, cost_tokens, outputs_requested, time_limit_seconds)
    SELECT id, $1, 'TEXT_TO_IMAGE', 'fal-ai/wan-25-preview/text-to-image',
           '{{"prompt": "a lighthouse at dawn", "num_images": 1}}', {PRICE_TOKENS}, 1, 1200
      FROM unnest($2::uuid[]) AS id
    RETURNING *)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'DEBIT', cost_tokens, id FROM job
"""
_CLAIM = "UPDATE jobs SET status = 'SUBMITTING' WHERE id = ANY ($1::uuid[]) AND status = 'QUEUED'"
_START = """
UPDATE jobs SET status = 'IN_PROGRESS', fal_request_id = id::text WHERE id = ANY ($1::uuid[]) AND NOT is_final
"""
_COMPLETE = """
UPDATE jobs SET status = 'COMPLETED',
                result = jsonb_build_object(
                    'images', jsonb_build_array(jsonb_build_object('url', 'https://fal.media/files/' || id)))
 WHERE id = ANY ($1::uuid[]) AND NOT is_final
"""
_REFUSE = """
WITH job AS (
    UPDATE jobs SET status = 'FAILED', error_code = 'refused', error_message = 'It was refused.',
                    refunded_tokens = cost_tokens
     WHERE id = ANY ($1::uuid[]) AND NOT is_final RETURNING *)
INSERT INTO ledger_entries (account_id, kind, amount, job_id) SELECT account_id, 'REFUND', cost_tokens, id FROM job
"""
_PAY = f"""
WITH paid AS (
    INSERT INTO payment_events (source, event_id, account_id, amount)
    SELECT 'webhook', id, $1, {PAID_TOKENS} FROM unnest($2::text[]) AS id RETURNING *)
INSERT INTO ledger_entries (account_id, kind, amount, payment_source, payment_event_id)
SELECT account_id, 'CREDIT', amount, source, event_id FROM paid
"""


@dataclass(frozen=True, slots=True)
class Bulk:
    dsn: str
    user_id: str
    batches: int
    rng: random.Random

    async def write(self) -> None:
        numbers = iter(range(self.batches))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CONNECTIONS):
                tasks.create_task(self._write_some(numbers))

    async def _write_some(self, numbers: Iterator[int]) -> None:
        connection = await asyncpg.connect(self.dsn, command_timeout=STATEMENT_SECONDS_MAX)
        try:
            account_id = await connection.fetchval(
                "SELECT id FROM accounts WHERE external_user_id = $1", uuid.UUID(self.user_id)
            )
            for _ in numbers:
                await self._batch(connection, account_id)
        finally:
            await connection.close()

    async def _batch(self, connection: "asyncpg.Connection[asyncpg.Record]", account_id: uuid.UUID) -> None:
        job_ids = [uuid7() for _ in range(JOBS)]
        refused = job_ids[::REFUSED_EACH]
        await connection.execute(_ACCEPT, account_id, job_ids)
        async with connection.transaction():
            await connection.execute(_CLAIM, job_ids)
            await connection.execute(_START, job_ids)
            if self.rng.random() < STAYS_OPEN:
                # It has no lock on the account, so the others go on.
                await asyncio.sleep(self.rng.uniform(*OPEN_SECONDS))
        async with connection.transaction():
            await connection.execute(_REFUSE, refused)
            await connection.execute(_COMPLETE, job_ids)
        await connection.execute(_PAY, account_id, [str(job_id) for job_id in job_ids])
