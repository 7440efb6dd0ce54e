"""The endpoints that the simulator knows from its files: what they accept, refuse, deliver and are billed for."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from simulator.answers import BILLABLE_UNITS_HEADER, Answer, Refused
from simulator.arguments import Input
from simulator.behaviours import behaviour_of
from simulator.listed import LISTED, ListedEndpoint
from simulator.listed_runs import success
from simulator.models import invalid_arguments
from simulator.requests import Outcome, QueueRequest

URL = "https://example.com/p.png"
every_endpoint = pytest.mark.parametrize("endpoint", LISTED.values(), ids=list(LISTED))


def a_value(spec: Input) -> Any:
    return [URL] if spec.type == "strings" else URL


def least(endpoint: ListedEndpoint) -> dict[str, Any]:
    return {name: a_value(spec) for name, spec in endpoint.inputs.items() if spec.required}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "input.jpg"
    Image.new("RGB", (1600, 900)).save(path)
    return path


def outcome(endpoint: ListedEndpoint, given: dict[str, Any], picture: Path | None = None) -> Outcome:
    request = QueueRequest(
        request_id="019e1951-c778-7120-8f00-000000000000",
        endpoint_id=endpoint.endpoint_id,
        app_id="fal-ai/app",
        base_url="http://fal",
        input=given,
        behaviour=behaviour_of(given.get("prompt")),
        attempt=None,
        key_id="id",
        submitted_at=0,
        started_at=0,
        ended_at=0,
    )
    arguments = endpoint.validated(given)
    sources = tuple(picture for _ in endpoint.input_urls(arguments) if picture)
    return success(request, endpoint, arguments, sources)


def refusal(endpoint_id: str, given: dict[str, Any]) -> Answer:
    try:
        LISTED[endpoint_id].validated(least(LISTED[endpoint_id]) | given)
    except ValidationError as error:
        return invalid_arguments(error)
    except Refused as refused:
        return refused.answer
    raise AssertionError("nothing was refused")


def units(endpoint_id: str, given: dict[str, Any], picture: Path | None = None) -> float:
    endpoint = LISTED[endpoint_id]
    return float(outcome(endpoint, least(endpoint) | given, picture).answer.headers[BILLABLE_UNITS_HEADER])


def test_knows_every_family_in_all_four_categories() -> None:
    categories = [endpoint.category for endpoint in LISTED.values()]

    assert len(LISTED) >= 85
    assert {category: categories.count(category) >= 6 for category in categories} == dict.fromkeys(
        ("text-to-image", "image-to-image", "text-to-video", "image-to-video"), True
    )


@every_endpoint
def test_names_only_inputs_that_it_has(endpoint: ListedEndpoint) -> None:
    named = {name for line in endpoint.price for name in (*line.when, *line.factors)}
    named |= {name for rule in endpoint.refused for name in (*rule.given, *rule.when, *rule.must)}
    named |= {endpoint.images_per_generation} if endpoint.images_per_generation else set()

    assert named <= set(endpoint.inputs)
    for line in endpoint.price:
        for name, values in line.when.items():
            assert set(values) <= set(endpoint.inputs[name].values or (True, False))


@every_endpoint
def test_bills_every_combination_that_its_price_depends_on(endpoint: ListedEndpoint, picture: Path) -> None:
    named = sorted({name for line in endpoint.price for name in (*line.when, *line.factors)})
    choices = [endpoint.inputs[name].values or (True, False) for name in named]

    for combination in itertools.product(*choices):
        assert units(endpoint.endpoint_id, dict(zip(named, combination, strict=True)), picture) > 0


@every_endpoint
def test_delivers_the_result_of_its_model(endpoint: ListedEndpoint, picture: Path) -> None:
    body = outcome(endpoint, least(endpoint), picture).answer.body

    files = [body["video"]] if endpoint.makes_video else body["images"]
    assert set(body) == {"video" if endpoint.makes_video else "images", *endpoint.fields}
    assert len(files) == 1
    assert ("width" in files[0]) == (endpoint.sizes != "absent")
    assert (files[0].get("width") is None) == (endpoint.sizes != "told")


@pytest.mark.parametrize(
    ("endpoint_id", "given", "error_type", "loc"),
    [
        ("fal-ai/veo3.1", {"duration": 8}, "one_of", ["duration"]),
        ("fal-ai/veo3.1", {"duration": "8"}, "one_of", ["duration"]),
        ("fal-ai/kling-video/v2.6/pro/text-to-video", {"duration": 5}, "one_of", ["duration"]),
        ("fal-ai/ltx-2.3/text-to-video", {"duration": "6"}, "one_of", ["duration"]),
        ("fal-ai/minimax/hailuo-02/standard/image-to-video", {"resolution": "768p"}, "one_of", ["resolution"]),
        ("fal-ai/nano-banana-pro", {"resolution": "1k"}, "one_of", ["resolution"]),
        ("xai/grok-imagine-image", {"resolution": "1K"}, "one_of", ["resolution"]),
        ("fal-ai/ideogram/v3", {"rendering_speed": "turbo"}, "one_of", ["rendering_speed"]),
        ("fal-ai/flux-pro/v1.1", {"safety_tolerance": 2}, "one_of", ["safety_tolerance"]),
        ("fal-ai/flux/schnell", {"num_inference_steps": 13}, "less_than_equal", ["num_inference_steps"]),
        ("fal-ai/flux/schnell", {"num_images": 0}, "greater_than_equal", ["num_images"]),
        ("fal-ai/flux/schnell", {"seed": "abc"}, "int_parsing", ["seed"]),
        ("fal-ai/flux-pro/kontext", {"image_url": None}, "string_type", ["image_url"]),
        ("fal-ai/flux-pro/kontext", {"image_url": [URL]}, "string_type", ["image_url"]),
        ("fal-ai/nano-banana-pro/edit", {"image_urls": []}, "sequence_too_short", ["image_urls"]),
        ("fal-ai/nano-banana-pro/edit", {"image_urls": [URL] * 15}, "sequence_too_long", ["image_urls"]),
        ("fal-ai/wan/v2.7/text-to-video", {"prompt": "x" * 9000}, "string_too_long", ["prompt"]),
        ("fal-ai/flux-2-pro", {"image_size": {"width": 1000, "height": 1000}}, "value_error", ["image_size"]),
        (
            "fal-ai/ltx-2.3/text-to-video/fast",
            {"duration": 12, "resolution": "2160p"},
            "value_error",
            ["resolution"],
        ),
        ("fal-ai/ltx-2.3/text-to-video/fast", {"duration": 20, "fps": 50}, "value_error", ["fps"]),
        (
            "fal-ai/vidu/q3/image-to-video",
            {"end_image_url": URL, "resolution": "360p"},
            "value_error",
            ["resolution"],
        ),
        ("fal-ai/ideogram/v3", {"style": "AUTO", "style_codes": ["0a1b2c3d"]}, "value_error", ["style_codes"]),
        (
            "fal-ai/bytedance/seedream/v4.5/edit",
            {"image_urls": [URL] * 10, "num_images": 6},
            "value_error",
            ["num_images"],
        ),
    ],
)
def test_refuses_what_fal_refuses(endpoint_id: str, given: dict[str, Any], error_type: str, loc: list[str]) -> None:
    answer = refusal(endpoint_id, given)

    detail = answer.body["detail"][0]
    assert (answer.status_code, detail["type"]) == (422, error_type)
    assert detail["loc"][: 1 + len(loc)] == ["body", *loc]
    assert answer.headers[BILLABLE_UNITS_HEADER] == "0"


@every_endpoint
def test_refuses_a_request_without_what_it_requires(endpoint: ListedEndpoint) -> None:
    for name in least(endpoint):
        given = least(endpoint)
        del given[name]
        with pytest.raises(ValidationError) as invalid:
            endpoint.validated(given)
        assert [(error["type"], error["loc"]) for error in invalid.value.errors()] == [("missing", (name,))]


@every_endpoint
def test_ignores_fields_that_it_does_not_know(endpoint: ListedEndpoint) -> None:
    endpoint.validated(least(endpoint) | {"no_such_field": 1})


def test_uses_the_first_or_the_last_of_too_many_pictures_where_fal_does() -> None:
    urls = [f"https://example.com/{number}.png" for number in range(12)]

    def used(endpoint_id: str) -> list[str]:
        endpoint = LISTED[endpoint_id]
        arguments = endpoint.validated({"prompt": "a boat", "image_urls": urls})
        return [url for _, url in endpoint.input_urls(arguments)]

    assert used("fal-ai/flux-2/edit") == urls[:4]
    assert used("bytedance/seedream/v5/lite/edit") == urls[-10:]


@pytest.mark.parametrize(
    ("endpoint_id", "given", "expected"),
    [
        ("fal-ai/flux/schnell", {"num_images": 4, "image_size": "square_hd"}, 4),
        ("fal-ai/flux/schnell", {"num_images": 4, "image_size": {"width": 1025, "height": 1024}}, 8),
        ("fal-ai/flux-2-pro", {"image_size": "square"}, 1),
        ("fal-ai/flux-2-pro", {"image_size": {"width": 1920, "height": 1088}}, 1.5),
        ("fal-ai/flux-2-pro", {"image_size": {"width": 2048, "height": 2048}}, 2.5),
        ("fal-ai/nano-banana-2", {"resolution": "4K", "num_images": 2}, 4),
        ("fal-ai/nano-banana-2", {"resolution": "0.5K"}, 0.75),
        ("fal-ai/ideogram/v3", {"rendering_speed": "QUALITY", "num_images": 2}, 3),
        ("fal-ai/recraft/v3/text-to-image", {"style": "vector_illustration"}, 2),
        ("bytedance/seedream/v5/pro/text-to-image", {"image_size": "auto_1K"}, 1),
        ("fal-ai/bytedance/seedream/v4.5/text-to-image", {"num_images": 2, "max_images": 3}, 6),
        ("fal-ai/veo3.1", {"duration": "4s", "generate_audio": False}, 2),
        ("fal-ai/veo3.1", {"resolution": "4k"}, 12),
        ("fal-ai/kling-video/v2.5-turbo/pro/text-to-video", {"duration": "10"}, 10),
        ("fal-ai/minimax/hailuo-2.3/standard/text-to-video", {"duration": "10"}, 2),
        ("fal-ai/ltx-2.3/text-to-video", {"duration": 8, "resolution": "2160p"}, 32),
        ("fal-ai/vidu/q3/text-to-video", {"duration": 10, "resolution": "540p"}, 10),
        ("alibaba/wan-3.0/text-to-video", {"duration": 30, "resolution": "480p"}, 7.5),
    ],
)
def test_bills_the_units_that_fal_bills(endpoint_id: str, given: dict[str, Any], expected: float) -> None:
    assert units(endpoint_id, given) == pytest.approx(expected)


def test_bills_what_the_inputs_cost_where_fal_counts_them(picture: Path) -> None:
    pro = "bytedance/seedream/v5/pro/edit"

    assert units("fal-ai/flux-2/edit", {"image_urls": [URL] * 3, "image_size": "square_hd"}, picture) == 4
    assert units(pro, {"image_urls": [URL] * 3, "num_images": 2, "image_size": "auto_1K"}, picture) == pytest.approx(
        (0.0675 + 2 * 0.0045) * 2 / 0.0675
    )


def test_follows_the_size_of_the_input_where_no_other_is_asked_for(picture: Path) -> None:
    (image,) = outcome(LISTED["fal-ai/flux/dev/image-to-image"], {"prompt": "a boat", "image_url": URL}, picture).media

    assert (image.width, image.height) == (1600, 900)


def test_delivers_fewer_or_more_images_than_asked_and_bills_those() -> None:
    for words, count in (("[partial:2]", 2), ("[extra:3]", 7)):
        result = outcome(LISTED["fal-ai/flux/schnell"], {"prompt": f"a boat {words}", "num_images": 4})

        assert len(result.answer.body["images"]) == len(result.media) == count
        assert result.answer.headers[BILLABLE_UNITS_HEADER] == str(count)


def test_says_which_pictures_are_blanked_where_the_model_says_so() -> None:
    given = {"prompt": "a boat [nsfw:2]", "num_images": 2}

    flagged = outcome(LISTED["fal-ai/flux/schnell"], given).answer.body
    silent = outcome(LISTED["fal-ai/nano-banana-pro"], given)

    assert flagged["has_nsfw_concepts"] == [False, True]
    assert "has_nsfw_concepts" not in silent.answer.body
    assert [item.is_black for item in silent.media] == [False, True]


def test_tells_sizes_where_they_may_be_null_when_the_prompt_asks() -> None:
    (image,) = outcome(LISTED["fal-ai/nano-banana-pro"], {"prompt": "a boat [sized]", "resolution": "4K"}).answer.body[
        "images"
    ]

    assert (image["width"], image["height"]) == (4096, 4096)
