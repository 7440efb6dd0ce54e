"""While two releases run side by side, this one meets words that only the newer one knows.

It shows them as they are, and leaves the steps of such jobs alone.
"""

import json
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution.breaker import Breaker
from app.application.execution.follow import FollowJob
from app.application.execution.provider_events import ReceiveProviderEvent
from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB, LeftToNewerRelease
from app.application.execution.submit import SubmitJob
from app.application.ports.provider import Provider, ProviderEvent, ProviderEvents
from app.domain.errors import Unavailable
from app.domain.jobs import JobStatus, Outcome
from tests.builders import (
    RESULT,
    Connection,
    Customer,
    accept_job,
    balance_of,
    claimed_job,
    connect,
    job_in,
    jobs_of,
    open_account,
    queue_items,
    sweep_of,
)
from tests.integration.api_on_postgres import Api, open_api

NEWER_KIND, NEWER_STATUS, NEWER_MODEL, NEWER_ENTRY = "TEXT_TO_MUSIC", "STORING", "fal-ai/other/model", "GRANT"
NEWER_TERMS = '{"form": 3}'
# As a newer release's migrations would leave the schema.
OPENED = """
ALTER TABLE jobs DROP CONSTRAINT jobs_status_known;
ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_kind_known;
ALTER TABLE ledger_entries DROP CONSTRAINT ledger_entries_belong_somewhere;
ALTER TABLE jobs DISABLE TRIGGER jobs_guard;
ALTER TABLE jobs DISABLE TRIGGER jobs_keep_their_terms;
ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_append_only;
"""
NO_PROVIDER = cast(Provider, None)


@pytest.fixture
async def sql(database: str) -> AsyncIterator[Connection]:
    async with connect(database) as connection:
        await connection.execute(OPENED)
        yield connection


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 100)


@pytest.fixture
async def api(engine: AsyncEngine) -> AsyncIterator[Api]:
    async with open_api(engine) as api:
        yield api


async def rewrite(sql: Connection, job_id: UUID, **columns: str | None) -> None:
    for name, value in columns.items():
        await sql.execute(f"UPDATE jobs SET {name} = $2 WHERE id = $1", job_id, value)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"kind": NEWER_KIND, "terms": NEWER_TERMS}, {"type": NEWER_KIND, "status": "QUEUED"}),
        ({"model_id": NEWER_MODEL}, {"model_id": NEWER_MODEL, "status": "QUEUED"}),
        ({"status": NEWER_STATUS}, {"type": "TEXT_TO_IMAGE", "status": NEWER_STATUS}),
    ],
    ids=["kind", "model", "status"],
)
async def test_shows_a_job_in_the_words_of_a_newer_release(
    engine: AsyncEngine, sql: Connection, customer: Customer, *, columns: dict[str, str | None], shown: dict[str, str]
) -> None:
    job_id, other = await accept_job(engine, customer), await accept_job(engine, customer)
    await rewrite(sql, job_id, **columns)

    async with open_api(engine) as api:
        one = await api.get(customer, f"/generations/{job_id}")
        page = await api.get(customer, "/generations")

    assert one.status_code == page.status_code == 200
    assert {name: one.json()[name] for name in shown} == shown
    assert one.json()["billing"] is None
    assert [item["job_id"] for item in page.json()["items"]] == [str(other), str(job_id)]
    assert page.json()["items"][1] == one.json()


async def test_shows_a_job_that_ended_in_the_words_of_a_newer_release(
    engine: AsyncEngine, sql: Connection, customer: Customer, api: Api
) -> None:
    job_id = await job_in(engine, customer, JobStatus.COMPLETED)
    await rewrite(sql, job_id, kind=NEWER_KIND, terms=NEWER_TERMS)

    answer = (await api.get(customer, f"/generations/{job_id}")).json()

    assert (answer["type"], answer["status"], answer["billing"]["outcome"]) == (NEWER_KIND, "COMPLETED", "charged")


async def test_shows_an_entry_in_the_words_of_a_newer_release(
    engine: AsyncEngine, sql: Connection, customer: Customer, api: Api
) -> None:
    await accept_job(engine, customer)
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute("UPDATE ledger_entries SET kind = $1 WHERE kind = 'DEBIT'", NEWER_ENTRY)

    page = await api.ledger(customer)

    assert [entry["kind"] for entry in page["items"]] == [NEWER_ENTRY, "CREDIT"]


