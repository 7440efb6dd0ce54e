"""A generation by a model that the request names, and what it costs, as the wire has it."""

import json
import re
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.application.jobs import Wish
from app.domain.jobs import JobStatus
from app.domain.kinds import GenerationKind
from app.infrastructure.catalogue.overrides import with_prices
from app.presentation.schemas.models import model_view
from tests.builders import BUILT_IN, LINE, MODEL_IDS, terms_of
from tests.unit.presentation_stand_ins import World, problem_of

TEXT_TO_IMAGE = "/generations/images/text-to-image"
IMAGE_TO_IMAGE = "/generations/images/image-to-image"
TEXT_TO_VIDEO = "/generations/videos/text-to-video"
IMAGE_TO_VIDEO = "/generations/videos/image-to-video"
PATHS = {
    GenerationKind.TEXT_TO_IMAGE: TEXT_TO_IMAGE,
    GenerationKind.IMAGE_TO_IMAGE: IMAGE_TO_IMAGE,
    GenerationKind.TEXT_TO_VIDEO: TEXT_TO_VIDEO,
    GenerationKind.IMAGE_TO_VIDEO: IMAGE_TO_VIDEO,
}
PICTURE = "https://example.com/fox.png"
DEFAULT = MODEL_IDS[GenerationKind.TEXT_TO_IMAGE]
FOX = {"prompt": "a fox"}


async def start(world: World, path: str, body: Any, *, tokens: int = 1000) -> httpx.Response:
    _, key = await world.a_user(tokens)
    # json.dumps writes what the client's own encoder does not, such as half a surrogate pair or 400 digits.
    content = json.dumps(body)
    return await world.client().post(path, content=content, headers=key | {"Content-Type": "application/json"})


@pytest.mark.parametrize("model", BUILT_IN.models, ids=lambda model: model.id)
async def test_takes_the_example_of_each_model_and_debits_what_the_catalogue_says(model: Any) -> None:
    world = World()

    response = await start(world, PATHS[model.kind], {"model": model.id, **model.example}, tokens=10_000)

    assert response.status_code == 202
    (job,) = world.jobs.accepted
    completed = model.completed(model.example)
    assert (job.kind, job.model_id, job.parameters) == (model.kind, model.id, model.fal_input(completed))
    assert response.json()["cost_tokens"] == job.cost_tokens == model.tokens(completed)
    assert sum(line["tokens"] for line in response.json()["price"]) == job.cost_tokens


@pytest.mark.parametrize(
    ("path", "model_id", "body", "pointer", "code"),
    [
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"negative_prompt": "rain"}, "/negative_prompt", "unknown_field"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", {}, "/prompt", "required"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"output_format": "webp"}, "/output_format", "not_allowed"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"guidance_scale": 0.5}, "/guidance_scale", "too_small"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"guidance_scale": 20.5}, "/guidance_scale", "too_large"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"guidance_scale": "3"}, "/guidance_scale", "not_a_number"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"guidance_scale": True}, "/guidance_scale", "not_a_number"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"image_size": "huge"}, "/image_size", "not_allowed"),
        (TEXT_TO_IMAGE, "fal-ai/flux/dev", FOX | {"image_size": {"width": 512}}, "/image_size/height", "required"),
        (TEXT_TO_IMAGE, "fal-ai/nano-banana-pro", FOX | {"num_images": 5}, "/num_images", "too_large"),
        (TEXT_TO_IMAGE, "fal-ai/nano-banana-pro", FOX | {"resolution": "8K"}, "/resolution", "not_allowed"),
        (
            IMAGE_TO_IMAGE,
            "fal-ai/flux-2/edit",
            FOX | {"image_urls": [PICTURE] * 4},
            "/image_urls",
            "too_many",
        ),
        (IMAGE_TO_IMAGE, "fal-ai/flux-2/edit", FOX | {"image_urls": []}, "/image_urls", "too_few"),
        (IMAGE_TO_IMAGE, "fal-ai/flux-2/edit", FOX | {"image_urls": ["fox"]}, "/image_urls/0", "url_not_allowed"),
        (TEXT_TO_VIDEO, "fal-ai/veo3.1", FOX | {"duration": 5}, "/duration", "not_allowed"),
        (TEXT_TO_VIDEO, "fal-ai/veo3.1", FOX | {"duration": 8.0}, "/duration", "not_allowed"),
        (TEXT_TO_VIDEO, "fal-ai/veo3.1", FOX | {"generate_audio": "no"}, "/generate_audio", "not_a_boolean"),
        (TEXT_TO_VIDEO, "fal-ai/veo3.1", FOX | {"image_url": PICTURE}, "/image_url", "unknown_field"),
        (IMAGE_TO_VIDEO, "fal-ai/veo3.1/image-to-video", FOX, "/image_url", "required"),
        (TEXT_TO_IMAGE, DEFAULT, FOX | {"output_format": "png"}, "/output_format", "unknown_field"),
        (TEXT_TO_IMAGE, DEFAULT, FOX | {"max_cost_tokens": -1}, "/max_cost_tokens", "too_small"),
        (TEXT_TO_IMAGE, DEFAULT, FOX | {"max_cost_tokens": 5.0}, "/max_cost_tokens", "not_an_integer"),
        (TEXT_TO_IMAGE, DEFAULT, FOX | {"quote": 5}, "/quote", "not_a_string"),
    ],
)
async def test_refuses_what_the_named_model_does_not_take(
    path: str, model_id: str, body: dict[str, Any], pointer: str, code: str
) -> None:
    world = World()

    response = await start(world, path, {"model": model_id, **body})

    assert response.status_code == 422
    assert [(error["pointer"], error["code"]) for error in problem_of(response)["errors"]] == [(pointer, code)]
    assert world.jobs.accepted == []


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan")])
async def test_refuses_a_number_that_is_none(value: float) -> None:
    response = await start(World(), TEXT_TO_IMAGE, {"model": "fal-ai/flux/dev", **FOX, "guidance_scale": value})

    assert response.status_code == 422
    assert [error["pointer"] for error in problem_of(response)["errors"]] == ["/guidance_scale"]


