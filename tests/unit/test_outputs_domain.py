"""Outputs: what names them, and what they become of whatever fal says."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.domain.outputs import KeptOutput, Output, OutputId, outputs_of
from tests.builders import IMAGES_SHAPE, VIDEO_SHAPE

JOB_ID = UUID("019d2f6a-7c40-7d1e-8a55-3f0c9b2e4d61")
UNTIL = datetime(2026, 12, 23, tzinfo=UTC)
TWO = [KeptOutput(number=1, expires_at=UNTIL), KeptOutput(number=0, expires_at=UNTIL)]
HUGE = 10**307


@pytest.mark.parametrize("number", [0, 7, 10, 9_999])
def test_an_id_is_read_as_it_is_written(number: int) -> None:
    output_id = OutputId(JOB_ID, number)

    assert OutputId.parse(str(output_id)) == output_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "-0",
        "0",
        str(JOB_ID),
        f"{JOB_ID}-",
        f"{JOB_ID}--0",
        f"{JOB_ID}-+1",
        f"{JOB_ID}--1",
        f"{JOB_ID}-00",
        f"{JOB_ID}-01",
        f"{JOB_ID}-1_0",
        f"{JOB_ID}- 1",
        f"{JOB_ID}-1 ",
        f" {JOB_ID}-1",
        f"{JOB_ID}-1\n",
        f"{JOB_ID}-10000",
        f"{JOB_ID}-1.0",
        f"{JOB_ID}-\u0661",
        f"{JOB_ID}-\u00b2",
        f"{JOB_ID.hex}-1",
        f"{{{JOB_ID}}}-1",
        f"urn:uuid:{JOB_ID}-1",
        f"{str(JOB_ID).upper()}-1",
        f"{str(JOB_ID)[:-1]}-1",
        f"{JOB_ID}/1",
        "../" + f"{JOB_ID}-1",
        "\x00",
    ],
    ids=ascii,
)
def test_any_other_spelling_is_no_id(text: str) -> None:
    assert OutputId.parse(text) is None


def test_the_store_spreads_copies_by_what_is_random_of_their_ids() -> None:
    assert OutputId(JOB_ID, 3).store_key == f"outputs/4d/61/{JOB_ID}-3"
    keys = {OutputId(job_id, number).store_key for job_id in (uuid4(), uuid4()) for number in range(12)}
    assert len(keys) == 24


@pytest.mark.parametrize(
    ("told", "stored_as", "name"),
    [
        ({"content_type": "image/png"}, None, "image-1.png"),
        ({"content_type": "image/png"}, "image/webp", "image-1.webp"),
        ({"content_type": "image/png", "file_name": "../../etc/passwd"}, None, "image-1.png"),
        ({"content_type": 'image/png"; filename="x.exe'}, None, "image-1"),
        ({"content_type": "text/html"}, None, "image-1"),
        ({"content_type": "image/png"}, "application/octet-stream", "image-1"),
        ({"content_type": ["image/png"]}, None, "image-1"),
        ({}, None, "image-1"),
    ],
    ids=ascii,
)
def test_a_name_is_ours(told: Mapping[str, Any], stored_as: str | None, name: str) -> None:
    kept = KeptOutput(number=0, expires_at=UNTIL, content_type=stored_as)

    (output,) = outputs_of(JOB_ID, {"images": [told]}, IMAGES_SHAPE, [kept])

    assert output.name == name


def test_a_film_is_named_as_one() -> None:
    result = {"video": {"url": "https://v3b.fal.media/a.mp4", "content_type": "video/mp4", "duration": 5.5}}

    (film,) = outputs_of(JOB_ID, result, VIDEO_SHAPE, TWO[1:])

    assert (film.name, film.duration_seconds, film.provider_url) == ("video-1.mp4", 5.5, "https://v3b.fal.media/a.mp4")


def two_of(result: Mapping[str, Any]) -> list[Output]:
    outputs = list(outputs_of(JOB_ID, result, IMAGES_SHAPE, TWO))
    assert [output.id.number for output in outputs] == [0, 1]
    return outputs


@pytest.mark.parametrize(
    ("flags", "blanked"),
    [
        ([True, False], [True, False]),
        ([False, True], [False, True]),
        ([True], [True, False]),
        ([True, True, True], [True, True]),
        (True, [True, True]),
        (False, [False, False]),
        (None, [False, False]),
        ("true", [False, False]),
        ([1, "true"], [False, False]),
        ([[True], {"0": True}], [False, False]),
        ({"0": True}, [False, False]),
    ],
    ids=ascii,
)
def test_what_was_blanked_is_said_of_each(flags: Any, blanked: list[bool]) -> None:
    result = {"images": [{"url": "a"}, {"url": "b"}], "has_nsfw_concepts": flags}

    assert [output.is_blanked for output in two_of(result)] == blanked


@pytest.mark.parametrize(
    ("told", "urls"),
    [
        ([{"url": "https://a"}, {"url": "https://b"}], ["https://a", "https://b"]),
        (["https://a", {"url": "https://b"}], ["https://a", "https://b"]),
        ([{"url": "https://a"}], ["https://a", None]),
        ({"url": "https://a"}, ["https://a", None]),
        ("https://a", ["https://a", None]),
        ([], [None, None]),
        (None, [None, None]),
        ([None, None], [None, None]),
        ([7, 1.5], [None, None]),
        ([True, False], [None, None]),
        ([["https://a"], [{"url": "https://b"}]], [None, None]),
        ([{"url": 7}, {"url": ["https://b"]}], [None, None]),
        ([{"url": None}, {"url": ""}], [None, None]),
        ([{"URL": "https://a"}, {}], [None, None]),
        (7, [None, None]),
    ],
    ids=ascii,
)
def test_whatever_fal_says_is_read_as_what_it_can_be(told: Any, urls: list[str | None]) -> None:
    assert [output.provider_url for output in two_of({"images": told})] == urls


@pytest.mark.parametrize("told", [{}, {"image": 1}, {"videos": []}], ids=ascii)
def test_a_result_without_outputs_says_nothing_of_them(told: Mapping[str, Any]) -> None:
    for output in two_of(told):
        facts = (output.provider_url, output.content_type, output.size_bytes, output.width, output.duration_seconds)
        assert facts == (None, None, None, None, None)


@pytest.mark.parametrize(
    ("value", "count", "seconds"),
    [
        (1024, 1024, 1024.0),
        (5.5, None, 5.5),
        (0, None, None),
        (-1, None, None),
        (True, None, None),
        ("1024", None, None),
        ([1024], None, None),
        (None, None, None),
        (HUGE, HUGE, 1e307),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_only_a_positive_number_is_a_size(value: Any, count: int | None, seconds: float | None) -> None:
    told = {"width": value, "height": value, "file_size": value, "duration": value}

    (output, _) = two_of({"images": [told]})

    assert (output.width, output.height, output.size_bytes) == (count, count, count)
    assert output.duration_seconds == seconds


def test_what_is_stored_is_described_by_what_is_stored() -> None:
    told = {"content_type": "text/html", "file_size": 7, "url": "https://a"}
    kept = KeptOutput(number=0, expires_at=UNTIL, content_type="image/png", size_bytes=9, sha256="ab", is_stored=True)

    (output,) = outputs_of(JOB_ID, {"images": [told]}, IMAGES_SHAPE, [kept])

    assert (output.content_type, output.size_bytes) == ("image/png", 9)


def test_of_what_nothing_is_kept_nothing_is_shown() -> None:
    assert outputs_of(JOB_ID, {"images": [{"url": "https://a"}]}, IMAGES_SHAPE, []) == []
