"""What a job was started with, told to its owner: with names of files that are there, and without any bytes."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.files import KeptFile
from app.domain.jobs import NewJob, Outcome
from app.domain.kinds import GenerationKind
from app.domain.outputs import DeletedBecause, OutputId
from app.infrastructure.postgres.files.sending import PostgresFilesToSend
from app.infrastructure.postgres.jobs.inputs import PostgresJobInputs
from app.infrastructure.postgres.jobs.stored_inputs import PAGE_BYTES_MAX
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from tests.builders import (
    MODEL_IDS,
    Connection,
    Customer,
    claimed_job,
    jobs_of,
    new_job,
    open_account,
)
from tests.integration.api_on_postgres import Api, job_id_of
from tests.integration.test_outputs import RESULT, completed, copies_of
from tests.integration.test_own_outputs import own_outputs
from tests.kept_files import files_of, kept_file

EDIT = MODEL_IDS[GenerationKind.IMAGE_TO_IMAGE]
PICTURE = f"data:image/png;base64,{base64.b64encode(bytes(range(256)) * 40).decode()}"


@pytest.fixture
async def customer(engine: AsyncEngine) -> Customer:
    return await open_account(engine, 1_000)


def edit_of(customer: Customer, *urls: Any, files: tuple[KeptFile, ...] = ()) -> NewJob:
    parameters = {"prompt": "in snow", "num_images": 1, "image_urls": list(urls)}
    return replace(
        new_job(customer),
        kind=GenerationKind.IMAGE_TO_IMAGE,
        model_id=EDIT,
        parameters=parameters,
        file_ids=tuple(file.id for file in files),
    )


async def started_with(engine: AsyncEngine, customer: Customer, *files: KeptFile) -> UUID:
    job = edit_of(customer, *(file.as_input for file in files), files=files)
    return (await jobs_of(engine).accept(job)).job.id


async def told(api: Api, customer: Customer, job_id: UUID) -> Any:
    answer = await api.get(customer, f"/generations/{job_id}", include="input")
    assert answer.status_code == 200, answer.text
    page = (await api.get(customer, "/generations", include="input", limit=100)).json()["items"]
    (listed,) = [job for job in page if job["job_id"] == str(job_id)]
    assert listed["input"] == answer.json()["input"]
    assert not any(secret in answer.text for secret in ("sha256", "file_id", "size_bytes", "base64"))
    return answer.json()["input"]


async def test_what_was_sent_is_told_whole(api: Api, customer: Customer) -> None:
    body = {"prompt": "a fox «ё» 🦊", "num_images": 2, "image_size": {"width": 1024, "height": 768}, "seed": 7}

    job_id = job_id_of(await api.start(customer, None, body))

    assert await told(api, customer, job_id) == body
    plain = (await api.get(customer, f"/generations/{job_id}")).json()
    assert "input" not in plain


async def test_a_film_is_told_in_our_spelling(api: Api, customer: Customer) -> None:
    body = {"prompt": "a storm", "duration": 10, "resolution": "480p"}

    job_id = job_id_of(await api.start(customer, None, body, path="/generations/videos/text-to-video"))

    # fal is sent "10".
    assert await told(api, customer, job_id) == body


async def test_a_job_of_the_release_before_is_told_as_any_other(
    engine: AsyncEngine, sql: Connection, api: Api, customer: Customer
) -> None:
    kind = GenerationKind.TEXT_TO_VIDEO
    job = replace(
        new_job(customer), kind=kind, model_id=MODEL_IDS[kind], parameters={"prompt": "a storm", "duration": 10}
    )
    await jobs_of(engine).accept(job)
    async with sql.transaction():
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute("UPDATE jobs SET terms = NULL WHERE id = $1", job.id)

    assert await told(api, customer, job.id) == {"prompt": "a storm", "duration": 10}


async def test_kept_files_are_named_for_as_long_as_they_are_there(
    engine: AsyncEngine, sql: Connection, api: Api, customer: Customer
) -> None:
    upload, deleted, over = [await kept_file(engine, customer) for _ in range(3)]
    job_id = await started_with(engine, customer, upload, deleted, over)
    assert (await told(api, customer, job_id))["image_urls"] == [f"file:{file.id}" for file in (upload, deleted, over)]

    await files_of(engine).delete(deleted.id, DeletedBecause.REQUESTED)
    await sql.execute("UPDATE files SET expires_at = now() - interval '1 s' WHERE id = $1", over.id)

    assert (await told(api, customer, job_id))["image_urls"] == [f"file:{upload.id}", None, None]


async def test_a_data_uri_is_told_as_its_file_while_that_lives(
    engine: AsyncEngine, sql: Connection, api: Api, customer: Customer
) -> None:
    job = edit_of(customer)
    file = await kept_file(engine, customer, job_id=job.id)
    parameters = {**job.parameters, "image_urls": [file.as_input]}
    await jobs_of(engine).accept(replace(job, parameters=parameters, file_ids=(file.id,)))

    assert (await told(api, customer, job.id))["image_urls"] == [f"file:{file.id}"]
    await sql.execute("UPDATE files SET expires_at = now() - interval '1 s'")
    assert (await told(api, customer, job.id))["image_urls"] == [None]
    assert (await told(api, customer, job.id))["prompt"] == "in snow"


async def test_an_output_that_was_used_is_told_as_such(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    output_id = OutputId(await completed(engine, customer), 1)
    file = await own_outputs(engine).as_file(customer.account_id, output_id)
    assert file is not None
    job_id = await started_with(engine, customer, file)
    # What fal was given for it is not what the user named.
    url = RESULT["images"][1]["url"]
    until = datetime.now(UTC) + timedelta(days=3)
    await PostgresFilesToSend(engine, copies_of(engine)).record_sent(file.id, url, until)

    assert (await told(api, customer, job_id))["image_urls"] == [f"output:{output_id.job_id}/1"]
    await PostgresMediaDeletion(engine).delete(customer.account_id, output_id.job_id, DeletedBecause.REQUESTED)
    assert (await told(api, customer, job_id))["image_urls"] == [None]


async def test_bytes_in_the_row_are_never_told(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    """As a service without a store has them, until and after the end of the job."""
    job = edit_of(customer, PICTURE, "https://example.com/a.png")
    await jobs_of(engine).accept(job)
    expected = {"prompt": "in snow", "num_images": 1, "image_urls": [None, "https://example.com/a.png"]}

    assert await told(api, customer, job.id) == expected
    assert await jobs_of(engine).settle(job.id, Outcome.canceled())
    assert await PostgresJobInputs(engine).forget(job.id)
    assert await told(api, customer, job.id) == expected


async def test_whole_pictures_are_not_read_for_it(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    large = f"data:image/png;base64,{base64.b64encode(bytes(300_000)).decode()}"
    job = edit_of(customer, large)
    await jobs_of(engine).accept(job)

    assert await told(api, customer, job.id) is None
    assert await jobs_of(engine).settle(job.id, Outcome.canceled())
    assert await PostgresJobInputs(engine).forget(job.id)
    assert (await told(api, customer, job.id))["prompt"] == "in snow"


async def test_the_longest_prompt_is_told_in_any_letters(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    prompt = "🦊" * 20_000
    job = replace(new_job(customer), parameters={"prompt": prompt})
    await jobs_of(engine).accept(job)

    assert len(json.dumps(prompt)) > 200_000
    assert (await told(api, customer, job.id))["prompt"] == prompt


async def test_a_page_of_long_inputs_is_short_and_leads_on(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    """Whoever starts and cancels them pays nothing, and may ask again and again."""
    prompts = [f"{number} " + "🦊" * 20_000 for number in range(12)]
    for prompt in prompts:
        await jobs_of(engine).accept(replace(new_job(customer), parameters={"prompt": prompt}))
    found: list[str] = []
    more: dict[str, Any] = {}

    while True:
        answer = await api.get(customer, "/generations", include="input", limit=100, status="QUEUED", **more)
        page = answer.json()
        assert 1 <= len(page["items"]) <= 5
        assert len(answer.content) < 2 * PAGE_BYTES_MAX
        found += [job["input"]["prompt"] for job in page["items"]]
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}

    assert found == prompts[::-1]


async def test_a_whole_page_of_usual_inputs_is_told(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    prompts = [f"a fox, {number}" for number in range(101)]
    for prompt in prompts:
        await jobs_of(engine).accept(replace(new_job(customer), parameters={"prompt": prompt}))

    page = (await api.get(customer, "/generations", include="input", limit=100)).json()

    assert [job["input"]["prompt"] for job in page["items"]] == prompts[:0:-1]
    assert page["next_cursor"] == page["items"][-1]["job_id"]


async def test_a_model_that_is_sold_no_more_leaves_the_prompt(
    engine: AsyncEngine, api: Api, customer: Customer
) -> None:
    job = replace(new_job(customer), model_id="house/withdrawn", parameters={"prompt": "a fox", "loras": ["ours"]})
    await jobs_of(engine).accept(job)

    assert await told(api, customer, job.id) == {"prompt": "a fox"}


async def test_the_seed_that_marks_an_attempt_is_not_told(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    job_id, _ = await claimed_job(engine, customer)

    assert await told(api, customer, job_id) == {"prompt": "a lighthouse at dawn"}


async def test_nobody_is_told_of_another_ones_job(engine: AsyncEngine, api: Api, customer: Customer) -> None:
    stranger = await open_account(engine, 100)
    file = await kept_file(engine, stranger)
    theirs = await started_with(engine, stranger, file)

    answer = await api.get(customer, f"/generations/{theirs}", include="input")
    page = await api.get(customer, "/generations", include="input", status="QUEUED")

    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert page.json()["items"] == []
    # Not even by a row that names a file of somebody else.
    job_id = await started_with(engine, customer, file)
    assert (await told(api, customer, job_id))["image_urls"] == [None]
