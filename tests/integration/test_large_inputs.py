"""Pictures and sounds that requests bring along: how many of them, and what is left of them after the job."""

import asyncio
import base64
import hashlib
import json
import random
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.forget import ForgetInput
from app.application.execution.steps import FOLLOW_JOB, FORGET_INPUT, SUBMIT_JOB
from app.bootstrap.steps import STEPS
from app.domain import orders
from app.domain.errors import InsufficientBalance, TooManyLargeInputs
from app.domain.given_media import without_media
from app.domain.jobs import JobStatus, Outcome
from app.domain.orders import IdempotencyKey
from app.infrastructure.postgres.jobs import inputs
from app.infrastructure.postgres.jobs.inputs import PostgresJobInputs
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.builders import (
    RESULT,
    Connection,
    Customer,
    balance_of,
    connect,
    jobs_of,
    new_job,
    open_account,
    provider_request,
    provider_wait,
    queue_items,
    sweep_of,
)


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 100)


PICTURE = random.Random(1).randbytes(20_000)
SOUND = random.Random(2).randbytes(9_000)


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def mark(content: bytes, media_type: str = "image/png") -> dict[str, Any]:
    return {
        "content_type": media_type,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }


GIVEN = {
    "prompt": "data:image/png;base64,AAAA is a text, too",
    "image_urls": [data_uri(PICTURE), "https://example.com/fox.png"],
    "audio_url": data_uri(SOUND, "audio/wav"),
    "image_size": {"width": 1024, "height": 1024},
    "num_images": 1,
    "seed": None,
}
KEPT = {
    **GIVEN,
    "image_urls": [mark(PICTURE), "https://example.com/fox.png"],
    "audio_url": mark(SOUND, "audio/wav"),
}


async def accept(engine: AsyncEngine, customer: Customer, given: Any = GIVEN, key: str | None = None) -> UUID:
    named = None if key is None else IdempotencyKey(key, hashlib.sha256(key.encode()).digest())
    return (await jobs_of(engine).accept(replace(new_job(customer, cost_tokens=1), parameters=given), named)).job.id


async def parameters(sql: Connection, job_id: UUID) -> Any:
    return json.loads(await sql.fetchval("SELECT parameters::text FROM jobs WHERE id = $1", job_id))


async def forget_all(engine: AsyncEngine, sql: Connection) -> set[UUID]:
    """Carry out the steps that are queued."""
    jobs = {job_id for step, job_id in await queue_items(sql) if step == FORGET_INPUT}
    for job_id in jobs:
        await ForgetInput(PostgresJobInputs(engine))(job_id)
    await sql.execute("DELETE FROM pgqueuer WHERE entrypoint = $1", FORGET_INPUT.name)
    return jobs


async def end(engine: AsyncEngine, customer: Customer, job_id: UUID, how: str) -> None:
    jobs, token = jobs_of(engine), uuid4()
    if how == "canceled before the submission":
        await jobs.request_cancel(customer.account_id, job_id)
        return
    assert await jobs.claim(job_id, token) is not None
    if how == "completed":
        assert await jobs.record_submission(job_id, token, provider_request())
        assert await jobs.settle(job_id, Outcome.completed(RESULT))
    elif how == "refused":
        assert await jobs.settle(job_id, Outcome.failed("invalid_input", "No."))
    elif how == "released with a wish to cancel":
        await jobs.request_cancel(customer.account_id, job_id)
        assert not await jobs.release(job_id, token, provider_wait("fal is away"))


@pytest.mark.parametrize(
    "how", ["completed", "refused", "canceled before the submission", "released with a wish to cancel"]
)
async def test_an_ended_job_keeps_digest_and_size_alone(
    engine: AsyncEngine, sql: Connection, customer: Customer, how: str
) -> None:
    job_id = await accept(engine, customer)
    assert await parameters(sql, job_id) == GIVEN

    await end(engine, customer, job_id, how)
    assert await parameters(sql, job_id) == GIVEN
    updated_at = await sql.fetchval("SELECT updated_at FROM jobs WHERE id = $1", job_id)
    assert await forget_all(engine, sql) == {job_id}

    assert await parameters(sql, job_id) == KEPT
    assert await sql.fetchval("SELECT updated_at FROM jobs WHERE id = $1", job_id) == updated_at
    assert not await PostgresJobInputs(engine).forget(job_id)
    assert await PostgresLedger(engine).violations() == []


