"""Replays: what the log has after a place, delivered again in portions, of one endpoint after the other."""

from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.database import driver_connection, driver_transaction

REPLAYED_AT_ONCE = 200
# Of which perhaps only some are of the types that the endpoint wants.
SCANNED_AT_ONCE = 5_000
# While few of the endpoint wait. One that waits already, does so still.
_NEXT = f"""
SELECT endpoint.id FROM webhook_endpoints AS endpoint
 WHERE endpoint.replay_after IS NOT NULL AND endpoint.disabled_at IS NULL AND endpoint.deleted_at IS NULL
   AND NOT EXISTS (
       SELECT FROM deliveries AS waiting WHERE waiting.endpoint_id = endpoint.id AND waiting.state = 'pending'
       OFFSET {REPLAYED_AT_ONCE})
 ORDER BY endpoint.replayed_at NULLS FIRST LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608
_REPLAY = f"""
WITH endpoint AS (
    SELECT id, account_id, types, replay_after, replay_until FROM webhook_endpoints WHERE id = $1
), scanned AS MATERIALIZED (
    SELECT event.seq, event.job_id, endpoint.id,
           CASE WHEN event.type = 'webhook.test' THEN event.facts ->> 'endpoint_id' = endpoint.id::text
                ELSE endpoint.types IS NULL OR event.type = ANY (endpoint.types) END AS is_wanted
      FROM endpoint CROSS JOIN LATERAL (
        SELECT * FROM events WHERE events.account_id = endpoint.account_id AND events.seq > endpoint.replay_after
           AND events.seq <= endpoint.replay_until ORDER BY events.seq LIMIT {SCANNED_AT_ONCE}) AS event
), page AS MATERIALIZED (
    SELECT * FROM scanned WHERE is_wanted ORDER BY seq LIMIT {REPLAYED_AT_ONCE}
), added AS (
    INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at) SELECT id, seq, job_id, now() FROM page
    ON CONFLICT (endpoint_id, event_seq) DO UPDATE
        SET state = 'pending', due_at = now(), attempts = 0, ended_at = NULL WHERE deliveries.state <> 'pending'
)
UPDATE webhook_endpoints
   SET next_due_at = least(next_due_at, greatest(now(), backs_off_until, asked_until)),
       replayed_at = now(),
       replay_after = CASE WHEN paged.count = {REPLAYED_AT_ONCE} THEN paged.last_seq
                           WHEN walked.count = {SCANNED_AT_ONCE} THEN walked.last_seq END
  FROM (SELECT count(*), max(seq) AS last_seq FROM page) AS paged,
       (SELECT count(*), max(seq) AS last_seq FROM scanned) AS walked
 WHERE id = $1
"""  # noqa: S608


class PostgresReplays:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def advance(self) -> bool:
        async with (
            driver_connection(self._engine) as driver,
            driver_transaction(driver, "advance_replay", has_news=False),
        ):
            endpoint_id = await driver.fetchval(_NEXT)
            if endpoint_id is not None:
                await driver.execute(_REPLAY, endpoint_id)
            return endpoint_id is not None
