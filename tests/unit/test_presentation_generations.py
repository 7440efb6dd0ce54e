import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from app.domain.jobs import JobStatus
from app.domain.kinds import GenerationKind
from app.presentation.http.api import create_api
from tests.builders import BUILT_IN, LINE, MODEL_IDS, terms_of
from tests.unit.presentation_stand_ins import NOW, World, problem_of

TEXT_TO_IMAGE = "/generations/images/text-to-image"
IMAGE_TO_IMAGE = "/generations/images/image-to-image"
TEXT_TO_VIDEO = "/generations/videos/text-to-video"
IMAGE_TO_VIDEO = "/generations/videos/image-to-video"
PICTURE = "https://example.com/fox.png"
# What fal is sent of a film where nothing is said of it, in its own spelling.
FILM = {"duration": "5", "resolution": "1080p"}

SMALLEST: dict[str, tuple[GenerationKind, dict[str, Any], dict[str, Any]]] = {
    TEXT_TO_IMAGE: (GenerationKind.TEXT_TO_IMAGE, {"prompt": "a fox"}, {"num_images": 1}),
    IMAGE_TO_IMAGE: (
        GenerationKind.IMAGE_TO_IMAGE,
        {"prompt": "a fox", "image_urls": [PICTURE]},
        {"num_images": 1},
    ),
    TEXT_TO_VIDEO: (GenerationKind.TEXT_TO_VIDEO, {"prompt": "a fox"}, FILM),
    IMAGE_TO_VIDEO: (GenerationKind.IMAGE_TO_VIDEO, {"prompt": "a fox", "image_url": PICTURE}, FILM),
}
PRICES: dict[str, dict[str, Any]] = {
    path: {"line": line, "unit": unit, "unit_tokens": tokens, "factor": "1", "quantity": 1, "tokens": tokens}
    for path, line, unit, tokens in [
        (TEXT_TO_IMAGE, "images", "image", 5),
        (IMAGE_TO_IMAGE, "images", "image", 6),
        (TEXT_TO_VIDEO, "video_5s", "run", 30),
        (IMAGE_TO_VIDEO, "video_5s", "run", 35),
    ]
}
IMAGE_OPTIONS: dict[str, Any] = {
    "negative_prompt": "",
    "num_images": 4,
    "image_size": {"width": 410, "height": 1440},
    "seed": 2**31 - 1,
    "enable_safety_checker": True,
}
PRESETS = ("square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9")
VIDEO_OPTIONS: dict[str, Any] = {
    "negative_prompt": "rain",
    "duration": 10,
    "resolution": "480p",
    "audio_url": "https://example.com/wind.mp3",
    "seed": 0,
    "enable_prompt_expansion": False,
    "enable_safety_checker": False,
}
EVERY_OPTION = {
    TEXT_TO_IMAGE: IMAGE_OPTIONS | {"enable_prompt_expansion": False},
    IMAGE_TO_IMAGE: IMAGE_OPTIONS | {"image_size": "landscape_16_9", "image_urls": [PICTURE, PICTURE]},
    TEXT_TO_VIDEO: VIDEO_OPTIONS | {"aspect_ratio": "9:16"},
    IMAGE_TO_VIDEO: VIDEO_OPTIONS,
}


async def start(world: World, path: str, body: dict[str, Any]) -> httpx.Response:
    _, key = await world.a_user(tokens=1000)
    # json.dumps escapes what the client's own encoder cannot send, such as half a surrogate pair.
    headers = key | {"Content-Type": "application/json"}
    return await world.client().post(path, content=json.dumps(body), headers=headers)


@pytest.mark.parametrize("path", SMALLEST)
async def test_hands_on_what_was_sent_and_what_the_price_depends_on(path: str) -> None:
    world = World()
    kind, body, added = SMALLEST[path]

    response = await start(world, path, body)

    job = world.jobs.accepted[0]
    assert response.status_code == 202
    assert response.headers["location"] == f"/generations/{job.id}"
    assert response.json() == {
        "job_id": str(job.id),
        "status": "QUEUED",
        "cost_tokens": job.cost_tokens,
        "price": [PRICES[path]],
        "created_at": "2026-11-23T10:15:30.123456Z",
    }
    assert (job.kind, job.model_id, job.parameters) == (kind, MODEL_IDS[kind], body | added)


