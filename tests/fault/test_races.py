"""Everybody who may end a job comes at once; one of them does."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.steps import RetryLater
from app.domain.errors import JobFinished
from app.domain.jobs import JobStatus, Outcome
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import COST_TOKENS, Connection, Customer, balance_of, connect, jobs_of, open_account
from tests.fault.steps import Event, Steps, open_steps
from tests.simulator_server import running_simulator
from tests.torture_report import report

JOBS = int(os.environ.get("RACING_JOBS", "24"))
JOBS_AT_ONCE = 8
EVENT_COPIES = 10
TIMED_OUT = Outcome.failed("timed_out", "fal did not finish within the time limit.")

pytestmark = pytest.mark.timeout(300 + JOBS)

# Each time a job becomes final, or changes what a final one says.
COUNT_ENDS = """
CREATE TABLE ends (job_id uuid);
CREATE FUNCTION count_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.is_final AND (OLD.status, OLD.result, OLD.refunded_tokens)
        IS DISTINCT FROM (NEW.status, NEW.result, NEW.refunded_tokens)
    THEN INSERT INTO ends VALUES (NEW.id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER count_ends AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION count_end();
"""


@pytest.fixture
def simulator() -> Iterator[str]:
    with running_simulator(run_seconds_image=0) as url:
        yield url


@pytest.fixture
async def steps(database: str, simulator: str) -> AsyncIterator[Steps]:
    async with open_steps(database, simulator) as steps:
        yield steps


@pytest.fixture
async def sql(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        await connection.execute(COUNT_ENDS)
        yield connection


async def run_until_final(steps: Steps, job_id: UUID) -> None:
    while True:
        try:
            return await steps.follow(job_id)
        except RetryLater:
            await asyncio.sleep(0.02)


async def after(seconds: float, racer: Awaitable[object]) -> None:
    await asyncio.sleep(seconds)
    await racer


async def look(steps: Steps, job_id: UUID) -> None:
    try:
        await steps.follow(job_id)
    except RetryLater:
        return


async def cancel(steps: Steps, customer: Customer, job_id: UUID) -> None:
    try:
        await steps.use_cases.jobs.cancel(customer.account_id, job_id)
    except JobFinished:
        return


async def start_all(steps: Steps, customer: Customer, prompts: list[str]) -> list[UUID]:
    """Submitted, one after the other."""
    job_ids = []
    for prompt in prompts:
        job_id = await steps.start(customer, prompt)
        await steps.submit(job_id)
        job_ids.append(job_id)
    return job_ids


async def assert_each_ended_once(
    name: str, engine: AsyncEngine, sql: Connection, customer: Customer, job_ids: list[UUID]
) -> dict[UUID, JobStatus]:
    ends = {row["id"]: JobStatus(row["status"]) for row in await sql.fetch("SELECT id, status FROM jobs")}
    writes = Counter(row["job_id"] for row in await sql.fetch("SELECT job_id FROM ends"))
    violations = await PostgresLedger(engine).violations()
    counts = Counter(end.value for end in ends.values())
    report(
        name, {"jobs": len(job_ids), "ends": counts, "terminal_writes": writes.total(), "violations": len(violations)}
    )
    assert ends.keys() == set(job_ids)
    assert writes == dict.fromkeys(job_ids, 1)
    assert await balance_of(engine, customer) == COST_TOKENS * (len(job_ids) - counts["COMPLETED"])
    assert violations == []
    return ends


async def test_look_event_cancel_and_time_limit_at_once_end_each_job_once(
    steps: Steps, engine: AsyncEngine, sql: Connection
) -> None:
    customer = await open_account(engine, JOBS * COST_TOKENS)
    words = ["", "[fail]"]
    job_ids = await start_all(steps, customer, [f"{number} {words[number % 2]}" for number in range(JOBS)])
    events = await steps.events(JOBS)
    tokens = {row["id"]: row["attempt_token"] for row in await sql.fetch("SELECT id, attempt_token FROM jobs")}

    def hear(event: Event) -> Awaitable[None]:
        return steps.use_cases.receive_provider_event(event.attempt_token, event.headers, event.body)

    async def race(number: int, job_id: UUID) -> None:
        racers: list[Awaitable[object]] = [
            *(hear(events[tokens[job_id]]) for _ in range(EVENT_COPIES)),
            *(look(steps, job_id) for _ in range(2)),
            *(cancel(steps, customer, job_id) for _ in range(2)),
        ]
        others = asyncio.gather(*(after(random.uniform(0, 0.1), racer) for racer in racers))
        # The time limit needs one statement, the others a look at fal or a signature first.
        head_start = random.uniform(0, 2)
        if number % 4 == 0:
            # Who wins else is up to the machine. Here the time limit surely comes too late.
            await others
            head_start = 0
        await asyncio.gather(others, after(head_start, jobs_of(engine).settle(job_id, TIMED_OUT)))

    numbered = list(enumerate(job_ids))
    # For one it surely comes first, whose run would not have failed.
    await jobs_of(engine).settle(job_ids[2], TIMED_OUT)
    for start in range(0, JOBS, JOBS_AT_ONCE):
        await asyncio.gather(*(race(*each) for each in numbered[start : start + JOBS_AT_ONCE]))

    ends = await assert_each_ended_once("racing_finishers", engine, sql, customer, job_ids)
    assert len(set(ends.values())) > 1, "one of the racers always won"


async def test_a_cancel_and_a_run_that_ends_agree_with_what_fal_did(
    steps: Steps, engine: AsyncEngine, sql: Connection, simulator: str
) -> None:
    """A job is refunded only where fal was told to stop and stopped; otherwise it is delivered and charged."""
    customer = await open_account(engine, JOBS * COST_TOKENS)
    job_ids = [await steps.start(customer, f"{number} [slow:1] [webhook:never]") for number in range(JOBS)]

    async def cancel_after(seconds: float, job_id: UUID) -> None:
        await asyncio.sleep(seconds)
        await cancel(steps, customer, job_id)

    async def race(job_id: UUID, seconds: float) -> None:
        await steps.submit(job_id)
        await asyncio.gather(cancel_after(seconds, job_id), run_until_final(steps, job_id))

    for start in range(0, JOBS, JOBS_AT_ONCE):
        racing = job_ids[start : start + JOBS_AT_ONCE]
        await asyncio.gather(*(race(job_id, 2 * number / JOBS_AT_ONCE) for number, job_id in enumerate(racing)))

    ends = await assert_each_ended_once("cancel_against_completion", engine, sql, customer, job_ids)
    async with httpx.AsyncClient(base_url=simulator, trust_env=False, timeout=60) as fal:
        requests = (await fal.get("/_sim/requests")).json()["requests"]
    codes = {request["request_id"]: request["result_status_code"] for request in requests}
    stored = {row["id"]: row["fal_request_id"] for row in await sql.fetch("SELECT id, fal_request_id FROM jobs")}
    found = Counter((end.value, codes[stored[job_id]]) for job_id, end in ends.items())
    assert found.keys() == {("COMPLETED", 200), ("CANCELED", 499)}
