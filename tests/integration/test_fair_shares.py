"""What one account's crowd of waiting jobs costs another account: a wait for the next place that comes free.

FAIR_WAITING and FAIR_PICTURES take the numbers of `make torture`.
"""

import asyncio
import os
import random
import statistics
from collections import Counter
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.builders import Connection, Customer, jobs_of, new_job, open_account, until
from tests.integration.fal_with_places import CountingFal, services
from tests.torture_report import report

WAITING = int(os.environ.get("FAIR_WAITING", "200"))
PICTURES = int(os.environ.get("FAIR_PICTURES", "8"))
# By the number of places: long enough for the time between two that come free to be seen.
RUN_SECONDS = {2: 0.4, 10: 1.5, 40: 4.0}
SHARE_SECONDS = 8

pytestmark = pytest.mark.timeout(300 + WAITING / 20 + PICTURES * 10)


async def accept(engine: AsyncEngine, customer: Customer, count: int, *, expected_seconds: int = 10) -> list[UUID]:
    jobs = jobs_of(engine)
    orders = [
        replace(new_job(customer, expected_seconds=expected_seconds), parameters={"prompt": "run"})
        for _ in range(count)
    ]
    accepted: list[UUID] = []
    for begin in range(0, count, 500):
        batch = await asyncio.gather(*(jobs.accept(order) for order in orders[begin : begin + 500]))
        accepted += [one.job.id for one in batch]
    return accepted


async def waits(engine: AsyncEngine, fal: CountingFal, customer: Customer, places: int) -> list[float]:
    """Of pictures one after the other, from the accept to the submission."""
    loop, found = asyncio.get_running_loop(), []
    for _ in range(PICTURES):
        # Far less than half of what there is.
        await asyncio.sleep(random.uniform(2, 6) * fal.run_seconds / places)
        accepted_at = loop.time()
        (job_id,) = await accept(engine, customer, 1)
        found.append(await fal.begun_at(job_id) - accepted_at)
    return found


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1]


@pytest.mark.alone
@pytest.mark.parametrize("places", RUN_SECONDS)
async def test_a_light_user_waits_for_the_next_place_and_not_for_the_crowd(
    engine: AsyncEngine, database: str, sql: Connection, places: int
) -> None:
    crowd, light = await open_account(engine, 1_000_000), await open_account(engine, 1_000_000)
    fal = CountingFal(engine, run_seconds=RUN_SECONDS[places])
    async with services(database, fal, places, places):
        alone = await waits(engine, fal, light, places)
        await sql.execute("ANALYZE")
        # As after a while of different runs: they do not all end at once.
        fal.spacing_seconds = fal.run_seconds / places
        await accept(engine, crowd, max(WAITING, 20 * places))
        round_over = len(fal.ended) + places
        await until(lambda: _have_ended(fal, round_over), seconds=60)
        beside = await waits(engine, fal, light, places)

        assert await sql.fetchval("SELECT count(*) FROM jobs WHERE NOT is_final") > places
    step = fal.spacing_seconds
    figures = {
        "places": places,
        "waiting": WAITING,
        "pictures": PICTURES,
        "p95_alone": p95(alone),
        "p95_beside": p95(beside),
        "step": step,
    }
    report(f"fair_waits_{places}", figures)
    assert fal.most <= places
    assert p95(beside) <= 2 * step + p95(alone), figures


async def _have_ended(fal: CountingFal, count: int) -> bool:
    """Once each place has come free, they do so evenly, however the crowd came."""
    return len(fal.ended) >= count


async def test_accounts_that_wait_share_the_places_by_their_weights(
    engine: AsyncEngine, database: str, sql: Connection
) -> None:
    weights = [1, 1, 2, 4]
    customers = [await open_account(engine, 1_000_000) for _ in weights]
    for customer, weight in zip(customers, weights, strict=True):
        await sql.execute("UPDATE accounts SET weight = $2 WHERE id = $1", customer.account_id, weight)
        await accept(engine, customer, WAITING)
    fal = CountingFal(engine, run_seconds=0.2)
    async with services(database, fal, 4, 4):
        await asyncio.sleep(SHARE_SECONDS)
        rows = await sql.fetch("SELECT account_id FROM jobs WHERE attempts > 0")

    served = Counter(row["account_id"] for row in rows)
    assert served.total() < 2 * WAITING
    for customer, weight in zip(customers, weights, strict=True):
        # Of those that run right now nobody has a fraction.
        expected = served.total() * weight / sum(weights)
        assert served[customer.account_id] == pytest.approx(expected, rel=0.05, abs=2), served