@pytest.mark.parametrize("path", SMALLEST)
async def test_takes_every_option(path: str) -> None:
    world = World()
    _, body, _ = SMALLEST[path]

    response = await start(world, path, body | EVERY_OPTION[path])

    assert response.status_code == 202
    spelled = {"duration": "10"} if "video" in path else {}
    assert world.jobs.accepted[0].parameters == body | EVERY_OPTION[path] | spelled


async def test_keeps_the_prompt_as_it_was_sent() -> None:
    world = World()
    prompt = " \tFüchse 🦊 e\u0301 \u202e"

    await start(world, TEXT_TO_IMAGE, {"prompt": prompt})

    assert world.jobs.accepted[0].parameters["prompt"] == prompt


@pytest.mark.parametrize(("path", "length_max"), [(TEXT_TO_IMAGE, 2000), (TEXT_TO_VIDEO, 800)])
async def test_counts_the_prompt_in_characters(path: str, length_max: int) -> None:
    longest = await start(World(), path, {"prompt": "🦊" * length_max})
    too_long = await start(World(), path, {"prompt": "🦊" * (length_max + 1)})

    assert longest.status_code == 202
    assert problem_of(too_long)["errors"] == [
        {"pointer": "/prompt", "detail": f"This must have at most {length_max} characters.", "code": "too_long"}
    ]


@pytest.mark.parametrize(
    ("path", "changes", "pointer", "code"),
    [
        (TEXT_TO_IMAGE, {"prompt": ""}, "/prompt", "too_short"),
        (TEXT_TO_IMAGE, {"prompt": " \n\u2003"}, "/prompt", "blank"),
        (TEXT_TO_IMAGE, {"prompt": "a\0b"}, "/prompt", "invalid_text"),
        (TEXT_TO_IMAGE, {"prompt": "\ud800"}, "/prompt", "invalid_text"),
        (TEXT_TO_IMAGE, {"prompt": 5}, "/prompt", "not_a_string"),
        (TEXT_TO_IMAGE, {"prompt": None}, "/prompt", "not_a_string"),
        (TEXT_TO_IMAGE, {"negative_prompt": "x" * 501}, "/negative_prompt", "too_long"),
        (TEXT_TO_IMAGE, {"negative_prompt": "a\0b"}, "/negative_prompt", "invalid_text"),
        (TEXT_TO_IMAGE, {"num_images": 0}, "/num_images", "too_small"),
        (TEXT_TO_IMAGE, {"num_images": 5}, "/num_images", "too_large"),
        (TEXT_TO_IMAGE, {"num_images": True}, "/num_images", "not_an_integer"),
        (TEXT_TO_IMAGE, {"num_images": "4"}, "/num_images", "not_an_integer"),
        (TEXT_TO_IMAGE, {"num_images": 4.0}, "/num_images", "not_an_integer"),
        (TEXT_TO_IMAGE, {"seed": -1}, "/seed", "too_small"),
        (TEXT_TO_IMAGE, {"seed": 2**31}, "/seed", "too_large"),
        (TEXT_TO_IMAGE, {"seed": 10**400}, "/seed", "too_large"),
        (TEXT_TO_IMAGE, {"seed": float("nan")}, "/seed", "not_an_integer"),
        (TEXT_TO_IMAGE, {"num_images": None}, "/num_images", "not_an_integer"),
        (TEXT_TO_IMAGE, {"image_size": "huge"}, "/image_size", "not_allowed"),
        (TEXT_TO_IMAGE, {"image_size": 5}, "/image_size", "not_allowed"),
        (TEXT_TO_IMAGE, {"image_size": "x" * 100_000}, "/image_size", "not_allowed"),
        (TEXT_TO_IMAGE, {"image_size": {"width": 383, "height": 400}}, "/image_size/width", "too_small"),
        (TEXT_TO_IMAGE, {"image_size": {"width": 400, "height": 1441}}, "/image_size/height", "too_large"),
        (TEXT_TO_IMAGE, {"image_size": {"width": 400}}, "/image_size/height", "required"),
        (TEXT_TO_IMAGE, {"image_size": {"width": 384, "height": 384}}, "/image_size", "image_size_not_allowed"),
        (TEXT_TO_IMAGE, {"image_size": {"width": 1440, "height": 409}}, "/image_size", "image_size_not_allowed"),
        (TEXT_TO_IMAGE, {"image_size": {"width": 767, "height": 768}}, "/image_size", "image_size_not_allowed"),
        (IMAGE_TO_IMAGE, {"image_size": {"width": 384, "height": 383}}, "/image_size/height", "too_small"),
        (IMAGE_TO_IMAGE, {"image_size": {"width": 1441, "height": 384}}, "/image_size/width", "too_large"),
        (TEXT_TO_IMAGE, {"enable_safety_checker": 1}, "/enable_safety_checker", "not_a_boolean"),
        (TEXT_TO_IMAGE, {"enable_prompt_expansion": "yes"}, "/enable_prompt_expansion", "not_a_boolean"),
        (TEXT_TO_IMAGE, {"num_image": 4}, "/num_image", "unknown_field"),
        (TEXT_TO_IMAGE, {"cost_tokens": 0}, "/cost_tokens", "unknown_field"),
        (TEXT_TO_IMAGE, {"duration": 5}, "/duration", "unknown_field"),
        (IMAGE_TO_IMAGE, {"enable_prompt_expansion": True}, "/enable_prompt_expansion", "unknown_field"),
        (IMAGE_TO_IMAGE, {"image_urls": []}, "/image_urls", "too_few"),
        (IMAGE_TO_IMAGE, {"image_urls": [PICTURE] * 3}, "/image_urls", "too_many"),
        (IMAGE_TO_IMAGE, {"image_urls": PICTURE}, "/image_urls", "not_a_list"),
        (IMAGE_TO_IMAGE, {"image_urls": [1]}, "/image_urls/0", "not_a_string"),
        (IMAGE_TO_IMAGE, {"image_urls": [PICTURE, None]}, "/image_urls/1", "not_a_string"),
        (IMAGE_TO_IMAGE, {"image_urls": [{}]}, "/image_urls/0", "not_a_string"),
        (IMAGE_TO_IMAGE, {"image_urls": ["http://127.0.0.1/"]}, "/image_urls/0", "url_not_allowed"),
        (TEXT_TO_VIDEO, {"duration": "5"}, "/duration", "not_allowed"),
        (TEXT_TO_VIDEO, {"duration": 5.0}, "/duration", "not_allowed"),
        (TEXT_TO_VIDEO, {"duration": True}, "/duration", "not_allowed"),
        (TEXT_TO_VIDEO, {"duration": 6}, "/duration", "not_allowed"),
        (TEXT_TO_VIDEO, {"resolution": "4k"}, "/resolution", "not_allowed"),
        (TEXT_TO_VIDEO, {"aspect_ratio": "4:3"}, "/aspect_ratio", "not_allowed"),
        (TEXT_TO_VIDEO, {"audio_url": "data:image/png;base64,AAAA"}, "/audio_url", "data_uri_not_allowed"),
        (IMAGE_TO_VIDEO, {"aspect_ratio": "1:1"}, "/aspect_ratio", "unknown_field"),
        (IMAGE_TO_VIDEO, {"image_url": "fox.png"}, "/image_url", "url_not_allowed"),
    ],
)
async def test_refuses_a_field_and_takes_nothing(path: str, changes: dict[str, Any], pointer: str, code: str) -> None:
    world = World()
    _, body, _ = SMALLEST[path]

    response = await start(world, path, body | changes)

    assert response.status_code == 422
    assert [(error["pointer"], error["code"]) for error in problem_of(response)["errors"]] == [(pointer, code)]
    assert world.jobs.accepted == []


