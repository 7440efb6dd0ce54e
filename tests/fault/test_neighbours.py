"""Whatever one account sends, another account's picture is there within twice the time that it takes alone."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from uuid import UUID

import pytest

from app.application.execution.pauses import NEWCOMER_SECONDS_MIN
from app.application.execution.steps import SUBMISSIONS
from app.domain.errors import JobFinished
from app.domain.kinds import GenerationKind
from tests.builders import COST_TOKENS, Customer, open_account, until, wish
from tests.fault.fal_world import World, open_world
from tests.media_samples import four_corners, saved
from tests.simulator_server import running_simulator

# What is proven is a time, and the time of an attack that is fended off is mostly the processor's.
pytestmark = pytest.mark.alone

JOBS = 100
BALANCE_TOKENS = 100_000
QUEUE_SECONDS, RUN_SECONDS = 0.5, 2.5
# What was sent before is under way everywhere by then.
HEAD_START_SECONDS = 1.0
PICTURE = "data:image/png;base64," + b64encode(saved(four_corners(512, 512), "PNG")).decode()

Attack = Callable[[World, Customer], Awaitable[None]]


@pytest.fixture
def fal_url() -> Iterator[str]:
    with running_simulator(queue_seconds=QUEUE_SECONDS, run_seconds_image=RUN_SECONDS) as url:
        yield url


@pytest.fixture
async def world(fal_url: str, database: str) -> AsyncIterator[World]:
    async with open_world(fal_url, database) as world:
        await world.start_over(BALANCE_TOKENS)
        world.runtime.runner.start()
        try:
            yield world
        finally:
            # What hangs at fal is not waited for.
            world.runtime.runner.begin_stop(at_once=True)
            await world.runtime.runner.stop()


async def picture_seconds(world: World, customer: Customer, after_seconds: float = 0) -> float:
    await asyncio.sleep(after_seconds)
    began = time.monotonic()
    job_id = await world.accept("", customer=customer)
    await until(lambda: world.is_final(job_id), seconds=60)
    assert (await world.columns(job_id))["status"] == "COMPLETED"
    return time.monotonic() - began


def jobs(*words: str, count: int = JOBS) -> Attack:
    """So many jobs, with the words in turn."""

    async def attack(world: World, attacker: Customer) -> None:
        await asyncio.gather(*(world.accept(words[number % len(words)], customer=attacker) for number in range(count)))

    return attack


def large_inputs(words: str) -> Attack:
    async def attack(world: World, attacker: Customer) -> None:
        parameters = {"prompt": words, "image_urls": [PICTURE]}
        # More at once would be sent away by who looks at the pictures.
        places = asyncio.Semaphore(4)

        async def start() -> None:
            async with places:
                asked = wish(parameters, GenerationKind.IMAGE_TO_IMAGE)
                await world.customers.jobs.start(attacker.account_id, asked)

        await asyncio.gather(*(start() for _ in range(JOBS)))

    return attack


def cancels(words: str) -> Attack:
    """Of jobs that are at fal, where the answer to each cancel hangs."""

    async def attack(world: World, attacker: Customer) -> None:
        job_ids = [await world.accept(words, customer=attacker) for _ in range(2 * JOBS)]

        async def are_at_fal() -> bool:
            return not await world.sql.fetchval(
                "SELECT count(*) FROM jobs WHERE account_id = $1 AND fal_request_id IS NULL", attacker.account_id
            )

        await until(are_at_fal)
        cancels = [asyncio.create_task(cancel(world, attacker, job_id)) for job_id in job_ids]
        await asyncio.wait(cancels, timeout=HEAD_START_SECONDS)

    return attack


async def cancel(world: World, customer: Customer, job_id: UUID) -> None:
    with suppress(JobFinished):
        await world.customers.jobs.cancel(customer.account_id, job_id)


@pytest.mark.parametrize(
    "attack",
    [
        *(
            pytest.param(jobs(f"[submit:{fault}]"), id=f"submit {fault}")
            for fault in ("500", "401", "429", "drop", "hang", "not-json")
        ),
        pytest.param(jobs("", "[submit:500]"), id="every other submit 500"),
        pytest.param(jobs("[submit:403]", "[submit:hang]", "[submit:502]", "[submit:425]"), id="submits in turn"),
        *(
            pytest.param(jobs(f"[slow:600] [status:{fault}]"), id=f"status {fault}")
            for fault in ("hang", "500", "slow")
        ),
        pytest.param(jobs("[result:hang]"), id="result hang"),
        pytest.param(large_inputs("[submit:hang]"), id="large inputs, submit hang"),
        pytest.param(cancels("[stuck] [cancel:hang]"), id="cancel hang"),
    ],
)
async def test_another_accounts_picture_takes_at_most_twice_its_time(world: World, attack: Attack) -> None:
    """Alone it takes a little longer than fal's own time."""
    attacker, neighbour = world.customer, await open_account(world.engine, 10 * COST_TOKENS)

    await attack(world, attacker)
    at_once, later = await asyncio.gather(
        picture_seconds(world, neighbour), picture_seconds(world, neighbour, HEAD_START_SECONDS)
    )

    assert max(at_once, later) <= 2 * (QUEUE_SECONDS + RUN_SECONDS)
    assert await world.runtime.operator.ledger.violations() == []


async def test_one_account_is_not_let_through_to_fal_again_and_again(world: World) -> None:
    """Slowing it down alone is as good as a breaker for everybody: fal is asked no more often."""
    await jobs("[submit:500]", count=2 * JOBS)(world, world.customer)
    await asyncio.sleep(8)

    posts = (await world.simulator.get("/_sim/posts")).json()["posts"]
    rows = await world.sql.fetch("SELECT status, count(*) FROM jobs GROUP BY status")
    # Those that were under way when the first failures came.
    assert len(posts) <= SUBMISSIONS.provider_calls_max
    assert {row["status"]: row["count"] for row in rows} == {"SUBMITTING": len(posts), "QUEUED": 2 * JOBS - len(posts)}


async def test_several_accounts_of_one_attacker_hold_up_nobody_for_long(world: World) -> None:
    attackers = [await open_account(world.engine, BALANCE_TOKENS) for _ in range(4)]
    neighbour = await open_account(world.engine, 10 * COST_TOKENS)
    for attacker in attackers:
        await jobs("[submit:500]", count=JOBS // 4)(world, attacker)

    async def everything_pauses() -> bool:
        return str((await world.readiness())[1]["detail"]).startswith("submissions pause")

    await until(everything_pauses)
    at_once, later = await asyncio.gather(
        picture_seconds(world, neighbour), picture_seconds(world, neighbour, HEAD_START_SECONDS)
    )

    # The first one may have to wait before it tries, and the other one for that.
    assert max(at_once, later) <= 2 * (NEWCOMER_SECONDS_MIN + QUEUE_SECONDS + RUN_SECONDS)
    assert (await world.readiness())[1]["detail"].startswith("submissions go on")
