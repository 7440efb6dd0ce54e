"""Which inputs in fal's history are what a job sent, also once its pictures were forgotten."""

import base64
import random
from typing import Any

import pytest

from app.domain.given_media import without_media
from app.infrastructure.fal.comparison import has_all_of, seen_form, sent_form
from app.infrastructure.fal.json_values import DEPTH_MAX

PICTURE, OTHER = random.Random(1).randbytes(5_000), random.Random(2).randbytes(5_000)


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


GIVEN: dict[str, Any] = {
    "prompt": "a fox",
    "image_urls": [data_uri(PICTURE), "https://example.com/fox.png"],
    "mask_url": data_uri(b"small"),
    "seed": 7,
}
MARK = without_media(data_uri(PICTURE))
DEFAULTS = {"num_images": 1, "enable_safety_checker": True, "negative_prompt": ""}


def fits(sent: dict[str, Any], seen: object) -> bool:
    """Of the input with its bytes, and of what is left of it: both must say the same."""
    before, after = (has_all_of(sent_form(form), seen_form(seen)) for form in (sent, without_media(sent)))
    assert before is after
    return before


def test_the_same_input_fits_with_the_defaults_that_fal_added() -> None:
    assert fits(GIVEN, GIVEN)
    assert fits(GIVEN, {**DEFAULTS, **GIVEN})
    assert not fits({**GIVEN, **DEFAULTS}, GIVEN)


@pytest.mark.parametrize(
    "spelling",
    [
        data_uri(PICTURE).rstrip("="),
        data_uri(PICTURE).replace("image/png;", "IMAGE/PNG;name=fox.png;"),
        f"data:image/png;base64,{base64.encodebytes(PICTURE).decode()}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(PICTURE).decode()}",
    ],
    ids=["no padding", "head", "lines", "for URLs"],
)
def test_the_same_bytes_in_another_spelling_fit(spelling: str) -> None:
    assert fits(GIVEN, {**GIVEN, "image_urls": [spelling, GIVEN["image_urls"][1]]})


@pytest.mark.parametrize(
    "picture",
    [
        data_uri(OTHER),
        data_uri(PICTURE[:-1]),
        data_uri(PICTURE + b"\0"),
        data_uri(PICTURE, "image/webp"),
        data_uri(PICTURE)[:-4],
        "https://example.com/fox.png",
        # What fal shows is no mark of ours.
        MARK,
        None,
        PICTURE.hex(),
    ],
    ids=["other", "shorter", "longer", "type", "cut", "URL", "mark", "null", "hex"],
)
def test_anything_else_in_place_of_the_picture_does_not(picture: object) -> None:
    assert not fits(GIVEN, {**GIVEN, "image_urls": [picture, GIVEN["image_urls"][1]]})


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a fox "},
        {"seed": 8},
        {"seed": True},
        {"image_urls": list(reversed(GIVEN["image_urls"]))},
        {"image_urls": GIVEN["image_urls"][:1]},
        {"image_urls": [*GIVEN["image_urls"], data_uri(PICTURE)]},
        {"mask_url": data_uri(b"smalL")},
        {"mask_url": None},
    ],
    ids=str,
)
def test_every_other_field_counts(change: dict[str, Any]) -> None:
    assert not fits(GIVEN, {**GIVEN, **change})


@pytest.mark.parametrize("field", ["sha256", "size_bytes", "content_type"])
def test_every_field_of_a_mark_counts(field: str) -> None:
    forgotten = {**MARK, field: "0" * 64 if field == "sha256" else 4_999 if field == "size_bytes" else "image/webp"}

    assert has_all_of(sent_form({"image_url": MARK}), seen_form({"image_url": data_uri(PICTURE)}))
    assert not has_all_of(sent_form({"image_url": forgotten}), seen_form({"image_url": data_uri(PICTURE)}))


def test_a_kept_file_is_a_value_like_any_other() -> None:
    kept = {**MARK, "file_id": "0192"}

    assert not fits({"image_url": kept}, {"image_url": data_uri(PICTURE)})
    assert fits({"image_url": kept}, {"image_url": kept})


def test_what_is_nested_without_end_is_left_as_it_is() -> None:
    seen: object = data_uri(PICTURE)
    for _ in range(50 * DEPTH_MAX):
        seen = [seen]

    assert not fits(GIVEN, {**GIVEN, "image_urls": seen})
    assert not fits(GIVEN, seen)