@pytest.mark.parametrize(
    ("path", "size"),
    [
        (TEXT_TO_IMAGE, {"width": 768, "height": 768}),
        (TEXT_TO_IMAGE, {"width": 1440, "height": 1440}),
        (TEXT_TO_IMAGE, {"width": 1440, "height": 410}),
        (IMAGE_TO_IMAGE, {"width": 384, "height": 384}),
        *((path, preset) for path in (TEXT_TO_IMAGE, IMAGE_TO_IMAGE) for preset in PRESETS),
    ],
)
async def test_takes_each_size_that_the_model_takes(path: str, size: Any) -> None:
    world = World()
    _, body, _ = SMALLEST[path]

    response = await start(world, path, body | {"image_size": size})

    assert response.status_code == 202


async def test_says_the_numbers_of_a_size_that_the_model_does_not_take() -> None:
    response = await start(World(), TEXT_TO_IMAGE, {"prompt": "a fox", "image_size": {"width": 384, "height": 384}})

    (error,) = problem_of(response)["errors"]
    assert error["detail"] == (
        "Each side must have 384 to 1440 pixels, and width times height must be 589824 to 2073600, "
        "and the longer side may be at most 4 times the shorter one."
    )


@pytest.mark.parametrize("path", SMALLEST)
async def test_an_operator_can_keep_the_safety_checker_on(path: str) -> None:
    world = World(is_safety_checker_required=True)
    _, body, _ = SMALLEST[path]

    off = await start(world, path, body | {"enable_safety_checker": False})
    answers = [await start(world, path, body | told) for told in ({}, {"enable_safety_checker": True})]

    assert off.status_code == 422
    assert [(error["pointer"], error["code"]) for error in problem_of(off)["errors"]] == [
        ("/enable_safety_checker", "safety_checker_required")
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [job.parameters["enable_safety_checker"] for job in world.jobs.accepted] == [True, True]


async def test_a_repeat_is_known_although_the_operator_has_changed_the_setting() -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    headers = key | {"Idempotency-Key": "order 4711"}
    first = await world.client().post(TEXT_TO_IMAGE, json={"prompt": "a fox"}, headers=headers)

    world.is_safety_checker_required = True
    second = await world.client().post(TEXT_TO_IMAGE, json={"prompt": "a fox"}, headers=headers)

    assert second.headers["idempotent-replayed"] == "true"
    assert second.json()["job_id"] == first.json()["job_id"]


async def test_fal_is_told_to_keep_it_on_where_users_have_no_word_in_it() -> None:
    model, body = "fal-ai/flux/schnell", {"prompt": "A fox", "model": "fal-ai/flux/schnell"}
    asked, ordered = World(), World(is_safety_checker_required=True)

    refused = await start(ordered, TEXT_TO_IMAGE, body | {"enable_safety_checker": True})
    answers = [await start(world, TEXT_TO_IMAGE, body) for world in (asked, ordered)]

    assert refused.status_code == 422
    assert [answer.status_code for answer in answers] == [202, 202]
    assert "enable_safety_checker" not in asked.jobs.accepted[0].parameters
    assert ordered.jobs.accepted[0].model_id == model
    assert ordered.jobs.accepted[0].parameters["enable_safety_checker"] is True


def test_the_document_says_that_the_operator_keeps_the_safety_checker_on() -> None:
    schemas = create_api(BUILT_IN, version="1", is_safety_checker_required=True).openapi()["components"]["schemas"]

    properties = [schema["properties"] for schema in schemas.values() if "properties" in schema]
    fields = [fields["enable_safety_checker"] for fields in properties if "enable_safety_checker" in fields]
    assert len(fields) == sum("enable_safety_checker" in model.parameters for model in BUILT_IN)
    assert all(field["anyOf"] == [{"type": "boolean", "const": True}, {"type": "null"}] for field in fields)


async def test_null_is_the_same_as_left_out() -> None:
    world = World()

    response = await start(world, TEXT_TO_VIDEO, {"prompt": "a fox", "seed": None, "resolution": None})

    assert response.status_code == 202
    assert world.jobs.accepted[0].parameters == {"prompt": "a fox"} | FILM


async def test_answers_402_when_the_balance_is_too_low() -> None:
    world = World()
    account, key = await world.a_user(tokens=9)

    response = await world.client().post(TEXT_TO_IMAGE, json={"prompt": "a fox", "num_images": 2}, headers=key)

    assert response.status_code == 402
    figures = {"required_tokens": 10, "balance_tokens": 9, "missing_tokens": 1}
    problem = problem_of(response, *figures)
    assert problem["code"] == "insufficient_balance"
    assert problem["detail"] == "insufficient balance"
    assert {name: problem[name] for name in figures} == figures
    assert world.accounts.accounts[account.external_user_id].balance_tokens == 9


async def test_shows_a_job() -> None:
    world = World()
    account, key = await world.a_user()
    job = world.jobs.add(
        account.id,
        status=JobStatus.COMPLETED,
        fal_request_id="764cabcf",
        result={"images": [{"url": "https://v3b.fal.media/fox.png"}]},
        updated_at=NOW + timedelta(seconds=10),
        terms=terms_of(5),
    )

    response = await world.client().get(f"/generations/{job.id}", headers=key)

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.json() == {
        "job_id": str(job.id),
        "type": "TEXT_TO_IMAGE",
        "model_id": "fal-ai/wan-25-preview/text-to-image",
        "status": "COMPLETED",
        "cost_tokens": 5,
        "price": [{"line": LINE, "unit": "image", "unit_tokens": 5, "factor": "1", "quantity": 1, "tokens": 5}],
        "fal_request_id": "764cabcf",
        "result": {"images": [{"url": "https://v3b.fal.media/fox.png"}]},
        "outputs": [],
        "error_code": None,
        "error_message": None,
        "status_reason": None,
        "waiting_for": None,
        "queue_position": None,
        "eta_seconds": None,
        "billing": {
            "charged_tokens": 5,
            "refunded_tokens": 0,
            "outcome": "charged",
            "reason": "Everything was delivered.",
            "lines": [{"line": LINE, "charged_tokens": 5, "refunded_tokens": 0}],
        },
        "created_at": "2026-11-23T10:15:30.123456Z",
        "updated_at": "2026-11-23T10:15:40.123456Z",
    }


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"status": JobStatus.SUBMITTING}, "QUEUED"),
        ({"status": JobStatus.IN_QUEUE}, "IN_QUEUE"),
        ({"status": JobStatus.IN_PROGRESS, "cancel_requested_at": NOW}, "CANCELING"),
        ({"status": JobStatus.CANCELED, "cancel_requested_at": NOW}, "CANCELED"),
    ],
)
async def test_shows_the_public_status(changes: dict[str, Any], shown: str) -> None:
    world = World()
    account, key = await world.a_user()
    job = world.jobs.add(account.id, **changes)

    response = await world.client().get(f"/generations/{job.id}", headers=key)

    assert response.json()["status"] == shown


