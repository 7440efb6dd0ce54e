"""What a model takes of pictures and sounds: in the catalogue of the service, and as callers see it."""

from typing import Any

import pytest

from app.domain.media_limits import MediaFacts
from app.domain.media_types import MEDIA_TYPES
from app.domain.models import Model
from app.domain.parameters import Parameter, ParameterType
from tests.builders import BUILT_IN
from tests.unit.presentation_stand_ins import World

MEGABYTE = 1024 * 1024
PICTURES = ("image/png", "image/jpeg", "image/webp")
SOUNDS = ("audio/mpeg", "audio/wav")
MEDIA = {ParameterType.IMAGE: PICTURES, ParameterType.IMAGES: PICTURES, ParameterType.AUDIO: SOUNDS}


def parameters_of(*types: ParameterType) -> list[Any]:
    return [
        pytest.param(parameter, id=f"{model.id}-{parameter.name}")
        for model in BUILT_IN
        for parameter in model.parameters.values()
        if parameter.type in types
    ]


@pytest.mark.parametrize("parameter", parameters_of(*MEDIA))
def test_every_picture_and_sound_of_the_service_has_limits(parameter: Parameter) -> None:
    kinds = {each.content_type: each.kind for each in MEDIA_TYPES}

    assert parameter.media is not None
    assert {kinds[content_type] for content_type in parameter.media.content_types} == {
        kinds[content_type] for content_type in MEDIA[parameter.type]
    }
    # What is sent along as a data: URI, or made here before, is taken everywhere.
    assert set(MEDIA[parameter.type]) - {"image/webp"} <= set(parameter.media.content_types)


def test_nothing_else_has_limits() -> None:
    others = [each for each in ParameterType if each not in MEDIA]

    assert all(each.values[0].media is None for each in parameters_of(*others))


@pytest.mark.parametrize("parameter", [each for each in parameters_of(*MEDIA) if "audio" not in each.values[0].name])
def test_a_photograph_of_a_telephone_is_taken_by_every_model(parameter: Parameter) -> None:
    assert parameter.media is not None

    facts = MediaFacts(content_type="image/jpeg", size_bytes=6 * MEGABYTE, width=4032, height=3024)

    assert parameter.media.problem_of(facts) is None


@pytest.mark.parametrize(
    ("model_id", "name", "facts", "told"),
    [
        ("fal-ai/kling-video/v2.6/pro/image-to-video", "image_url", {"width": 300, "height": 751}, "2.5 times"),
        ("fal-ai/kling-video/v3/pro/image-to-video", "last_image_url", {"width": 299, "height": 299}, "at least 300"),
        ("fal-ai/kling-video/v3/turbo/pro/image-to-video", "image_url", {"content_type": "image/webp"}, "JPEG or PNG"),
        ("fal-ai/veo3.1/image-to-video", "image_url", {"size_bytes": 8 * MEGABYTE + 1}, "8 MB"),
        ("fal-ai/wan-25-preview/image-to-image", "image_urls", {"width": 383, "height": 400}, "at least 384"),
        ("fal-ai/wan/v2.7/text-to-video", "audio_url", {"duration_seconds": 2.5}, "3 to 30"),
    ],
)
def test_what_fal_says_that_it_does_not_take_is_refused(
    model_id: str, name: str, facts: dict[str, Any], told: str
) -> None:
    model = BUILT_IN.get(model_id)

    assert model is not None
    media = model.parameters[name].media
    assert media is not None
    assert told in (media.problem_of(MediaFacts(**facts)) or "")


async def test_the_models_are_shown_with_what_they_take() -> None:
    shown = (await World().client().get("/models/bytedance/seedance-2.0/image-to-video")).json()
    kling = (await World().client().get("/models/fal-ai/kling-video/v3/pro/image-to-video")).json()
    wan = (await World().client().get("/models/fal-ai/wan-25-preview/text-to-video")).json()

    picture = kling["parameters"]["properties"]["image_url"]
    assert picture["x-media"] == "image"
    assert picture["x-limits"] == {
        "content_types": list(PICTURES),
        "size_bytes_max": 10 * MEGABYTE,
        "side_min": 300,
        "ratio_max": 2.5,
    }
    assert picture["description"].endswith(
        "PNG, JPEG or WebP, at most 10 MB, each side at least 300 pixels, "
        "the longer side at most 2.5 times the shorter one."
    )
    assert picture["x-description"]["en"] == picture["description"]
    assert shown["parameters"]["properties"]["image_url"]["x-limits"]["size_bytes_max"] == 30 * MEGABYTE
    assert wan["parameters"]["properties"]["audio_url"]["x-limits"] == {
        "content_types": list(SOUNDS),
        "size_bytes_max": 15 * MEGABYTE,
        "seconds_min": 3,
        "seconds_max": 30,
    }
    assert "x-limits" not in wan["parameters"]["properties"]["prompt"]


async def test_each_list_of_pictures_says_what_one_of_them_may_be() -> None:
    models: list[Model] = [model for model in BUILT_IN if "image_urls" in model.parameters]

    for model in models:
        shown = (await World().client().get(f"/models/{model.id}")).json()["parameters"]["properties"]["image_urls"]
        assert shown["x-limits"]["content_types"] == list(PICTURES)
        assert shown["items"] == {"type": "string", "format": "uri"}