async def test_says_the_values_and_the_bounds_of_the_named_model() -> None:
    film = await start(World(), TEXT_TO_VIDEO, {"model": "fal-ai/veo3.1", **FOX, "duration": 5})
    picture = await start(World(), TEXT_TO_IMAGE, {"model": "fal-ai/flux/dev", **FOX, "guidance_scale": 21})

    assert [error["detail"] for error in problem_of(film)["errors"]] == ["This must be one of: 4, 6 or 8."]
    assert [error["detail"] for error in problem_of(picture)["errors"]] == ["This must be at most 20."]


@pytest.mark.parametrize("path", PATHS.values())
@pytest.mark.parametrize(
    "named",
    ["", "nothing", "fal-ai/flux", "\ud800", "x" * 10_000, 5, 1.5, True, ["fal-ai/veo3.1"], {"id": "fal-ai/veo3.1"}],
)
async def test_refuses_a_model_that_is_none_and_names_those_that_fit(path: str, named: Any) -> None:
    world = World()
    (kind,) = [kind for kind, each in PATHS.items() if each == path]
    fitting = [model.id for model in BUILT_IN.of_kind(kind)]

    # Nothing else of the body is judged: it is not known by which rules.
    response = await start(world, path, {"model": named, "prompt": 5})

    problem = problem_of(response)
    detail = "There is no such model of this type."
    advice = f"{detail} Of this type there are {', '.join(fitting)}."
    assert (response.status_code, problem["code"], problem["detail"]) == (422, "unknown_model", detail)
    assert problem["errors"] == [{"pointer": "/model", "detail": advice, "code": "unknown_model"}]
    assert world.jobs.accepted == []


@pytest.mark.parametrize("kind", GenerationKind)
async def test_a_model_of_another_type_is_an_unknown_one(kind: GenerationKind) -> None:
    others = [model.id for model in BUILT_IN if model.kind is not kind]

    responses = [await start(World(), PATHS[kind], {"model": other, **FOX}) for other in others[::15]]

    assert {(response.status_code, problem_of(response)["code"]) for response in responses} == {(422, "unknown_model")}


async def test_says_of_a_model_of_another_type_where_it_is_asked_for() -> None:
    world = World()
    body = {"model": "fal-ai/veo3.1", **FOX}

    refused = problem_of(await start(world, TEXT_TO_IMAGE, body))

    detail = f"This model is of another type, TEXT_TO_VIDEO, which POST {TEXT_TO_VIDEO} makes."
    assert refused["detail"] == detail
    assert refused["errors"][0]["detail"].startswith(f"{detail} Of this type there are {DEFAULT}, ")