async def test_answers_for_another_users_job_as_for_an_unknown_one() -> None:
    world = World()
    owner, _ = await world.a_user()
    _, key = await world.a_user()
    foreign, unknown = world.jobs.add(owner.id).id, uuid4()
    headers = key | {"X-Request-Id": "the-same"}

    answers = [await world.client().get(f"/generations/{job_id}", headers=headers) for job_id in (foreign, unknown)]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert problem_of(answers[0])["code"] == "job_not_found"
    assert answers[0].content == answers[1].content


UUID_TEXT = "0b6f2a4e-5c1d-4e8f-9a3b-7d2c1e0f4a5b"


@pytest.mark.parametrize(
    "text",
    [
        f"{{{UUID_TEXT}}}",
        f"urn:uuid:{UUID_TEXT}",
        UUID_TEXT.replace("-", ""),
        f"{UUID_TEXT}0",
        f"{UUID_TEXT}%0A",
        "%00",
        "%F0%9F%A6%8A",
        "9223372036854775808",
        "x" * 10_240,
    ],
)
@pytest.mark.parametrize(("method", "suffix"), [("GET", ""), ("POST", "/cancel")])
async def test_looks_up_no_job_by_an_odd_id(text: str, method: str, suffix: str) -> None:
    world = World()
    _, key = await world.a_user()

    response = await world.client().request(method, f"/generations/{text}{suffix}", headers=key)

    assert response.status_code == 404
    assert problem_of(response)["code"] == "job_not_found"
    assert world.jobs.looked_up == []


