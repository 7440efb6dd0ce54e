"""Every kind of limit at once, from four processes: never one too many, and nothing refused that fitted.

Nothing comes back while a round lasts, so what a purse holds only falls: an order that was refused for a purse which
in the end holds enough for it was refused although it fitted.

LIMITED_REQUESTS sets how many requests, LIMITED_SEED what they are, TORTURE_REPORT a file that gets the figures.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import ApiKey
from app.domain.budgets import AccountLimits, Budget, Period
from app.domain.errors import DomainError
from app.domain.orders import IdempotencyKey
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import Connection, Customer, find_caller, new_job, open_account, open_key
from tests.torture_report import report

REQUESTS = int(os.environ.get("LIMITED_REQUESTS", "3000"))
SEED = int(os.environ.get("LIMITED_SEED", "1"))
PROCESSES = 4
REQUESTS_OF_A_ROUND = 3_000
AT_ONCE = 150
COST_TOKENS_MAX = 9
PLENTY = 10**9
# Those of the service, for the accounts that have none of their own.
DEFAULTS = AccountLimits(unfinished_jobs_max=0, writes_per_minute=0)
# What the code of a refusal says is short.
PURSES = {
    "insufficient_balance": "balance",
    "budget_exceeded": "budget",
    "too_many_jobs": "unfinished_jobs",
    "too_many_writes": "writes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """An account and its key, and what each of its purses holds when a round begins."""

    customer: Customer
    key: ApiKey
    purses: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    limited: Limited
    cost_tokens: int
    name: str | None


async def opened(engine: AsyncEngine, sql: Connection, purses: Mapping[str, int], per: Period) -> Limited:
    customer = await open_account(engine, purses.get("balance", PLENTY))
    budget = Budget(purses["budget"], per) if "budget" in purses else None
    secret = await open_key(engine, customer, budget=budget)
    await sql.execute(
        "UPDATE accounts SET unfinished_jobs_max = $2, writes_per_minute = $3 WHERE id = $1",
        customer.account_id,
        purses.get("unfinished_jobs"),
        purses.get("writes"),
    )
    return Limited(customer=customer, key=(await find_caller(engine, secret)).key, purses=purses)


async def round_of(engine: AsyncEngine, sql: Connection, requests: int, chance: random.Random) -> Sequence[Asked]:
    """About half of what each account asks for fits."""
    share = requests // 8
    tokens, jobs = share * (1 + COST_TOKENS_MAX) // 4, share // 2
    each = [
        {"balance": tokens},
        *({"budget": tokens} for _ in range(3)),
        {"unfinished_jobs": jobs},
        {"writes": jobs},
        {"balance": tokens, "budget": tokens + 1, "unfinished_jobs": jobs + 2, "writes": jobs + 3},
        {"balance": tokens + 2, "budget": tokens, "unfinished_jobs": jobs},
    ]
    periods = list(Period)
    limited = [await opened(engine, sql, purses, periods[place % 3]) for place, purses in enumerate(each)]
    return [
        Asked(
            limited=chance.choice(limited),
            cost_tokens=chance.randint(1, COST_TOKENS_MAX),
            name=str(uuid4()) if chance.random() < 0.3 else None,
        )
        for _ in range(requests)
    ]


def ask(dsn: str, asked: Sequence[Asked]) -> list[str]:
    """In a process of its own."""
    return asyncio.run(_ask(dsn, asked))


async def _ask(dsn: str, asked: Sequence[Asked]) -> list[str]:
    turns = asyncio.Semaphore(AT_ONCE)
    async with open_engine(dsn) as engine:
        desk = PostgresJobDesk(engine, DEFAULTS)

        async def outcome(one: Asked) -> str:
            job = new_job(one.limited.customer, cost_tokens=one.cost_tokens)
            name = None if one.name is None else IdempotencyKey(one.name, bytes(32))
            async with turns:
                try:
                    await desk.accept(job, name, one.limited.key)
                except DomainError as error:
                    return error.code
            return "accepted"

        return list(await asyncio.gather(*map(outcome, asked)))


async def check_round(sql: Connection, asked: Sequence[Asked], outcomes: Sequence[str]) -> Counter[str]:
    """Returns what was seen, by its name."""
    seen = Counter(outcomes)
    assert seen.keys() <= {"accepted", *PURSES}, seen
    drawn: dict[tuple[UUID, str], int] = Counter()
    for one, outcome in zip(asked, outcomes, strict=True):
        if outcome == "accepted":
            for purse in one.limited.purses:
                drawn[one.limited.key.id, purse] += one.cost_tokens if purse in ("balance", "budget") else 1
    writes = await _writes_by_minute(sql, asked)
    for one, outcome in zip(asked, outcomes, strict=True):
        key_id, purses = one.limited.key.id, one.limited.purses
        for purse, held in purses.items():
            if purse == "writes":
                # Who begins in one minute and is counted in the next one stands in the first one.
                assert sum(writes[key_id]) <= held * len(writes[key_id])
            else:
                assert drawn[key_id, purse] <= held
        if outcome in PURSES:
            purse = PURSES[outcome]
            needed = one.cost_tokens if purse in ("balance", "budget") else 1
            if purse != "writes":
                assert purses[purse] - drawn[key_id, purse] < needed, f"{outcome}, although it fitted"
            elif len(writes[key_id]) == 1:
                assert writes[key_id] == [purses[purse]], f"{outcome}, although it fitted"
    return seen


async def _writes_by_minute(sql: Connection, asked: Sequence[Asked]) -> Mapping[UUID, Sequence[int]]:
    """Of each key, one number for each minute in which it was let through."""
    rows = await sql.fetch(
        "SELECT key_id, count(*) AS jobs FROM jobs WHERE account_id = ANY($1)"
        " GROUP BY key_id, date_trunc('minute', created_at)",
        list({one.limited.customer.account_id for one in asked}),
    )
    writes: dict[UUID, list[int]] = {one.limited.key.id: [] for one in asked}
    for row in rows:
        writes[row["key_id"]].append(row["jobs"])
    return writes


@pytest.mark.timeout(300 + REQUESTS / 100)
async def test_limits_hold_to_the_token_over_processes(engine: AsyncEngine, sql: Connection, database: str) -> None:
    chance, began = random.Random(SEED), time.monotonic()
    seen: Counter[str] = Counter()
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        while seen.total() < REQUESTS:
            asked = await round_of(engine, sql, min(REQUESTS_OF_A_ROUND, REQUESTS - seen.total()), chance)
            shares = [asked[place::PROCESSES] for place in range(PROCESSES)]
            loop = asyncio.get_running_loop()
            answers = await asyncio.gather(*(loop.run_in_executor(pool, ask, database, share) for share in shares))
            asked = [one for share in shares for one in share]
            seen += await check_round(sql, asked, [outcome for share in answers for outcome in share])
            spent = await sql.fetchval("SELECT count(*) FROM key_windows WHERE spent_tokens > limit_tokens")
            assert spent == 0
            # Rounds do not look at each other's jobs.
            assert await PostgresLedger(engine).violations() == [] if seen.total() >= REQUESTS else True

    report("limits", {"limited_requests": seen.total(), **seen, "seconds": time.monotonic() - began, "seed": SEED})
    assert set(PURSES) <= seen.keys()
    assert 0.3 < seen["accepted"] / seen.total() < 0.7
