"""What is left of media, and which spellings of a data: URI are the same media."""

import base64
import hashlib
import random
from typing import Any

import pytest

from app.domain.given_media import TEXT_LENGTH_MAX, Media, without_media

PICTURE = random.Random(1).randbytes(5_000)
ENCODED = base64.b64encode(PICTURE).decode()
URI = f"data:image/png;base64,{ENCODED}"
MARK = {"sha256": hashlib.sha256(PICTURE).hexdigest(), "size_bytes": len(PICTURE), "content_type": "image/png"}
MEDIA = Media("image/png", hashlib.sha256(PICTURE).hexdigest(), len(PICTURE))


def test_a_mark_takes_the_place_of_each_large_data_uri() -> None:
    given = {"prompt": "a fox", "image_urls": [URI, "https://example.com/fox.png"], "more": {"mask_url": URI}, "n": 1}

    kept = without_media(given)

    assert kept == {**given, "image_urls": [MARK, "https://example.com/fox.png"], "more": {"mask_url": MARK}}
    assert without_media(kept) == kept
    # As jsonb orders the fields of what was forgotten.
    assert list(kept["image_urls"][0]) == ["sha256", "size_bytes", "content_type"]
    assert given["image_urls"] == [URI, "https://example.com/fox.png"]


@pytest.mark.parametrize(
    "text",
    [
        URI[:TEXT_LENGTH_MAX],
        "x" * 5_000,
        f"see {URI}",
        f"data:,{ENCODED}",
        f"data:image/png,{ENCODED}",
        "https://example.com/" + "x" * 5_000,
    ],
    ids=lambda text: text[:25],
)
def test_texts_stay(text: str) -> None:
    assert without_media({"prompt": text}) == {"prompt": text}


def test_what_is_no_base64_is_known_by_its_text() -> None:
    """As the SQL function has it."""
    mark = without_media("data:image/png;base64," + "!" * 5_000)

    assert mark["sha256"] == hashlib.sha256(b"!" * 5_000).hexdigest()


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        URI.rstrip("="),
        f"data:image/png;base64,{base64.urlsafe_b64encode(PICTURE).decode()}",
        f"DATA:Image/PNG;BASE64,{ENCODED}",
        f"data:image/png;name=fox.png;base64,{ENCODED}",
        f"data:image/png;base64,{base64.encodebytes(PICTURE).decode()}",
    ],
    ids=["same", "no padding", "for URLs", "capitals", "with a name", "lines"],
)
def test_the_same_media_in_other_words(uri: str) -> None:
    assert len(PICTURE) % 3
    assert Media.of_uri(uri) == MEDIA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a fox",
        "https://example.com/fox.png",
        f"data:image/png,{ENCODED}",
        "data:image/png;base64",
        "data:image/png;base64,A",
        f"{URI}!",
        f"{URI}\N{FOX FACE}",
        "data:" + ";" * 100_000,
    ],
    ids=lambda text: text[-25:],
)
def test_other_texts_are_no_media(text: str) -> None:
    assert Media.of_uri(text) is None


@pytest.mark.parametrize(
    "value",
    [{}, {"sha256": "0"}, {"width": 1, "height": 2}, {**MARK, "file_id": "0192"}],
    ids=["empty", "a part", "a size", "a kept file"],
)
def test_other_objects_are_no_mark(value: dict[str, Any]) -> None:
    assert Media.of_mark(MARK) == MEDIA
    assert Media.of_mark(value) is None