async def test_looks_up_a_job_by_an_id_in_capitals() -> None:
    world = World()
    account, key = await world.a_user()
    world.jobs.add(account.id, id=UUID(UUID_TEXT))

    response = await world.client().get(f"/generations/{UUID_TEXT.upper()}", headers=key)

    assert response.json()["job_id"] == UUID_TEXT


async def test_lists_the_jobs_newest_first_in_pages() -> None:
    world = World()
    account, key = await world.a_user()
    other, _ = await world.a_user()
    world.jobs.add(other.id)
    ids = [str(world.jobs.add(account.id).id) for _ in range(5)]

    response = await world.client().get("/generations", params={"limit": 2, "offset": 1}, headers=key)

    assert response.headers["cache-control"] == "no-store"
    assert (response.json()["limit"], response.json()["offset"]) == (2, 1)
    assert [job["job_id"] for job in response.json()["items"]] == [ids[3], ids[2]]


async def test_lists_twenty_jobs_unless_told_otherwise() -> None:
    world = World()
    account, key = await world.a_user()
    for _ in range(21):
        world.jobs.add(account.id)

    response = await world.client().get("/generations", headers=key)

    assert (response.json()["limit"], response.json()["offset"]) == (20, 0)
    assert len(response.json()["items"]) == 20


@pytest.mark.parametrize("query", ["limit=1", "limit=100", "offset=100000", "limit=7&limit=8", "else=1"])
async def test_takes_a_page_within_the_limits(query: str) -> None:
    world = World()
    _, key = await world.a_user()

    response = await world.client().get(f"/generations?{query}", headers=key)

    assert response.status_code == 200