@pytest.mark.parametrize(
    "columns", [{"terms": NEWER_TERMS}, {"kind": NEWER_KIND, "terms": None}], ids=["terms", "kind without terms"]
)
async def test_leaves_the_submission_to_the_newer_release(
    engine: AsyncEngine, sql: Connection, customer: Customer, columns: dict[str, str | None]
) -> None:
    job_id = await accept_job(engine, customer)
    await rewrite(sql, job_id, **columns)
    submit = SubmitJob(jobs_of(engine), NO_PROVIDER, Breaker())

    with pytest.raises(LeftToNewerRelease) as left:
        await submit(job_id)

    assert 0 < left.value.delay_seconds < 10
    assert await sql.fetchval("SELECT status || attempts FROM jobs WHERE id = $1", job_id) == "QUEUED0"


@pytest.mark.parametrize(
    "columns",
    [{"terms": NEWER_TERMS}, {"kind": NEWER_KIND, "terms": None}, {"status": NEWER_STATUS}],
    ids=["terms", "kind without terms", "status"],
)
async def test_leaves_the_looks_to_the_newer_release(
    engine: AsyncEngine, sql: Connection, customer: Customer, columns: dict[str, str | None]
) -> None:
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    await rewrite(sql, job_id, **columns)
    before = await sql.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id)

    with pytest.raises(LeftToNewerRelease):
        await FollowJob(jobs_of(engine), NO_PROVIDER)(job_id)

    assert await sql.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id) == before


class SignedEvents:
    async def verify(self, headers: Any, body: bytes) -> ProviderEvent:
        return ProviderEvent(json.loads(body)["request_id"], {"music": []})


async def test_leaves_an_event_to_the_newer_release_and_wakes_its_look(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    """fal delivers again what is answered with 503, and a look of the newer release may be faster."""
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    await sql.execute("UPDATE pgqueuer SET execute_after = now() + interval '1 hour'")
    await rewrite(sql, job_id, kind=NEWER_KIND, terms=NEWER_TERMS)
    token = await sql.fetchval("SELECT attempt_token FROM jobs WHERE id = $1", job_id)
    request_id = await sql.fetchval("SELECT fal_request_id FROM jobs WHERE id = $1", job_id)
    receive = ReceiveProviderEvent(jobs_of(engine), NO_PROVIDER, cast(ProviderEvents, SignedEvents()))

    with pytest.raises(Unavailable):
        await receive(token, {}, json.dumps({"request_id": request_id}).encode())

    assert await sql.fetchval("SELECT status FROM jobs WHERE id = $1", job_id) == "IN_PROGRESS"
    assert await sql.fetchval("SELECT execute_after <= now() FROM pgqueuer WHERE entrypoint = 'generation.follow'")


async def test_the_sweep_queues_no_step_for_a_status_of_a_newer_release(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    stored = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    queued, followed = await accept_job(engine, customer), await job_in(engine, customer, JobStatus.SUBMITTED)
    await rewrite(sql, stored, status=NEWER_STATUS)
    await sql.execute("DELETE FROM pgqueuer")

    await sweep_of(engine)()

    assert await queue_items(sql) == {(SUBMIT_JOB, queued), (FOLLOW_JOB, followed)}


async def test_a_queued_job_of_a_newer_release_can_be_canceled_and_is_refunded(
    engine: AsyncEngine, sql: Connection, customer: Customer, api: Api
) -> None:
    job_id = await accept_job(engine, customer)
    await rewrite(sql, job_id, kind=NEWER_KIND, terms=NEWER_TERMS)

    answer = await api.cancel(customer, job_id, None)

    assert (answer.status_code, answer.json()["status"]) == (200, "CANCELED")
    assert await balance_of(engine, customer) == 100


async def test_a_wish_to_cancel_is_noted_for_the_newer_release(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id, _ = await claimed_job(engine, customer)
    await rewrite(sql, job_id, status=NEWER_STATUS)

    job = await jobs_of(engine).request_cancel(customer.account_id, job_id)

    assert (job.status, job.public_status, job.is_final) == (NEWER_STATUS, "CANCELING", False)
    assert await balance_of(engine, customer) < 100


async def test_no_write_of_this_release_moves_a_job_out_of_a_status_of_a_newer_one(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    """It may have looked at the job, and asked fal, before the newer release moved it there."""
    job_id = await job_in(engine, customer, JobStatus.IN_PROGRESS)
    await rewrite(sql, job_id, status=NEWER_STATUS)
    before = await sql.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id)
    jobs, balance_tokens = jobs_of(engine), await balance_of(engine, customer)

    written = [
        await jobs.settle(job_id, Outcome.completed(RESULT)),
        await jobs.settle(job_id, Outcome.canceled()),
        await jobs.record_progress(job_id, JobStatus.IN_QUEUE),
    ]
    await jobs.record_overdue(job_id)

    assert written == [False, False, False]
    assert await sql.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id) == before
    assert await balance_of(engine, customer) == balance_tokens
