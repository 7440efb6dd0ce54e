"""fal is away, or refuses the key, for longer than a moment: nothing fails, everybody says why, and all goes on."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.builders import COST_TOKENS, balance_of, open_account, until
from tests.fault.fal_world import World, open_world, short_waits
from tests.service_process import free_port
from tests.simulator_server import running_simulator

JOBS = 40
OUTAGE_SECONDS = 700
BALANCE_TOKENS = 1000
# Long enough that jobs which all came back at once would stand out.
PAUSE_SECONDS = 1.0
WINDOW_SECONDS = 0.25
PASS_TIME = """
    UPDATE jobs SET claimed_at = claimed_at - make_interval(secs => $1),
        deadline_at = deadline_at - make_interval(secs => $1)
"""


@pytest.fixture
def fal_url() -> Iterator[str]:
    with running_simulator() as url:
        yield url


@pytest.fixture
async def world(fal_url: str, database: str) -> AsyncIterator[World]:
    with short_waits(PAUSE_SECONDS):
        async with open_world(fal_url, database) as world:
            await world.start_over(BALANCE_TOKENS)
            yield world


async def statuses(world: World) -> dict[str, int]:
    rows = await world.sql.fetch("SELECT status, count(*) FROM jobs GROUP BY status")
    return {row["status"]: row["count"] for row in rows}


async def refunds(world: World) -> int:
    return int(await world.sql.fetchval("SELECT count(*) FROM ledger_entries WHERE kind = 'REFUND'"))


async def posts(world: World) -> list[tuple[float, int]]:
    """When each POST came to fal, and whether it was queued."""
    listed = (await world.simulator.get("/_sim/posts")).json()["posts"]
    return [(datetime.fromisoformat(post["seen_at"]).timestamp(), post["status_code"]) for post in reversed(listed)]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ("[submit:401] [status:401] [result:401] [cancel:401]", "fal refused the key"),
        ("[submit:429] [status:429] [result:429] [cancel:429]", "fal asks to slow down"),
    ],
    ids=["401", "429"],
)
@pytest.mark.parametrize("accounts", [1, 4])
async def test_a_backlog_waits_says_why_and_drains_without_a_burst(
    world: World, faults: str, reason: str, accounts: int
) -> None:
    await world.configure(faults=faults)
    customers = [await open_account(world.engine, BALANCE_TOKENS) for _ in range(accounts)]
    job_ids = [await world.accept("", customer=customers[number % accounts]) for number in range(JOBS)]
    world.runtime.runner.start()
    try:

        async def all_say_why() -> bool:
            rows = await world.sql.fetch("SELECT status, status_reason FROM jobs")
            return {(row["status"], str(row["status_reason"]).partition(" (")[0]) for row in rows} == {
                ("QUEUED", reason)
            }

        await until(all_say_why)
        status_code, check = await world.readiness()
        refused = len(await posts(world))
        await asyncio.sleep(2 * PAUSE_SECONDS)
        tried = len(await posts(world)) - refused
        await world.configure(faults="")

        async def all_are_done() -> bool:
            return await statuses(world) == {"COMPLETED": JOBS}

        await until(all_are_done)
    finally:
        await world.runtime.runner.stop()

    accepted = [seen_at for seen_at, code in await posts(world) if code == 200]
    windows = Counter(math.floor((seen_at - accepted[0]) / WINDOW_SECONDS) for seen_at in accepted)
    assert status_code == 200
    assert "pause" in check["detail"]
    assert check["detail"].endswith(reason)
    # One for each pause; accounts that failed try every other time.
    assert (1 if accounts == 1 else 0) <= tried <= 3
    assert len(accepted) == len(job_ids)
    assert max(windows.values()) <= (JOBS / 2 if accounts == 1 else JOBS * 0.9), windows
    assert (await world.readiness())[1]["detail"] == "submissions go on"
    assert await refunds(world) == 0
    for customer in customers:
        assert await balance_of(world.engine, customer) == BALANCE_TOKENS - JOBS // accounts * COST_TOKENS
    assert await world.runtime.operator.ledger.violations() == []


@pytest.mark.parametrize("faults", ["[submit:500]", "[submit:502]"])
async def test_an_outage_of_the_submissions_is_over_with_the_first_that_fal_takes(world: World, faults: str) -> None:
    """Three accounts meet it; the jobs of those that come later wait and are not lost to it."""
    await world.configure(faults=faults)
    first = [await open_account(world.engine, BALANCE_TOKENS) for _ in range(3)]
    for customer in first:
        await world.accept("", customer=customer)
    world.runtime.runner.start()
    try:

        async def everything_pauses() -> bool:
            return str((await world.readiness())[1]["detail"]).startswith("submissions pause: ")

        await until(everything_pauses)
        began = time.monotonic()
        before = len(await posts(world))
        for _ in range(JOBS):
            await world.accept("", customer=await open_account(world.engine, BALANCE_TOKENS))
        await asyncio.sleep(2 * PAUSE_SECONDS)
        await world.configure(faults="")
        pauses = (time.monotonic() - began) / PAUSE_SECONDS
        lost = sum(code != 200 for _, code in await posts(world))

        async def all_are_done() -> bool:
            return await statuses(world) == {"SUBMITTING": lost, "COMPLETED": 3 + JOBS - lost}

        await until(all_are_done)
    finally:
        await world.runtime.runner.stop()

    assert before == 3
    assert 2 <= lost - before <= pauses + 1
    assert (await world.readiness())[1]["detail"] == "submissions go on"
    assert await world.runtime.operator.ledger.violations() == []


async def test_an_outage_of_more_than_ten_minutes_refunds_nothing(tmp_path: Path, database: str) -> None:
    """fal is gone from the network with all its requests, and comes back with them."""
    port = free_port()
    async with open_world(f"http://127.0.0.1:{port}", database) as world:
        with short_waits(0.02):
            with running_simulator(port=port, state_dir=tmp_path):
                await world.start_over(BALANCE_TOKENS)
                running = [await world.accept("[slow:1]") for _ in range(5)]
                for job_id in running:
                    await world.drive(job_id, until_status=frozenset({"IN_PROGRESS"}))
            waiting = [await world.accept("") for _ in range(10)]
            for _ in range(OUTAGE_SECONDS // 100):
                await world.sql.execute(PASS_TIME, 100)
                for job_id in waiting:
                    assert await world.submit(job_id)
                for job_id in running:
                    await world.look(job_id)
            during = await statuses(world)
            _, check = await world.readiness()
            reasons = await world.sql.fetch("SELECT DISTINCT status_reason FROM jobs WHERE status = 'QUEUED'")
            with running_simulator(port=port, state_dir=tmp_path):
                await world.advance(OUTAGE_SECONDS)
                ends = {await world.drive(job_id) for job_id in running + waiting}
                accepted = len((await world.simulator.get("/_sim/requests")).json()["requests"])

            assert during == {"IN_PROGRESS": 5, "QUEUED": 10}
            assert check["detail"].startswith("submissions pause: fal cannot be reached")
            assert [row["status_reason"].partition(" (")[0] for row in reasons] == ["fal cannot be reached"]
            assert ends == {"COMPLETED"}
            assert accepted == 15
            assert await refunds(world) == 0
            assert await world.balance() == BALANCE_TOKENS - 15 * COST_TOKENS
            assert await world.runtime.operator.ledger.violations() == []
