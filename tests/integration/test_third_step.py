"""A third step, added as a release would add one: a row of the registry. What it looks after is no job."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Boolean, Uuid, column, select, table, update
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from app.application.execution.steps import (
    CANCEL_ORPHANS,
    COPY_OUTPUTS,
    ERASE_FILE,
    ERASE_MEDIA,
    FOLLOW_JOB,
    FORGET_INPUT,
    SUBMIT_JOB,
    Lane,
    RetryLater,
    Step,
)
from app.application.ports.provider import Provider
from app.bootstrap import Runtime, build
from app.bootstrap import steps as registry
from app.domain.jobs import JobStatus
from app.infrastructure.background import lanes as lanes_module
from app.infrastructure.background import runner as runner_module
from app.infrastructure.postgres.queue import enqueue
from app.infrastructure.settings import load_settings
from tests.builders import (
    Connection,
    accept_job,
    claimed_job,
    connect,
    job_in,
    jobs_of,
    open_account,
    until,
)

PARCELS = table("parcels", column("id", Uuid), column("is_waiting", Boolean))
CREATE_PARCELS = "CREATE TABLE parcels (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), is_waiting bool NOT NULL)"
SEND_PARCEL = Step("parcel.send", subject="parcel", lane=Lane("parcels", concurrent_steps_max=4))
IN_THE_LANE_OF_LOOKS = Step("parcel.send", subject="parcel", lane=FOLLOW_JOB.lane)
# An item as the queue keeps it: the name of its step, and the id of its subject.
Item = tuple[str, UUID]


@dataclass(slots=True)
class SendParcel:
    """Notes for which parcel it ran, and then does what a test wants."""

    then: Callable[[UUID], Awaitable[None]] | None = None
    seen: list[UUID] = field(default_factory=list)

    async def __call__(self, parcel_id: UUID) -> None:
        self.seen.append(parcel_id)
        if self.then is not None:
            await self.then(parcel_id)

    async def until_seen(self, *parcel_ids: UUID) -> None:
        async def have_come() -> bool:
            return sorted(self.seen) == sorted(parcel_ids)

        await until(have_come)


@pytest.fixture
async def sql(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        await connection.execute(CREATE_PARCELS)
        yield connection


@pytest.fixture(params=[SEND_PARCEL, IN_THE_LANE_OF_LOOKS], ids=["own-lane", "shared-lane"])
def step(request: pytest.FixtureRequest) -> Step:
    return cast(Step, request.param)


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch, step: Step) -> SendParcel:
    """Its handler, in the row that is all that a third step needs."""
    send = SendParcel()
    row = registry.StepDefinition(
        step, waiting=select(PARCELS.c.id).where(PARCELS.c.is_waiting), handler=lambda _: send
    )
    monkeypatch.setattr(registry, "STEPS", (*registry.STEPS, row))
    return send


@asynccontextmanager
async def service(database: str) -> AsyncIterator[Runtime]:
    """The whole service, with its runner at work."""
    settings = load_settings(_env_file=None, database_url=SecretStr(database), fal_key=SecretStr("test:key"))
    async with build(settings, provider=cast(Provider, None)) as runtime:

        async def is_working() -> bool:
            return (await runtime.runner.check()).ok

        runtime.runner.start()
        try:
            await until(is_working)
            yield runtime
        finally:
            await runtime.runner.stop()


async def parcel(sql: Connection, *, is_waiting: bool = True) -> UUID:
    parcel_id: UUID = await sql.fetchval("INSERT INTO parcels (is_waiting) VALUES ($1) RETURNING id", is_waiting)
    return parcel_id


async def queue(engine: AsyncEngine, step: Step, *subject_ids: UUID) -> None:
    async with engine.begin() as connection:
        await enqueue(connection, step, subject_ids)


async def items(sql: Connection) -> list[Item]:
    rows = await sql.fetch("SELECT entrypoint, payload FROM pgqueuer ORDER BY entrypoint, payload")
    return [(row["entrypoint"], UUID(bytes=row["payload"])) for row in rows]


async def until_items(sql: Connection, expected: list[Item]) -> None:
    async def are_there() -> bool:
        return await items(sql) == expected

    await until(are_there)


async def not_due(sql: Connection) -> None:
    """What is queued by now is none of the test's business."""
    await sql.execute("UPDATE pgqueuer SET execute_after = now() + interval '1 hour'")


