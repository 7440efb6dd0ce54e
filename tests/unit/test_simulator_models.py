from typing import Any

import pytest
from pydantic import ValidationError

from simulator.models import ENDPOINTS, app_id_of, invalid_arguments


@pytest.mark.parametrize(
    ("endpoint_id", "app_id"),
    [
        ("fal-ai/flux", "fal-ai/flux"),
        ("fal-ai/kling-video/v2.5-turbo/pro/text-to-video", "fal-ai/kling-video"),
        ("workflows/o/w/x", "workflows/o/w"),
        ("comfy/o", None),
        ("flux", None),
        ("fal-ai//flux", None),
    ],
)
def test_finds_the_application_in_an_endpoint_id(endpoint_id: str, app_id: str | None) -> None:
    assert app_id_of(endpoint_id) == app_id


@pytest.mark.parametrize(
    ("kind", "arguments", "error_type", "loc"),
    [
        ("text-to-image", {}, "missing", ["body", "prompt"]),
        ("text-to-image", {"prompt": "x", "num_images": 5}, "less_than_equal", ["body", "num_images"]),
        (
            "text-to-image",
            {"prompt": "x", "image_size": {"width": 512, "height": 512}},
            "value_error",
            ["body", "image_size"],
        ),
        ("image-to-image", {"prompt": "x", "image_urls": []}, "sequence_too_short", ["body", "image_urls"]),
        ("image-to-video", {"prompt": "x"}, "missing", ["body", "image_url"]),
        ("text-to-video", {"prompt": "x", "duration": 5}, "one_of", ["body", "duration"]),
        ("text-to-video", None, "model_type", ["body"]),
    ],
)
def test_names_what_is_wrong_as_fal_does(kind: str, arguments: Any, error_type: str, loc: list[str]) -> None:
    with pytest.raises(ValidationError) as invalid:
        ENDPOINTS[f"fal-ai/wan-25-preview/{kind}"].arguments.model_validate(arguments)

    answer = invalid_arguments(invalid.value)

    assert answer.status_code == 422
    assert (answer.body["detail"][0]["type"], answer.body["detail"][0]["loc"]) == (error_type, loc)
