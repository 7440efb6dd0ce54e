from pathlib import Path

import pytest
from PIL import Image

from simulator.media import Picture, film_size, picture_size, render


def a_picture(prompt: str = "a boat", seed: int = 1, size: tuple[int, int] = (96, 64)) -> Picture:
    return Picture("text-to-image", prompt, seed, number=1, count=1, width=size[0], height=size[1])


def pixels(picture: Picture, path: Path) -> bytes:
    render(picture, path)
    with Image.open(path) as image:
        assert image.size == (picture.width, picture.height)
        return image.tobytes()


def test_draws_the_same_picture_for_the_same_arguments(tmp_path: Path) -> None:
    first, again, other_seed, other_prompt = (
        pixels(picture, tmp_path / "picture")
        for picture in (a_picture(), a_picture(), a_picture(seed=2), a_picture(prompt="a house"))
    )

    assert first == again
    assert len({first, other_seed, other_prompt}) == 3


@pytest.mark.parametrize("prompt", [" ", "x" * 2000, "word " * 400, "漢字 привет 🚤\n\tboat"])
@pytest.mark.parametrize("size", [(120, 480), (480, 120), (200, 200)])
def test_draws_any_prompt_into_any_size(tmp_path: Path, prompt: str, size: tuple[int, int]) -> None:
    pixels(a_picture(prompt, size=size), tmp_path / "picture")


@pytest.mark.parametrize(
    ("requested", "drawn"),
    [((512, 512), (512, 512)), ((2880, 720), (1440, 360)), ((1, 14142), (1, 1440))],
)
def test_scales_down_what_is_too_large(requested: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert picture_size(*requested) == drawn


@pytest.mark.parametrize(
    ("shape", "frame"),
    [((16, 9), (480, 270)), ((9, 16), (270, 480)), ((1, 1), (360, 360)), ((1440, 10), (480, 120))],
)
def test_makes_small_frames_of_the_right_shape(shape: tuple[int, int], frame: tuple[int, int]) -> None:
    assert film_size(*shape) == frame
