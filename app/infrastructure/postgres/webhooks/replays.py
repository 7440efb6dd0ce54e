"""Replays: what the log has after a place, delivered again in portions."""

from sqlalchemy.ext.asyncio import AsyncEngine

from app.infrastructure.postgres.database import driver_connection, driver_transaction

REPLAYED_AT_ONCE = 500
# Of a replay the next ones, while few of the endpoint wait. One that waits already, does so still.
_NEXT_REPLAY = f"""
SELECT endpoint.id FROM webhook_endpoints AS endpoint
 WHERE endpoint.replay_after IS NOT NULL AND endpoint.disabled_at IS NULL AND endpoint.deleted_at IS NULL
   AND NOT EXISTS (
       SELECT FROM deliveries AS waiting WHERE waiting.endpoint_id = endpoint.id AND waiting.state = 'pending'
       OFFSET {REPLAYED_AT_ONCE})
 ORDER BY endpoint.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608
_REPLAY = f"""
WITH endpoint AS (
    SELECT id, account_id, types, replay_after, replay_until FROM webhook_endpoints WHERE id = $1
), page AS MATERIALIZED (
    SELECT event.seq, event.type, event.job_id, event.facts
      FROM endpoint CROSS JOIN LATERAL (
        SELECT * FROM events WHERE events.account_id = endpoint.account_id AND events.seq > endpoint.replay_after
           AND events.seq <= endpoint.replay_until ORDER BY events.seq LIMIT {REPLAYED_AT_ONCE}) AS event
), added AS (
    INSERT INTO deliveries (endpoint_id, event_seq, job_id, due_at)
    SELECT endpoint.id, page.seq, page.job_id, now() FROM page CROSS JOIN endpoint
     WHERE CASE WHEN page.type = 'webhook.test' THEN page.facts ->> 'endpoint_id' = endpoint.id::text
                ELSE endpoint.types IS NULL OR page.type = ANY (endpoint.types) END
    ON CONFLICT (endpoint_id, event_seq) DO UPDATE
        SET state = 'pending', due_at = now(), attempts = 0, ended_at = NULL WHERE deliveries.state <> 'pending'
    RETURNING 1
)
UPDATE webhook_endpoints AS endpoint
   SET next_due_at = least(next_due_at, greatest(now(), paused_until)),
       replay_after = CASE WHEN pages.count = {REPLAYED_AT_ONCE} THEN pages.last_seq END
  FROM (SELECT count(*), max(seq) AS last_seq FROM page) AS pages
 WHERE endpoint.id = $1
RETURNING (SELECT count(*) FROM added) AS added
"""  # noqa: S608


class PostgresReplays:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def advance(self) -> int:
        async with driver_connection(self._engine) as driver, driver_transaction(driver, "advance_replay"):
            endpoint_id = await driver.fetchval(_NEXT_REPLAY)
            return 0 if endpoint_id is None else int(await driver.fetchval(_REPLAY, endpoint_id) or 0) + 1
