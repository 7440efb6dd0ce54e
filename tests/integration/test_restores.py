"""Held jobs of a restored backup, and what fal's history tells of them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application import restores
from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB
from app.application.ports.evidence import RequestHistory
from app.application.ports.provider import ProviderUnavailable
from app.application.restores import CheckRestored, EndRestored, Finding
from app.domain.jobs import JobStatus
from app.infrastructure.fal.urls import QueueUrls
from app.infrastructure.postgres import database
from app.infrastructure.postgres import restores as postgres_restores
from app.infrastructure.postgres.evidence import PostgresLostSubmissions
from app.infrastructure.postgres.ledger import PostgresLedger
from app.infrastructure.postgres.restores import PostgresRestoredJobs
from tests.builders import (
    Connection,
    Customer,
    accept_job,
    balance_of,
    job_in,
    jobs_of,
    new_job,
    open_account,
    provider_request,
    queue_items,
    sweep_of,
)


@dataclass
class History:
    """What each input is found as."""

    found: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failure: Exception | None = None

    async def find(self, *_: Any, **__: Any) -> Sequence[str]:
        raise NotImplementedError

    async def find_each(self, model_id: str, inputs: Mapping[Any, Mapping[str, Any]], **_: Any) -> Mapping[Any, Any]:
        if self.failure:
            raise self.failure
        return {name: self.found.get(parameters["prompt"], ()) for name, parameters in inputs.items()}


def restored(engine: AsyncEngine) -> PostgresRestoredJobs:
    return PostgresRestoredJobs(engine, jobs_of(engine))


async def check(
    engine: AsyncEngine, history: RequestHistory | None, chosen: Mapping[UUID, str] | None = None
) -> Mapping[UUID, Finding]:
    rebuild = QueueUrls("https://queue.fal.run").rebuild
    use_case = CheckRestored(restored(engine), PostgresLostSubmissions(engine), history, rebuild)
    return {finding.job.id: finding async for finding in use_case(chosen or {})}


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 100)


async def accept(engine: AsyncEngine, customer: Customer, prompt: str) -> UUID:
    job = replace(new_job(customer), parameters={"prompt": prompt, "num_images": 1})
    return (await jobs_of(engine).accept(job)).job.id


async def column(sql: Connection, job_id: UUID, name: str) -> Any:
    return await sql.fetchval(f"SELECT {name} FROM jobs WHERE id = $1", job_id)


async def test_another_identity_holds_what_waits_and_nothing_else(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    ids = {status: await job_in(engine, customer, status) for status in JobStatus}
    jobs = restored(engine)
    assert await jobs.notice() == 0
    await sql.execute("UPDATE installation SET identity = 'of before'")

    # Several processes start at once.
    counts = await asyncio.gather(*(restored(engine).notice() for _ in range(5)))

    assert sorted(counts) == [0, 0, 0, 0, 1]
    held = {status for status in JobStatus if await column(sql, ids[status], "held_at") is not None}
    assert held == {JobStatus.QUEUED}
    new = await accept_job(engine, customer)
    assert await jobs_of(engine).claim(ids[JobStatus.QUEUED], uuid4()) is None
    assert await jobs_of(engine).claim(new, uuid4()) is not None
    assert await jobs.notice() == 0


class Killed(BaseException):
    """In place of the process's end."""


def die_after(monkeypatch: pytest.MonkeyPatch, point: str, times: int) -> None:
    """At the fault point, when it is reached for the last of so many times."""
    reached: list[str] = []

    def reach(name: str) -> None:
        reached.append(name)
        if reached.count(point) == times:
            raise Killed

    monkeypatch.setattr(database, "reach", reach)