async def test_runs_when_it_is_queued(
    engine: AsyncEngine,
    database: str,
    sql: Connection,
    *,
    step: Step,
    send: SendParcel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing but the queue's word wakes its lane."""
    monkeypatch.setattr(lanes_module, "DEQUEUE_TIMEOUT_SECONDS", 600)
    parcel_ids = []

    async with service(database):
        for _ in range(3):
            # Long enough for a lane that looks by itself to have gone to sleep.
            await asyncio.sleep(0.3)
            parcel_ids.append(await parcel(sql))
            await queue(engine, step, parcel_ids[-1])
            await send.until_seen(*parcel_ids)
        await until_items(sql, [])


async def test_runs_again_when_it_asks_for_that(
    engine: AsyncEngine, database: str, sql: Connection, step: Step, send: SendParcel
) -> None:
    parcel_id = await parcel(sql)

    async def ask_once(_: UUID) -> None:
        if len(send.seen) == 1:
            raise RetryLater(0.1)

    send.then = ask_once
    async with service(database):
        await queue(engine, step, parcel_id)
        await send.until_seen(parcel_id, parcel_id)
        await until_items(sql, [])


async def test_a_failure_names_the_parcel_and_keeps_its_item(
    engine: AsyncEngine, database: str, sql: Connection, step: Step, send: SendParcel
) -> None:
    parcel_id = await parcel(sql)

    async def fail(_: UUID) -> None:
        raise ZeroDivisionError

    send.then = fail
    with capture_logs() as logs:
        async with service(database):
            await queue(engine, step, parcel_id)
            await send.until_seen(parcel_id)

    (failed,) = [log for log in logs if log["event"] == "step_failed"]
    assert (failed["step"], failed["parcel_id"]) == ("parcel.send", str(parcel_id))
    assert await items(sql) == [("parcel.send", parcel_id)]


async def test_a_stop_gives_it_back(
    engine: AsyncEngine, database: str, sql: Connection, step: Step, send: SendParcel
) -> None:
    parcel_id = await parcel(sql)

    async def never_end(_: UUID) -> None:
        await asyncio.Event().wait()

    send.then = never_end
    async with service(database) as runtime:
        await queue(engine, step, parcel_id)
        await send.until_seen(parcel_id)
        runtime.runner.begin_stop(at_once=True)
        async with asyncio.timeout(20):
            await runtime.runner.stop()

    assert await items(sql) == [("parcel.send", parcel_id)]
    query = "SELECT status::text FROM pgqueuer WHERE queue_manager_id IS NULL AND execute_after <= clock_timestamp()"
    assert await sql.fetchval(query) == "queued"


async def test_the_sweep_of_the_service_finds_it(
    engine: AsyncEngine, database: str, sql: Connection, send: SendParcel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is queued for it, and nothing because of it."""
    monkeypatch.setattr(runner_module, "HOUSEKEEPING_SECONDS", 0.1)
    customer = await open_account(engine, 100)
    for status in JobStatus:
        await job_in(engine, customer, status)
    await not_due(sql)
    before = await items(sql)

    async def arrive(parcel_id: UUID) -> None:
        async with engine.begin() as connection:
            await connection.execute(update(PARCELS).where(PARCELS.c.id == parcel_id).values(is_waiting=False))

    send.then = arrive
    await parcel(sql, is_waiting=False)
    with capture_logs() as logs:
        async with service(database):
            lost = await parcel(sql)
            await send.until_seen(lost)
            await until_items(sql, before)

    requeued = [log for log in logs if log["event"].endswith("_requeued")]
    assert {(log["event"], log["step"], log["parcel_id"]) for log in requeued} == {
        ("parcel_requeued", "parcel.send", str(lost))
    }


async def test_the_sweep_queues_for_each_subject_the_step_that_it_waits_for(
    engine: AsyncEngine, database: str, sql: Connection, send: SendParcel, step: Step
) -> None:
    customer = await open_account(engine, 100)
    ids = {status: await job_in(engine, customer, status) for status in JobStatus}
    unknown, attempt_token = await claimed_job(engine, customer)
    await jobs_of(engine).record_submit_unknown(unknown, attempt_token, "no answer")
    looked_after, lost = await parcel(sql), await parcel(sql)
    await sql.execute("DELETE FROM pgqueuer")
    await queue(engine, step, looked_after)

    requeued = await registry.lost_steps(engine).requeue_lost()

    assert {step: sorted(subject_ids) for step, subject_ids in requeued.items()} == {
        SUBMIT_JOB: sorted(ids[status] for status in (JobStatus.QUEUED, JobStatus.SUBMITTING)),
        FOLLOW_JOB: sorted(
            [*(ids[status] for status in (JobStatus.SUBMITTED, JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS)), unknown]
        ),
        FORGET_INPUT: [],
        CANCEL_ORPHANS: [],
        COPY_OUTPUTS: [ids[JobStatus.COMPLETED]],
        ERASE_MEDIA: [],
        ERASE_FILE: [],
        step: [lost],
    }
    found = [(step.name, subject_id) for step, subject_ids in requeued.items() for subject_id in subject_ids]
    assert await items(sql) == sorted([*found, (step.name, looked_after)])


async def test_the_operator_requeues_the_one_subject_that_is_asked_for(
    engine: AsyncEngine, database: str, sql: Connection, send: SendParcel, step: Step
) -> None:
    job_id = await accept_job(engine, await open_account(engine, 100))
    lost, _ = await parcel(sql), await parcel(sql)
    await sql.execute("DELETE FROM pgqueuer")
    settings = load_settings(_env_file=None, database_url=SecretStr(database), fal_key=SecretStr("test:key"))

    async with build(settings, provider=cast(Provider, None)) as runtime:
        requeue = runtime.operator.steps.requeue_lost
        requeued = [await requeue(each) for each in (lost, job_id, uuid4())]

    assert [{step.name: ids for step, ids in each.items() if ids} for each in requeued] == [
        {"parcel.send": [lost]},
        {"generation.submit": [job_id]},
        {},
    ]
    assert await items(sql) == [("generation.submit", job_id), ("parcel.send", lost)]


async def test_a_release_without_it_leaves_its_items_alone(engine: AsyncEngine, database: str, sql: Connection) -> None:
    """As a process of the release before does while both run."""
    parcel_id = await parcel(sql)
    await queue(engine, SEND_PARCEL, parcel_id)
    before = await sql.fetch("SELECT * FROM pgqueuer")

    async with service(database):
        # Longer than a lane sleeps, twice.
        await asyncio.sleep(1.2)

    assert await sql.fetch("SELECT * FROM pgqueuer") == before