async def test_an_unfinished_job_keeps_what_it_was_given(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id = await accept(engine, customer)

    assert not await PostgresJobInputs(engine).forget(job_id)

    claim = await jobs_of(engine).claim(job_id, uuid4())
    assert claim is not None
    assert claim.input.parameters == GIVEN


async def test_the_end_of_a_small_job_queues_nothing_more(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id = await accept(engine, customer, {"prompt": "a fox"})

    await end(engine, customer, job_id, "canceled before the submission")

    assert {step for step, _ in await queue_items(sql)} <= {SUBMIT_JOB, FOLLOW_JOB}


async def test_a_repeat_is_known_after_the_input_was_forgotten(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id = await accept(engine, customer, key="order 4711")
    await end(engine, customer, job_id, "completed")
    await forget_all(engine, sql)

    assert await accept(engine, customer, key="order 4711") == job_id


async def test_a_lost_submission_forgets_its_input_at_once_too(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id, token = await accept(engine, customer), uuid4()
    assert await jobs_of(engine).claim(job_id, token) is not None
    assert await jobs_of(engine).record_submit_unknown(job_id, token, "it hung")
    assert not await PostgresJobInputs(engine).forget(job_id)
    assert await jobs_of(engine).settle(job_id, Outcome.failed("submit_unknown", "It is not known."))

    assert await forget_all(engine, sql) == {job_id}

    assert await parameters(sql, job_id) == KEPT


SPELLINGS = [
    data_uri(PICTURE),
    data_uri(SOUND, "audio/x-wav"),
    data_uri(PICTURE).replace("image/png", "x/" + "y" * 200),
    data_uri(PICTURE).replace("image", "IMAGE"),
    data_uri(PICTURE).replace(";base64", ";name=a;base64"),
    "data:image/png;base64," + "!" * 5000,
    "data:image/png;base64," + "\N{FOX FACE}" * 5000,
    f"data:image/png;base64,{base64.encodebytes(PICTURE).decode()}",
    "data:image/png;base64," + "A" * (4096 - 22),
    "data:image/png;base64," + "A" * (4096 - 22 + 2),
    "data:image/png;base64," + "A" * (4096 - 22 + 4),
    "x" * 5000,
]


async def test_python_and_the_database_make_the_same_of_an_input(sql: Connection) -> None:
    given = {
        "prompt": "a fox \N{FOX FACE}",
        "image_urls": SPELLINGS,
        "more": [{"mask_url": data_uri(SOUND), "strength": 0.50, "steps": 10**20}],
        "empty": [{}, [], None, ""],
    }

    before, after = [
        await sql.fetchval(f"SELECT {form}::text FROM (SELECT $1::text::jsonb AS given) AS one", json.dumps(given))
        for form in ("given", "without_media(given)")
    ]

    # To the order of the fields: the digest of an attempt is one of these bytes.
    assert json.dumps(without_media(json.loads(before))) == json.dumps(json.loads(after))


async def test_finds_what_an_older_release_accepted_a_few_at_a_time(
    engine: AsyncEngine, sql: Connection, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MARKED_AT_ONCE", 2)
    large = [await accept(engine, customer) for _ in range(3)]
    small = [await accept(engine, customer, {"prompt": "a fox"}) for _ in range(2)]
    for job_id in (*large[:2], *small):
        await end(engine, customer, job_id, "canceled before the submission")
    # As the older release leaves them.
    await sql.execute("UPDATE jobs SET input_bytes = NULL")
    await sql.execute("DELETE FROM pgqueuer")
    walk = PostgresJobInputs(engine)

    assert [await walk.mark_older() for _ in range(4)] == [2, 0, 0, 0]
    await sweep_of(engine)()
    assert await forget_all(engine, sql) == set(large[:2])

    await end(engine, customer, large[2], "canceled before the submission")
    assert await forget_all(engine, sql) == set()
    assert sum([await walk.mark_older() for _ in range(4)]) == 1
    await sweep_of(engine)()
    assert await forget_all(engine, sql) == {large[2]}
    # Nothing is left, so that the walk ends.
    assert [await walk.mark_older() for _ in range(8)] == [0] * 8
    assert walk._walk is None


async def test_finds_what_an_older_release_accepts_after_the_walk_within_an_hour(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    now_seconds = 1_000.0
    walk = PostgresJobInputs(engine, lambda: now_seconds)
    assert await walk.mark_older() == 0
    for hour in range(2):
        job_id = await accept(engine, customer)
        await end(engine, customer, job_id, "canceled before the submission")
        await sql.execute("UPDATE jobs SET input_bytes = NULL WHERE id = $1", job_id)
        await sql.execute("DELETE FROM pgqueuer")

        now_seconds += inputs.WALK_AGAIN_SECONDS - 1
        assert [await walk.mark_older() for _ in range(3)] == [0] * 3, hour
        now_seconds += 1
        # One that finds something is followed by another one at once, and that by none.
        assert [await walk.mark_older() for _ in range(4)] == [1, 0, 0, 0], hour
        assert await forget_all(engine, sql) == {job_id}


async def test_no_more_are_marked_while_many_wait_to_be_forgotten(
    engine: AsyncEngine, sql: Connection, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MARKED_AT_ONCE", 1)
    monkeypatch.setattr(inputs, "BACKLOG_MAX", 2)
    job_ids = [await accept(engine, customer) for _ in range(3)]
    for job_id in job_ids:
        await end(engine, customer, job_id, "canceled before the submission")
    await sql.execute("UPDATE jobs SET input_bytes = NULL")
    await sql.execute("DELETE FROM pgqueuer")
    walk = PostgresJobInputs(engine)

    assert [await walk.mark_older() for _ in range(4)] == [1, 1, 0, 0]
    # Queued with the mark: the sweep has lost nothing of them.
    assert await forget_all(engine, sql) == set(job_ids[:2])
    assert await walk.mark_older() == 1


def test_only_two_are_forgotten_at_once_and_no_look_waits_for_them() -> None:
    assert FORGET_INPUT.lane.concurrent_steps_max == 2
    assert [row.step for row in STEPS if row.step.lane == FORGET_INPUT.lane] == [FORGET_INPUT]


LARGE = {"prompt": "a fox", "image_urls": [data_uri(PICTURE)]}
LARGE_BYTES = len(json.dumps(LARGE))


@pytest.fixture
def room_for_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "LARGE_INPUTS_BYTES_MAX", 5 * LARGE_BYTES)


async def accepts(engine: AsyncEngine, customer: Customer, given: Any = LARGE) -> bool:
    try:
        await accept(engine, customer, given)
    except TooManyLargeInputs as refused:
        return not 1 <= refused.retry_after_seconds <= 60
    return True


@pytest.mark.usefixtures("room_for_five")
async def test_an_account_brings_along_so_much_and_no_more_whoever_asks(
    database: str, engine: AsyncEngine, crowd: AsyncEngine, sql: Connection
) -> None:
    customer, other = await open_account(engine, 1000), await open_account(engine, 1000)

    # Two processes with a pool each: only the lock of the account keeps them apart.
    taken = await asyncio.gather(*(accepts(one, customer) for one in (engine, crowd) for _ in range(15)))

    assert sum(taken) == 5
    assert await balance_of(engine, customer) == 995
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE account_id = $1", customer.account_id) == 5
    assert await accepts(engine, other)
    assert await accepts(engine, customer, {"prompt": "a fox"})
    assert await PostgresLedger(engine).violations() == []


@pytest.mark.usefixtures("room_for_five")
async def test_start_and_cancel_again_and_again_is_slowed_down(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    taken = 0
    for _ in range(20):
        try:
            job_id = await accept(engine, customer, LARGE)
        except TooManyLargeInputs:
            continue
        taken += 1
        job = await jobs_of(engine).request_cancel(customer.account_id, job_id)
        assert job.status is JobStatus.CANCELED
    assert taken == 5
    await forget_all(engine, sql)
    assert not await accepts(engine, customer)

    await sql.execute("ALTER TABLE jobs DISABLE TRIGGER jobs_guard")
    await sql.execute("UPDATE jobs SET created_at = created_at - interval '61 seconds'")
    assert await accepts(engine, customer)


@pytest.mark.usefixtures("room_for_five")
async def test_a_known_key_is_answered_and_an_empty_balance_comes_first(engine: AsyncEngine) -> None:
    customer, poor = await open_account(engine, 1000), await open_account(engine, 5)
    first = await accept(engine, customer, LARGE, key="first")
    for _ in range(4):
        assert await accepts(engine, customer)
    for _ in range(5):
        assert await accepts(engine, poor)

    assert await accept(engine, customer, LARGE, key="first") == first
    with pytest.raises(TooManyLargeInputs):
        await accept(engine, customer, LARGE, key="second")
    with pytest.raises(InsufficientBalance):
        await accept(engine, poor, LARGE)


async def test_the_limit_leaves_room_for_five_jobs_of_the_largest_pictures(database: str) -> None:
    largest = len(json.dumps({"image_urls": [data_uri(b"\0" * 5 * 1024 * 1024)] * 2}))

    assert 5 * (largest + 30_000) < orders.LARGE_INPUTS_BYTES_MAX < 6 * largest
    async with connect(database) as sql:
        assert await sql.fetchval("SELECT without_media('{}')") == "{}"
        broken = json.dumps(["data:image/png;base64," + "!" * 5000, "data:" + "x" * 5000])
        first, second = json.loads(await sql.fetchval("SELECT without_media($1::text::jsonb)", broken))
        assert (first["size_bytes"], second) == (5000, "data:" + "x" * 5000)
