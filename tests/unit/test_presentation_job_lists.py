"""Which jobs a list has, and what a job is told with on request."""

from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.files import KeptReference
from app.domain.jobs import JobStatus
from app.domain.kinds import GenerationKind
from app.domain.outputs import OutputId
from tests.builders import MODEL_IDS
from tests.unit.presentation_stand_ins import NOW, World, problem_of

TEXT_TO_VIDEO = MODEL_IDS[GenerationKind.TEXT_TO_VIDEO]


async def world_with_jobs() -> tuple[World, dict[str, str], dict[str, str]]:
    """The jobs' ids by what they are, the oldest first, and the key of their user."""
    world = World()
    account, key = await world.a_user()
    other, _ = await world.a_user()
    world.jobs.add(other.id, status=JobStatus.FAILED)
    made: dict[str, dict[str, Any]] = {
        "failed": {"status": JobStatus.FAILED},
        "canceled": {"status": JobStatus.CANCELED},
        "submitting": {"status": JobStatus.SUBMITTING},
        "canceling": {"status": JobStatus.IN_QUEUE, "cancel_requested_at": NOW},
        "film": {"kind": GenerationKind.TEXT_TO_VIDEO, "model_id": TEXT_TO_VIDEO, "status": JobStatus.FAILED},
    }
    return world, {name: str(world.jobs.add(account.id, **changes).id) for name, changes in made.items()}, key


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=FAILED", ["film", "failed"]),
        ("status=FAILED&status=CANCELED", ["film", "canceled", "failed"]),
        ("status=QUEUED", ["submitting"]),
        ("status=CANCELING", ["canceling"]),
        ("status=IN_QUEUE", []),
        ("type=TEXT_TO_VIDEO", ["film"]),
        ("type=TEXT_TO_VIDEO&type=TEXT_TO_IMAGE&status=FAILED", ["film", "failed"]),
        (f"model={TEXT_TO_VIDEO}", ["film"]),
        (f"model={TEXT_TO_VIDEO}&status=CANCELED", []),
        # A model that nobody sells may have been sold.
        ("model=house/withdrawn", []),
        ("status=FAILED&offset=0", ["film", "failed"]),
    ],
)
async def test_lists_the_jobs_that_fit(query: str, names: list[str]) -> None:
    world, ids, key = await world_with_jobs()

    response = await world.client().get(f"/generations?{query}", headers=key)

    assert response.status_code == 200, response.text
    assert [job["job_id"] for job in response.json()["items"]] == [ids[name] for name in names]
    assert response.json()["next_cursor"] is None


async def test_without_a_filter_nothing_is_looked_through() -> None:
    world, ids, key = await world_with_jobs()

    response = await world.client().get("/generations?limit=5", headers=key)

    assert {job["job_id"] for job in response.json()["items"]} == set(ids.values())
    assert world.jobs.wanted == []


async def test_an_empty_page_leads_on() -> None:
    world, ids, key = await world_with_jobs()
    world.jobs.looked_at_max = 2

    async with world.client() as http:
        first = (await http.get("/generations?status=FAILED&type=TEXT_TO_IMAGE", headers=key)).json()
        second = (
            await http.get(f"/generations?status=FAILED&type=TEXT_TO_IMAGE&cursor={first['next_cursor']}", headers=key)
        ).json()

    assert (first["items"], first["next_cursor"]) == ([], ids["canceling"])
    assert (second["items"], second["next_cursor"]) == ([], ids["canceled"])


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("status=DONE", "/status/0", "not_allowed"),
        ("status=FAILED&status=failed", "/status/1", "not_allowed"),
        ("status=SUBMITTING", "/status/0", "not_allowed"),
        ("status=", "/status/0", "not_allowed"),
        ("&".join(["status=FAILED"] * 9), "/status", "too_many"),
        ("type=IMAGE", "/type/0", "not_allowed"),
        ("model=", "/model", "too_short"),
        ("model=a%00b", "/model", "invalid_characters"),
        ("model=a%20b", "/model", "invalid_characters"),
        (f"model={'a' * 201}", "/model", "too_long"),
        ("status=FAILED&offset=1", "/offset", "offset_with_filter"),
        ("model=any&offset=20", "/offset", "offset_with_filter"),
        ("include=output", "/include/0", "not_allowed"),
        ("include=input&include=", "/include/1", "not_allowed"),
    ],
)
async def test_refuses_a_filter_that_is_none(query: str, pointer: str, code: str) -> None:
    world, _, key = await world_with_jobs()

    response = await world.client().get(f"/generations?{query}", headers=key)

    assert response.status_code == 422
    assert [(error["pointer"], error["code"]) for error in problem_of(response)["errors"]] == [(pointer, code)]