async def test_says_where_the_parameters_of_the_model_are_listed() -> None:
    named = await start(World(), TEXT_TO_IMAGE, {"model": "fal-ai/flux/dev", **FOX, "promt": "a fox"})
    default = await start(World(), TEXT_TO_IMAGE, {**FOX, "guidance_scale": 3})
    inside = await start(World(), TEXT_TO_IMAGE, {**FOX, "image_size": {"width": 1024, "height": 1024, "depth": 1}})

    said = [problem_of(response)["errors"][0]["detail"] for response in (named, default, inside)]
    assert said == [
        "fal-ai/flux/dev has no parameter of this name. GET /models/fal-ai/flux/dev says which it has.",
        f"{DEFAULT} has no parameter of this name. GET /models/{DEFAULT} says which it has.",
        "This field is not known here.",
    ]


@pytest.mark.parametrize("size", ["huge", 5, ["square"], None])
async def test_names_both_forms_of_a_size_where_both_are_taken(size: Any) -> None:
    response = await start(World(), TEXT_TO_IMAGE, {**FOX, "image_size": size})

    if size is None:
        assert response.status_code == 202
        return
    (error,) = problem_of(response)["errors"]
    assert (error["pointer"], error["code"]) == ("/image_size", "not_allowed")
    assert "'square_hd', " in error["detail"]
    assert error["detail"].endswith(' or {"width", "height"} in pixels.')


async def test_says_one_and_several_in_right_english() -> None:
    none = await start(World(), TEXT_TO_IMAGE, {"prompt": ""})
    many = await start(World(), IMAGE_TO_IMAGE, {**FOX, "image_urls": [PICTURE] * 3})
    no_picture = await start(World(), IMAGE_TO_IMAGE, {**FOX, "image_urls": []})

    said = [problem_of(response)["errors"][0]["detail"] for response in (none, many, no_picture)]
    assert said == [
        "This must have at least 1 character.",
        "This must have at most 2 items.",
        "This must have at least 1 item.",
    ]


async def test_refuses_values_that_do_not_go_together_at_the_one_to_change() -> None:
    world = World()
    model = {"model": "fal-ai/veo3.1", **FOX}

    refused = await start(world, TEXT_TO_VIDEO, model | {"resolution": "1080p", "duration": 4})
    assumed = await start(world, TEXT_TO_VIDEO, model | {"resolution": "1080p"})

    detail = "In 1080p and 4k a video is 8 seconds long: set duration to 8, or resolution to 720p."
    problem = problem_of(refused)
    assert (refused.status_code, problem["code"], problem["detail"]) == (422, "combination_not_allowed", detail)
    assert problem["errors"] == [{"pointer": "/duration", "detail": detail, "code": "combination_not_allowed"}]
    assert assumed.status_code == 202
    assert [job.parameters["duration"] for job in world.jobs.accepted] == ["8s"]


async def fingerprints_of(world: World, account_id: UUID, key: dict[str, str], bodies: list[Any]) -> list[bytes]:
    """Each sent with a key of its own."""
    client = world.client()
    for number, body in enumerate(bodies):
        response = await client.post(TEXT_TO_IMAGE, json=body, headers=key | {"Idempotency-Key": str(number)})
        assert response.status_code == 202, response.text
    return [world.jobs.keys[account_id, str(number)][0] for number in range(len(bodies))]


async def test_a_named_model_is_part_of_the_request_and_a_left_out_one_is_not() -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)

    plain, null, named, other = await fingerprints_of(
        world,
        account.id,
        key,
        [FOX, FOX | {"model": None}, FOX | {"model": DEFAULT}, FOX | {"model": "fal-ai/flux/dev"}],
    )

    assert plain == null
    assert len({plain, named, other}) == 3


async def test_where_the_end_is_told_is_part_of_the_request_and_nowhere_is_not() -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)
    told = FOX | {"webhook_url": "https://hooks.example.com/a"}

    plain, null, here, again, there = await fingerprints_of(
        world,
        account.id,
        key,
        [
            FOX,
            FOX | {"webhook_url": None},
            told,
            FOX | {"webhook_url": " https://hooks.example.com/a "},
            FOX | {"webhook_url": "https://hooks.example.com/b"},
        ],
    )

    assert plain == null
    assert here == again
    assert len({plain, here, there}) == 3
    assert [job.webhook_url for job in world.jobs.accepted][:3] == [None, None, told["webhook_url"]]


async def test_the_fingerprint_of_what_names_no_url_is_that_of_the_releases_before() -> None:
    """A repeat may come to a newer process than the first request."""
    world = World()
    account, key = await world.a_user(tokens=1000)

    (plain,) = await fingerprints_of(world, account.id, key, [{"prompt": "a fox"}])

    assert plain.hex() == "305c49530ccc0ea2b58a88008a52f4c51b439f330dfbd2ed3e8d26669e64972f"


