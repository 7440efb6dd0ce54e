"""What a model takes of pictures and sounds, as the files say it."""

from pathlib import Path

import pytest

from app.domain.errors import InvalidCatalogue
from app.domain.media_limits import MediaLimits
from tests.unit.catalogue_files import MODEL, catalogue_of

MEGABYTE = 1024 * 1024
PICTURES = ("image/png", "image/jpeg", "image/webp")
SOUNDS = ("audio/mpeg", "audio/wav")
LINE = 24


def with_parameter(name: str, keys: str) -> str:
    """The parameter stands in line 24."""
    return MODEL.replace("negative_prompt = {}", f"{name} = {{{keys}}}")


def limits_of(directory: Path, name: str, keys: str) -> MediaLimits | None:
    model = catalogue_of(directory, with_parameter(name, keys)).get("house/painter")
    assert model is not None
    return model.parameters[name].media


@pytest.mark.parametrize(
    ("name", "keys", "limits"),
    [
        ("image_url", "", MediaLimits(content_types=PICTURES)),
        ("audio_url", "", MediaLimits(content_types=SOUNDS)),
        ("image_urls", "count_max = 2", MediaLimits(content_types=PICTURES)),
        ("seed", "", None),
        (
            "image_url",
            'content_types = ["image/avif"], size_mb_max = 8, side_min = 300, pixels_max = 9000000, ratio_max = 2.5',
            MediaLimits(
                content_types=("image/avif",),
                size_bytes_max=8 * MEGABYTE,
                side_min=300,
                pixels_max=9_000_000,
                ratio_max=2.5,
            ),
        ),
        (
            "image_urls",
            "count_max = 2, side_max = 5000, pixels_min = 100, ratio_max = 3",
            MediaLimits(content_types=PICTURES, side_max=5000, pixels_min=100, ratio_max=3),
        ),
        (
            "audio_url",
            'content_types = ["audio/wav"], size_mb_max = 15, seconds_min = 3, seconds_max = 30',
            MediaLimits(content_types=("audio/wav",), size_bytes_max=15 * MEGABYTE, seconds=(3, 30)),
        ),
    ],
)
def test_the_limits_are_read_as_they_are_written(
    tmp_path: Path, name: str, keys: str, limits: MediaLimits | None
) -> None:
    assert limits_of(tmp_path, name, keys) == limits


@pytest.mark.parametrize(
    ("name", "keys", "told"),
    [
        (
            "image_url",
            'content_types = ["image/jpg"]',
            "image/jpg is not known as a picture: did you mean `image/jpeg`?",
        ),
        ("image_url", 'content_types = ["audio/wav"]', "audio/wav is not known as a picture: there are image/png, "),
        ("audio_url", 'content_types = ["flac"]', "flac is not known as a sound: there are audio/mpeg, audio/wav."),
        ("image_url", "content_types = []", "`content_types`"),
        ("image_url", 'content_types = ["image/png", "image/png"]', "has the same value twice"),
        ("image_url", "content_types = [5]", "`content_types.0` must be a text"),
        ("image_url", "size_mb_max = 0", "`size_mb_max` must be at least 1."),
        ("image_url", "size_mb_max = 7.5", "`size_mb_max` must be a whole number."),
        ("image_url", "side_min = 5, side_max = 4", "`side_min` is above `side_max`"),
        ("image_url", "pixels_min = 5, pixels_max = 4", "`pixels_min` is above `pixels_max`"),
        ("image_url", "side_max = 10, pixels_min = 101", "no width and height have as many pixels"),
        ("image_url", "side_min = 11, pixels_max = 120", "no width and height have as many pixels"),
        ("image_url", "ratio_max = 0.4", "must be a number from 1 to 1000"),
        ("image_url", 'ratio_max = "2:1"', "must be a number from 1 to 1000"),
        ("image_url", "seconds_min = 3, seconds_max = 4", "`seconds_max` says nothing of the type image"),
        ("audio_url", "side_min = 3", "`side_min` says nothing of the type audio"),
        ("audio_url", "seconds_min = 3", "has one of `seconds_min` and `seconds_max`"),
        ("seed", "size_mb_max = 3", "`size_mb_max` says nothing of the type integer"),
    ],
)
def test_a_mistake_in_the_limits_is_told_with_its_line(tmp_path: Path, name: str, keys: str, told: str) -> None:
    with pytest.raises(InvalidCatalogue) as refused:
        catalogue_of(tmp_path, with_parameter(name, keys))

    assert any(f"file0.toml, line {LINE}: " in problem and told in problem for problem in refused.value.problems), (
        refused.value.problems
    )


def test_only_a_size_in_numbers_needs_a_whole_ratio(tmp_path: Path) -> None:
    with pytest.raises(InvalidCatalogue, match="`ratio_max` must be a whole number, as the type is size"):
        catalogue_of(tmp_path, MODEL.replace("side_max = 2000", "side_max = 2000, ratio_max = 2.5"))