async def test_tells_what_a_job_was_started_with_on_request_alone() -> None:
    world = World()
    _, key = await world.a_user(tokens=100)
    body = {"prompt": "a fox", "num_images": 2, "image_size": {"width": 1024, "height": 768}, "seed": 7}

    async with world.client() as http:
        job_id = (await http.post("/generations/images/text-to-image", json=body, headers=key)).json()["job_id"]
        plain = [(await http.get(path, headers=key)).json() for path in (f"/generations/{job_id}", "/generations")]
        assert world.jobs.inputs_asked_for == []
        job = (await http.get(f"/generations/{job_id}?include=input", headers=key)).json()
        page = (await http.get("/generations?include=input&include=input", headers=key)).json()
        filtered = (await http.get("/generations?include=input&status=QUEUED", headers=key)).json()

    assert "input" not in plain[0]
    assert "input" not in plain[1]["items"][0]
    assert job["input"] == body
    assert {name: value for name, value in job.items() if name != "input"} == plain[0]
    assert page["items"] == filtered["items"] == [job]


async def test_what_is_told_can_be_sent_again() -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    body = {"prompt": "a storm", "duration": 10, "resolution": "480p", "audio_url": "https://example.com/wind.mp3"}

    async with world.client() as http:
        started = [await http.post("/generations/videos/text-to-video", json=body, headers=key)]
        job = (await http.get(f"/generations/{started[0].json()['job_id']}?include=input", headers=key)).json()
        again = {"model": job["model_id"], **job["input"]}
        started.append(await http.post("/generations/videos/text-to-video", json=again, headers=key))

    assert [answer.status_code for answer in started] == [202, 202]
    first, second = world.jobs.accepted
    assert (first.parameters, first.model_id, first.terms) == (second.parameters, second.model_id, second.terms)


async def test_names_kept_files_and_shows_no_marks() -> None:
    world = World()
    _, key = await world.a_user(tokens=100)
    file_id, gone_id, source_id = (uuid4() for _ in range(3))
    known: dict[str, KeptReference] = {str(file_id): OutputId(source_id, 0)}
    world.jobs.references.update(known)

    def mark(kept: UUID) -> dict[str, Any]:
        return {"file_id": str(kept), "content_type": "image/png", "sha256": "ab" * 32, "size_bytes": 9}

    async with world.client() as http:
        body = {"prompt": "in snow", "image_urls": ["https://example.com/a.png"]}
        started = await http.post("/generations/images/image-to-image", json=body, headers=key)
        job = world.jobs.accepted[0]
        # What an accept with a store of files writes.
        marked = {**job.parameters, "image_urls": [mark(file_id), mark(gone_id)]}
        world.jobs.accepted[0] = replace(job, parameters=marked)
        told = await http.get(f"/generations/{started.json()['job_id']}?include=input", headers=key)

    assert told.json()["input"]["image_urls"] == [f"output:{source_id}/0", None]
    assert "sha256" not in told.text


async def test_a_job_of_which_nothing_can_be_told_says_so() -> None:
    world, ids, key = await world_with_jobs()

    response = await world.client().get(f"/generations/{ids['failed']}?include=input", headers=key)

    assert response.json()["input"] is None


@pytest.mark.parametrize("query", ["include=input", "include=nothing"])
async def test_somebody_elses_job_is_an_unknown_one(query: str) -> None:
    world = World()
    owner, _ = await world.a_user()
    _, key = await world.a_user()
    foreign = world.jobs.add(owner.id).id

    response = await world.client().get(f"/generations/{foreign}?{query}", headers=key)

    assert response.status_code == (404 if query == "include=input" else 422)
    assert world.jobs.inputs_asked_for == []
