"""Lists of jobs that fit a filter: each of them once and in order, and never more looked at than one page may cost."""

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.errors import JobNotFound
from app.domain.job_filters import JobFilter
from app.domain.jobs import Job, JobStatus, NewJob, PublicStatus
from app.domain.kinds import GenerationKind
from app.infrastructure.postgres.jobs import reader
from tests.builders import (
    MODEL_IDS,
    OUTCOMES,
    Connection,
    Customer,
    accept_job,
    jobs_of,
    new_job,
    open_account,
    provider_request,
)
from tests.integration.api_on_postgres import Api

KINDS = (GenerationKind.TEXT_TO_IMAGE, GenerationKind.TEXT_TO_VIDEO)
MODELS = (*(MODEL_IDS[kind] for kind in KINDS), "house/withdrawn")


async def bring_to(engine: AsyncEngine, job: NewJob, status: PublicStatus) -> None:
    jobs, token = jobs_of(engine), uuid4()
    await jobs.accept(job)
    if status is PublicStatus.QUEUED:
        # Half of them in the status that is shown as this one.
        if random.random() < 0.5:
            assert await jobs.claim(job.id, token) is not None
        return
    assert await jobs.claim(job.id, token) is not None
    assert await jobs.record_submission(job.id, token, provider_request())
    if status in (PublicStatus.IN_QUEUE, PublicStatus.IN_PROGRESS):
        assert await jobs.record_progress(job.id, JobStatus(status))
    is_final = status in (PublicStatus.COMPLETED, PublicStatus.FAILED, PublicStatus.CANCELED)
    if status is PublicStatus.CANCELING or (is_final and random.random() < 0.5):
        await jobs.request_cancel(job.account_id, job.id)
    if is_final:
        assert await jobs.settle(job.id, OUTCOMES[JobStatus(status)])


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 10_000)


@pytest.fixture
async def made(engine: AsyncEngine, sql: Connection, customer: Customer) -> Sequence[Job]:
    """Jobs of two accounts in turns, several of the same moment; those of the customer, the newest first."""
    other = await open_account(engine, 10_000)
    for status in random.sample(list(PublicStatus) * 4, k=4 * len(PublicStatus)):
        for owner in (customer, other):
            job = replace(new_job(owner), kind=random.choice(KINDS), model_id=random.choice(MODELS))
            await bring_to(engine, job, status)
    # What a job is never changes; the guard stands aside for this one statement.
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute(
            "UPDATE jobs SET created_at = to_timestamp(placed.place / 4) FROM"
            " (SELECT id, row_number() OVER (ORDER BY id) AS place FROM jobs) AS placed WHERE placed.id = jobs.id"
        )
    return await jobs_of(engine).page(customer.account_id, limit=100)


def fits(job: Job, wanted: JobFilter) -> bool:
    return (
        (not wanted.statuses or job.public_status in wanted.statuses)
        and (not wanted.kinds or job.kind in wanted.kinds)
        and wanted.model_id in (None, job.model_id)
    )


async def walked(
    engine: AsyncEngine, customer: Customer, wanted: JobFilter, limit: int, *, added: int = 0
) -> Sequence[Sequence[UUID]]:
    """The pages. After each of the first `added` a job is added."""
    pages: list[Sequence[UUID]] = []
    after = None
    while True:
        found = await jobs_of(engine).find(customer.account_id, wanted, limit=limit, after=after)
        pages.append([job.id for job in found.jobs])
        if len(pages) <= added:
            await accept_job(engine, customer, cost_tokens=1)
        if found.next_after is None:
            return pages
        after = found.next_after


async def test_each_status_is_what_a_job_is_shown_as(
    engine: AsyncEngine, customer: Customer, made: Sequence[Job]
) -> None:
    for status in PublicStatus:
        found = await jobs_of(engine).find(customer.account_id, JobFilter(statuses=[status]), limit=100)

        assert [job.public_status for job in found.jobs] == [status] * 4
        assert found.jobs == [job for job in made if job.public_status is status]


@pytest.mark.parametrize("looked_at_max", [1, 2, 5, 5_000])
async def test_all_pages_have_exactly_the_jobs_that_fit_whatever_is_added_meanwhile(
    engine: AsyncEngine, customer: Customer, made: Sequence[Job], monkeypatch: pytest.MonkeyPatch, looked_at_max: int
) -> None:
    monkeypatch.setattr(reader, "LOOKED_AT_MAX", looked_at_max)
    statuses = [[], *([status] for status in PublicStatus), [PublicStatus.FAILED, PublicStatus.CANCELED]]
    filters = [
        JobFilter(statuses=chosen, kinds=kinds, model_id=model_id)
        for chosen, kinds, model_id in product(statuses, [[], [KINDS[1]]], [None, *MODELS, "nobody/has-it"])
    ]
    for wanted in random.sample(filters, k=12):
        limit = random.choice([1, 2, 3, 100])

        pages = await walked(engine, customer, wanted, limit, added=3)

        assert all(len(page) <= limit for page in pages)
        seen = [job_id for page in pages for job_id in page]
        # Those of earlier rounds are newer than all of these.
        before = {job.id for job in made}
        assert [job_id for job_id in seen if job_id in before] == [job.id for job in made if fits(job, wanted)]
        assert len(set(seen)) == len(seen)


async def test_what_is_looked_at_is_bounded_and_an_empty_page_leads_on(
    engine: AsyncEngine, customer: Customer, made: Sequence[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOKED_AT_MAX", 5)
    wanted = JobFilter(model_id="nobody/has-it")

    found = await jobs_of(engine).find(customer.account_id, wanted, limit=20)

    assert (found.jobs, found.next_after) == ([], made[4].id)
    pages = await walked(engine, customer, wanted, 20)
    assert len(pages) == -(-len(made) // 5)
    assert all(page == [] for page in pages)


async def test_the_last_look_ends_with_the_last_job(
    engine: AsyncEngine, customer: Customer, made: Sequence[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOKED_AT_MAX", len(made))

    assert (await jobs_of(engine).find(customer.account_id, JobFilter(model_id="none"), limit=1)).next_after is None
    monkeypatch.setattr(reader, "LOOKED_AT_MAX", len(made) - 1)
    found = await jobs_of(engine).find(customer.account_id, JobFilter(model_id="none"), limit=1)
    assert found.next_after == made[-2].id


async def test_a_cursor_is_a_job_of_the_account(engine: AsyncEngine, customer: Customer, made: Sequence[Job]) -> None:
    stranger = await open_account(engine)

    with pytest.raises(JobNotFound):
        await jobs_of(engine).find(stranger.account_id, JobFilter(kinds=KINDS), limit=1, after=made[0].id)


async def test_nobody_sees_another_ones_jobs(api: Api, customer: Customer, made: Sequence[Job]) -> None:
    answer = await api.http.get(
        "/generations",
        params=[("status", "FAILED"), ("status", "CANCELED"), ("type", "TEXT_TO_VIDEO"), ("limit", "100")],
        headers={"X-API-Key": customer.api_key},
    )

    wanted = JobFilter(statuses=[PublicStatus.FAILED, PublicStatus.CANCELED], kinds=[KINDS[1]])
    assert answer.status_code == 200, answer.text
    assert [UUID(job["job_id"]) for job in answer.json()["items"]] == [job.id for job in made if fits(job, wanted)]