@pytest.mark.parametrize("point", ["notice_restore.before_commit", "notice_restore.after_commit"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_restore_is_known_only_once_all_are_held(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch, point: str, times: int
) -> None:
    customer = await open_account(engine, 100)
    monkeypatch.setattr(postgres_restores, "JOBS_AT_ONCE", 2, raising=False)
    ids = [await accept_job(engine, customer) for _ in range(5)]
    await restored(engine).notice()
    await sql.execute("UPDATE installation SET identity = 'of before'")
    # Many that were accepted in one transaction have the same time.
    await sql.execute("ALTER TABLE jobs DISABLE TRIGGER jobs_guard")
    await sql.execute("UPDATE jobs SET created_at = now()")

    with monkeypatch.context() as patched:
        die_after(patched, point, times)
        with pytest.raises(Killed):
            await restored(engine).notice()
    held = await sql.fetchval("SELECT count(*) FROM jobs WHERE held_at IS NOT NULL")
    is_known = await sql.fetchval("SELECT identity FROM installation") != "of before"
    counts = await asyncio.gather(*(restored(engine).notice() for _ in range(4)))

    steps = times if point.endswith("after_commit") else times - 1
    assert (held, is_known) == (min(2 * steps, 5), steps == 3)
    assert sorted(counts) == [0, 0, 0, 0 if is_known else 5]
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE held_at IS NOT NULL") == 5
    new = await accept_job(engine, customer)
    assert await restored(engine).notice() == 0
    assert [await jobs_of(engine).claim(job_id, uuid4()) for job_id in ids] == [None] * 5
    assert await jobs_of(engine).claim(new, uuid4()) is not None


async def test_what_cut_a_hold_or_a_release_off_lets_the_next_one_do_the_rest(
    engine: AsyncEngine, sql: Connection, customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_restores, "JOBS_AT_ONCE", 2, raising=False)
    ids = [await accept_job(engine, customer) for _ in range(5)]
    with monkeypatch.context() as patched:
        die_after(patched, "hold_jobs.after_commit", 1)
        with pytest.raises(Killed):
            await restored(engine).hold()
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE held_at IS NOT NULL") == 2
    assert await restored(engine).hold() == 5
    await sql.execute("DELETE FROM pgqueuer")

    with monkeypatch.context() as patched:
        die_after(patched, "release_held.after_commit", 2)
        with pytest.raises(Killed):
            await restored(engine).release([])
    assert len(await queue_items(sql)) == 4
    assert await restored(engine).release([]) == 1

    assert await queue_items(sql) == {(SUBMIT_JOB, job_id) for job_id in ids}
    assert await sql.fetchval("SELECT count(*) FROM jobs WHERE held_at IS NOT NULL") == 0


async def test_a_first_start_holds_nothing(engine: AsyncEngine, sql: Connection, customer: Customer) -> None:
    job_id = await accept_job(engine, customer)

    await sweep_of(engine)()

    assert await column(sql, job_id, "held_at") is None
    assert await sql.fetchval("SELECT count(*) FROM installation") == 1


async def test_a_held_job_can_be_canceled_and_released(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    first, second, third = [await accept_job(engine, customer) for _ in range(3)]
    assert await restored(engine).hold() == 3

    assert (await jobs_of(engine).request_cancel(customer.account_id, first)).status is JobStatus.CANCELED
    # As a step leaves a held job: its item goes, and the sweep queues none.
    assert len(await sql.fetch("DELETE FROM pgqueuer RETURNING id")) == 3
    await sweep_of(engine)()
    assert await queue_items(sql) == set()
    assert await restored(engine).release([second]) == 1
    assert await queue_items(sql) == {(SUBMIT_JOB, second)}
    assert await jobs_of(engine).claim(second, uuid4()) is not None
    assert await jobs_of(engine).claim(third, uuid4()) is None
    assert await restored(engine).release([]) == 1
    assert await restored(engine).release([]) == 0
    assert await column(sql, third, "status_reason") is None
    assert await jobs_of(engine).claim(third, uuid4()) is not None


async def test_a_step_that_ends_as_its_job_is_released_takes_no_item_along(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    job_id = await accept_job(engine, customer)
    await restored(engine).hold()
    await sql.execute("UPDATE pgqueuer SET status = 'picked'")

    releasing = asyncio.create_task(restored(engine).release([job_id]))
    while await column(sql, job_id, "held_at") is not None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    # It had seen the hold.
    await sql.execute("DELETE FROM pgqueuer")

    assert await releasing == 1
    assert await queue_items(sql) == {(SUBMIT_JOB, job_id)}


async def test_a_request_is_adopted_that_fits_and_was_chosen(
    engine: AsyncEngine, sql: Connection, customer: Customer
) -> None:
    """What fits alone may be the run of a job that was accepted after the backup, and of another user."""
    ran, waits, twice = [await accept(engine, customer, prompt) for prompt in ("ran", "waits", "twice")]
    taken = await accept(engine, customer, "taken")
    known, token = await accept(engine, customer, "known"), uuid4()
    assert await jobs_of(engine).claim(known, token) is not None
    assert await jobs_of(engine).record_submission(known, token, provider_request("r-known"))
    await restored(engine).hold()
    history = History({"ran": ["r-1"], "twice": ["r-2", "r-3"], "taken": ["r-known"]})

    seen = await check(engine, history)
    findings = await check(engine, history, {ran: "r-1", waits: "r-1", twice: "r-1", taken: "r-known"})

    assert not any(finding.request_id for finding in seen.values())
    assert seen[ran].sentence.endswith("for this job or for another one: r-1")
    assert {job_id for job_id, finding in findings.items() if finding.request_id} == {ran}
    assert await column(sql, ran, "status") == "SUBMITTED"
    assert await column(sql, ran, "fal_request_id") == "r-1"
    assert (FOLLOW_JOB, ran) in await queue_items(sql)
    assert "no such request" in findings[waits].sentence
    assert "no such request" in findings[taken].sentence
    assert findings[twice].sentence == "r-1 cannot be its request: choose one of r-2, r-3"
    for job_id in (waits, twice, taken):
        assert await column(sql, job_id, "status") == "QUEUED"
        assert await jobs_of(engine).claim(job_id, uuid4()) is None
    assert set(await check(engine, history)) == set(findings) - {ran}


@pytest.mark.parametrize("history", [None, History(failure=ProviderUnavailable("fal's history answered 500"))])
async def test_without_a_history_everything_stays_held(
    engine: AsyncEngine, customer: Customer, history: RequestHistory | None
) -> None:
    job_id = await accept(engine, customer, "a fox")
    await restored(engine).hold()

    findings = await check(engine, history)

    assert findings[job_id].sentence.startswith("not looked for: ")
    assert await jobs_of(engine).claim(job_id, uuid4()) is None


async def test_what_was_released_meanwhile_is_not_adopted(engine: AsyncEngine, customer: Customer) -> None:
    job_id = await accept(engine, customer, "a fox")
    await restored(engine).hold()
    await restored(engine).release([job_id])

    assert not await restored(engine).adopt(job_id, provider_request())

    assert await jobs_of(engine).claim(job_id, uuid4()) is not None


async def test_held_jobs_can_be_ended_and_refunded(engine: AsyncEngine, customer: Customer) -> None:
    for _ in range(restores.HELD_AT_ONCE + 2):
        await accept_job(engine, customer, cost_tokens=1)
    await restored(engine).hold()
    free = await accept_job(engine, customer)

    counts = await asyncio.gather(EndRestored(restored(engine))(), EndRestored(restored(engine))())

    assert sum(counts) == restores.HELD_AT_ONCE + 2

    assert await jobs_of(engine).claim(free, uuid4()) is not None
    assert await PostgresLedger(engine).violations() == []
    assert await balance_of(engine, customer) == 95