async def test_what_may_be_paid_is_no_part_of_the_request() -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)
    wish = Wish(model=BUILT_IN.default_of(GenerationKind.TEXT_TO_IMAGE), parameters=FOX)
    _, quote = world.use_cases().jobs.quote(account.id, wish)

    prints = await fingerprints_of(
        world,
        account.id,
        key,
        [FOX, FOX | {"quote": quote}, FOX | {"max_cost_tokens": 5}, FOX | {"max_cost_tokens": 6}],
    )

    assert len(set(prints)) == 1


async def test_a_quote_holds_although_the_price_has_risen() -> None:
    world = World()
    account, key = await world.a_user(tokens=5)
    wish = Wish(model=BUILT_IN.default_of(GenerationKind.TEXT_TO_IMAGE), parameters=FOX)
    _, quote = world.use_cases().jobs.quote(account.id, wish)
    world.catalogue = with_prices(BUILT_IN, {"text_to_image": 50})

    without = await world.client().post(TEXT_TO_IMAGE, json=FOX, headers=key)
    quoted = await world.client().post(TEXT_TO_IMAGE, json=FOX | {"quote": quote}, headers=key)

    assert problem_of(without, "required_tokens", "balance_tokens", "missing_tokens")["required_tokens"] == 50
    assert (quoted.status_code, quoted.json()["cost_tokens"], quoted.headers["x-balance-tokens"]) == (202, 5, "0")


@pytest.mark.parametrize("quote", ["", "nonsense", "a.b.c", "\u00e9" * 5000])
async def test_answers_409_to_a_quote_that_is_none(quote: str) -> None:
    world = World()

    response = await start(world, TEXT_TO_IMAGE, FOX | {"quote": quote})

    assert (response.status_code, problem_of(response)["code"]) == (409, "quote_not_valid")
    assert world.jobs.accepted == []


async def test_answers_409_with_the_cost_where_it_is_more_than_the_caller_wants_to_pay() -> None:
    world = World()
    account, key = await world.a_user(tokens=1000)
    headers = key | {"Idempotency-Key": "order 4711"}
    client = world.client()

    refused = await client.post(TEXT_TO_IMAGE, json=FOX | {"max_cost_tokens": 4}, headers=headers)
    exact = await client.post(TEXT_TO_IMAGE, json=FOX | {"max_cost_tokens": 5}, headers=headers)
    repeated = await client.post(TEXT_TO_IMAGE, json=FOX | {"max_cost_tokens": 4}, headers=headers)

    assert refused.status_code == 409
    problem = problem_of(refused, "cost_tokens")
    assert (problem["code"], problem["cost_tokens"]) == ("price_exceeds_maximum", 5)
    assert (exact.status_code, repeated.status_code) == (202, 202)
    assert repeated.headers["idempotent-replayed"] == "true"
    assert repeated.json() == exact.json()
    assert world.accounts.accounts[account.external_user_id].balance_tokens == 995


async def test_says_in_headers_what_it_cost_and_what_is_left() -> None:
    world = World()
    _, key = await world.a_user(tokens=26)
    headers, client = key | {"Idempotency-Key": "order 4711"}, world.client()

    first = await client.post(TEXT_TO_IMAGE, json=FOX | {"num_images": 4}, headers=headers)
    other = await client.post(TEXT_TO_IMAGE, json=FOX, headers=key)
    repeated = await client.post(TEXT_TO_IMAGE, json=FOX | {"num_images": 4}, headers=headers)

    told = [(one.headers["x-cost-tokens"], one.headers["x-balance-tokens"]) for one in (first, other, repeated)]
    assert told == [("20", "6"), ("5", "1"), ("20", "1")]


async def test_a_repeat_says_what_is_left_by_now() -> None:
    world = World()
    account, key = await world.a_user(tokens=20)
    headers, client = key | {"Idempotency-Key": "order 4711"}, world.client()
    first = await client.post(TEXT_TO_IMAGE, json=FOX | {"num_images": 4}, headers=headers)
    world.accounts.add_tokens(account.id, 7)

    repeated = await client.post(TEXT_TO_IMAGE, json=FOX | {"num_images": 4}, headers=headers)

    assert (first.headers["x-balance-tokens"], repeated.headers["x-balance-tokens"]) == ("0", "7")
    operation = (await client.get("/openapi.json")).json()["paths"][TEXT_TO_IMAGE]["post"]
    about = operation["responses"]["202"]["headers"]["X-Balance-Tokens"]["description"]
    assert about == "What is left to spend: after the debit, and in a repeat as it is by now."


