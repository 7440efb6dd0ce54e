"""Asks the three witnesses, once everything has come to an end."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import asyncpg
import httpx

from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.ledger import PostgresLedger
from torture.books import Evidence, Post, Row
from torture.callers import Book, Callers
from torture.fleet import TIME_LIMIT_SECONDS, Fleet

# A lost claim is noticed after 30 s and looked at each 10 s, a dead worker's items are taken over after 10 s, and a job
# without an item is found once a minute.
SETTLED_SECONDS_MAX = TIME_LIMIT_SECONDS + 180
_ROWS = """
    SELECT jobs.id::text, external_user_id::text AS user_id, parameters->>'prompt' AS prompt, status, cost_tokens,
           refunded_tokens, result IS NOT NULL AS has_result, error_code, fal_request_id
      FROM jobs JOIN accounts ON accounts.id = jobs.account_id
"""
_OVER_BUDGET = """
    SELECT format('%s of %s', starts_at, key_id) AS window FROM key_windows WHERE spent_tokens > limit_tokens
"""


async def until_settled(fleet: Fleet) -> float:
    """Until no job is unfinished, or nothing more can be waited for; how many seconds that took."""
    began = time.monotonic()
    connection = await asyncpg.connect(fleet.postgres.dsn, server_settings={"application_name": "torture"})
    try:
        while time.monotonic() - began < SETTLED_SECONDS_MAX:
            if not await connection.fetchval("SELECT count(*) FROM jobs WHERE NOT is_final"):
                break
            await asyncio.sleep(0.5)
    finally:
        await connection.close()
    return time.monotonic() - began


async def evidence_of(fleet: Fleet, callers: Callers, books: list[Book]) -> Evidence:
    views = {book.user_id: await callers.list_jobs(book) for book in books}
    balances = {book.user_id: await callers.balance_tokens(book) for book in books}
    connection = await asyncpg.connect(fleet.postgres.dsn)
    try:
        rows = [Row(**row) for row in await connection.fetch(_ROWS)]
        keys = {
            row["key"]: row["job"]
            for row in await connection.fetch("SELECT key, job_id::text AS job FROM idempotency_keys")
        }
        over_budget = await connection.fetch(_OVER_BUDGET)
    finally:
        await connection.close()
    return Evidence(
        books=books,
        views=views,
        balances=balances,
        rows={row.id: row for row in rows},
        keys=keys,
        posts=await _posts(fleet),
        windows_over_budget=[row["window"] for row in over_budget],
        has_webhooks="PUBLIC_URL" in fleet.settings,
        ledger_violations=await ledger_violations(fleet.postgres.dsn),
    )


async def ledger_violations(dsn: str) -> list[str]:
    async with open_engine(dsn) as engine:
        return [f"{found.invariant}: {found.subject}" for found in await PostgresLedger(engine).violations()]


async def _posts(fleet: Fleet) -> list[Post]:
    async with httpx.AsyncClient(base_url=fleet.simulator_url, trust_env=False, timeout=60) as fal:
        requests = (await fal.get("/_sim/requests")).raise_for_status().json()["requests"]
    return [
        Post(
            request_id=request["request_id"],
            prompt=request["input"]["prompt"],
            attempt_token=_attempt_of(request["attempt"]),
            has_succeeded=request["result_status_code"] == 200,
            is_canceled=request["cancel_requested_at"] is not None,
        )
        for request in requests
    ]


def _attempt_of(attempt: Mapping[str, Any] | None) -> str | None:
    """Its token where fal is to call, else the tags that name job and number."""
    if attempt is None:
        return None
    return (attempt["webhook_url"] or "").rpartition("/")[2] or str(attempt["tags"])


def ends(evidence: Evidence) -> dict[str, int]:
    """How many jobs ended how, for the table."""
    return dict(Counter(row.error_code or row.status for row in evidence.rows.values()).most_common())