@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "100001",
        "9223372036854775808",
        str(10**30),
        "9" * 5000,
        "1e3",
        "5.0",
        "1_0",
        "%205",
        "%D9%A3",
        "%FF",
        "",
        "x",
    ],
)
async def test_refuses_a_page_outside_the_limits(name: str, value: str) -> None:
    world = World()
    _, key = await world.a_user()

    response = await world.client().get(f"/generations?{name}={value}", headers=key)

    assert response.status_code == 422
    assert [error["pointer"] for error in problem_of(response)["errors"]] == [f"/{name}"]


async def test_cancels_a_waiting_job_and_answers_with_it() -> None:
    world = World()
    account, key = await world.a_user()
    job = world.jobs.add(account.id)

    response = await world.client().post(f"/generations/{job.id}/cancel", headers=key)

    assert response.status_code == 200
    assert response.json()["status"] == "CANCELED"


async def test_answers_400_when_a_finished_job_is_to_be_canceled() -> None:
    world = World()
    account, key = await world.a_user()
    job = world.jobs.add(account.id, status=JobStatus.COMPLETED)

    response = await world.client().post(f"/generations/{job.id}/cancel", headers=key)

    assert response.status_code == 400
    assert problem_of(response)["code"] == "cannot_cancel_finished_job"
    assert problem_of(response)["detail"] == "cannot cancel finished job"


async def start_twice(
    world: World, first: dict[str, Any], second: dict[str, Any], path: str = TEXT_TO_IMAGE
) -> tuple[httpx.Response, httpx.Response]:
    """With the same key, the first one as text to image."""
    _, key = await world.a_user(tokens=1000)
    client, headers = world.client(), key | {"Idempotency-Key": "order 4711"}
    return (
        await client.post(TEXT_TO_IMAGE, json=first, headers=headers),
        await client.post(path, json=second, headers=headers),
    )


async def test_answers_a_repeated_key_with_the_first_requests_job() -> None:
    world = World()

    first, second = await start_twice(world, {"prompt": "a fox", "seed": 5}, {"seed": 5, "prompt": "a fox"})

    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert len(world.jobs.accepted) == 1


@pytest.mark.parametrize(
    ("path", "body"), [(TEXT_TO_IMAGE, {"prompt": "an owl"}), (TEXT_TO_VIDEO, {"prompt": "a fox"})]
)
async def test_refuses_a_key_that_names_another_request(path: str, body: dict[str, Any]) -> None:
    world = World()

    _, second = await start_twice(world, {"prompt": "a fox"}, body, path)

    assert second.status_code == 422
    assert problem_of(second)["code"] == "idempotency_key_reused"
    assert [(error["pointer"], error["code"]) for error in problem_of(second)["errors"]] == [
        ("/Idempotency-Key", "idempotency_key_reused")
    ]
    assert "retry-after" not in second.headers
    assert len(world.jobs.accepted) == 1


async def test_asks_to_come_back_for_a_key_that_is_in_use() -> None:
    world = World()
    world.jobs.keys_in_use.add("order 4711")

    response, _ = await start_twice(world, {"prompt": "a fox"}, {"prompt": "a fox"})

    assert response.status_code == 409
    assert problem_of(response)["code"] == "idempotency_key_in_use"
    assert response.headers["retry-after"] == "1"
    assert world.jobs.accepted == []


@pytest.mark.parametrize("path", SMALLEST)
@pytest.mark.parametrize("value", ["k", "~ !k", "x" * 255])
async def test_takes_a_key_within_the_limits(path: str, value: str) -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)

    response = await world.client().post(path, json=SMALLEST[path][1], headers=key | {"Idempotency-Key": value})

    assert response.status_code == 202
    assert list(world.jobs.keys) == [(account.id, value)]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([b""], "too_short"),
        ([b"x" * 256], "too_long"),
        (["clé".encode()], "invalid_characters"),
        (["clé".encode("latin-1")], "invalid_characters"),
        ([b"a\tb"], "invalid_characters"),
        ([b"\x7f"], "invalid_characters"),
        ([b"one", b"two"], "repeated_header"),
        ([b"one", b"one"], "repeated_header"),
    ],
)
async def test_refuses_a_key_that_is_none(values: list[bytes], code: str) -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    sent = [(b"Idempotency-Key", value) for value in values]
    headers = [(b"X-API-Key", key["X-API-Key"].encode()), *sent]

    response = await world.client().post(TEXT_TO_IMAGE, json={"prompt": "a fox"}, headers=headers)

    assert response.status_code == 422
    assert [(error["pointer"], error["code"]) for error in problem_of(response)["errors"]] == [
        ("/Idempotency-Key", code)
    ]
    assert world.jobs.accepted == []