async def test_says_how_many_tokens_are_missing() -> None:
    world = World()

    response = await start(world, TEXT_TO_VIDEO, {"model": "fal-ai/veo3.1", **FOX, "duration": 4}, tokens=100)

    problem = problem_of(response, "required_tokens", "balance_tokens", "missing_tokens")
    assert (response.status_code, problem["code"]) == (402, "insufficient_balance")
    figures = (problem["required_tokens"], problem["balance_tokens"], problem["missing_tokens"])
    assert figures == (208, 100, 108)


async def test_shows_what_the_cost_is_made_of_where_it_is_accepted_and_in_the_job() -> None:
    world = World()
    _, key = await world.a_user(tokens=1000)
    client = world.client()

    accepted = await client.post(TEXT_TO_VIDEO, json=FOX | {"resolution": "480p", "duration": 10}, headers=key)
    shown = await client.get(accepted.headers["location"], headers=key)

    line = {"line": "video_10s", "unit": "run", "unit_tokens": 55, "factor": "1/3", "quantity": 1, "tokens": 19}
    assert accepted.json()["price"] == shown.json()["price"] == [line]
    assert accepted.json()["cost_tokens"] == shown.json()["cost_tokens"] == 19
    assert shown.json()["billing"] is None


@pytest.mark.parametrize(
    ("changes", "charged", "refunded"),
    [
        ({"status": JobStatus.COMPLETED}, 10, 0),
        ({"status": JobStatus.COMPLETED, "refunded_tokens": 5, "refunded_lines": {LINE: 5}}, 5, 5),
        ({"status": JobStatus.COMPLETED, "refunded_tokens": 5}, 5, 5),
        ({"status": JobStatus.FAILED, "refunded_tokens": 10}, 0, 10),
        ({"status": JobStatus.CANCELED, "refunded_tokens": 10}, 0, 10),
    ],
    ids=["all delivered", "in part", "in part by the release before", "failed", "canceled"],
)
async def test_shows_what_was_charged_of_each_line(changes: dict[str, Any], charged: int, refunded: int) -> None:
    world = World()
    account, key = await world.a_user()
    job = world.jobs.add(account.id, cost_tokens=10, terms=terms_of(10, outputs=2), **changes)

    response = await world.client().get(f"/generations/{job.id}", headers=key)

    billing = response.json()["billing"]
    assert (billing["charged_tokens"], billing["refunded_tokens"]) == (charged, refunded)
    assert billing["lines"] == [{"line": LINE, "charged_tokens": charged, "refunded_tokens": refunded}]


async def test_shows_a_job_whose_terms_only_a_newer_release_can_read() -> None:
    world = World()
    account, key = await world.a_user()
    job = world.jobs.add(account.id, status=JobStatus.COMPLETED, terms=None)

    response = await world.client().get(f"/generations/{job.id}", headers=key)

    assert (response.json()["cost_tokens"], response.json()["price"]) == (5, [])
    assert response.json()["billing"]["lines"] == []


async def test_a_quote_takes_the_body_of_a_generation_as_it_would_be_sent() -> None:
    world = World()
    _, key = await world.a_user(3)
    body = {"type": "TEXT_TO_IMAGE", **FOX, "max_cost_tokens": 1, "quote": "an old one"}

    answer = await world.client().post("/quotes", json=body, headers=key)

    assert answer.status_code == 200
    told = answer.json()
    assert (told["cost_tokens"], told["balance_tokens"], told["is_affordable"]) == (5, 3, False)


async def test_a_quote_takes_no_room_of_bodies_that_are_paid_for() -> None:
    world = World()
    _, key = await world.a_user(1000)
    body = {"type": "IMAGE_TO_IMAGE", "image_urls": [f"data:image/png;base64,{'A' * 70_000}"]}

    answer = await world.client().post("/quotes", json=body, headers=key)

    assert (answer.status_code, answer.json()["code"]) == (413, "request_body_too_large")


@pytest.mark.parametrize("model", BUILT_IN.models, ids=lambda model: model.id)
def test_tells_the_same_numbers_of_each_parameter_in_both_languages(model: Any) -> None:
    for name, parameter in model_view(model, is_paused=False).parameters["properties"].items():
        told = parameter["x-description"]
        assert _numbers(told["ru"], thousands="\u00a0", decimal=",") == _numbers(told["en"]), name


def _numbers(text: str, *, thousands: str = ",", decimal: str = ".") -> list[float]:
    plain = re.sub(rf"(?<=\d){thousands}(?=\d{{3}})", "", text).replace(decimal, ".")
    return sorted(float(number) for number in re.findall(r"\d+(?:\.\d+)?", plain))
