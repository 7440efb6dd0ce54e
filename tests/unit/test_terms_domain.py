"""What goes back to the caller of what fal delivered, by the terms on which the job was accepted."""

from fractions import Fraction
from typing import Any

import pytest

from app.domain.pricing import PriceLine, Unit
from app.domain.terms import ResultShape, Terms

PICTURE = {"url": "https://v3b.fal.media/files/b/fox.png"}
IMAGES = ResultShape(outputs="images", flags="has_nsfw_concepts")
BY_IMAGE = Terms(
    lines=(PriceLine(line="images", unit=Unit.IMAGE, unit_tokens=5, quantity=4),), shape=IMAGES, outputs_max=4
)
BY_SIZE = Terms(
    lines=(
        PriceLine(line="size", unit=Unit.MEGAPIXEL, unit_tokens=3, quantity=4),
        PriceLine(line="search", unit=Unit.RUN, unit_tokens=2, quantity=1),
    ),
    shape=ResultShape(outputs="images"),
    outputs_max=2,
    megapixels=2,
)
FILM = Terms(
    lines=(
        PriceLine(line="seconds", unit=Unit.SECOND, unit_tokens=7, factor=Fraction(2, 3), quantity=8),
        PriceLine(line="sound", unit=Unit.RUN, unit_tokens=10, quantity=1),
    ),
    shape=ResultShape(outputs="video"),
    outputs_max=1,
    seconds=8,
)


def pictures(*sides: int) -> list[dict[str, Any]]:
    return [{**PICTURE, "width": side, "height": side} for side in sides]


@pytest.mark.parametrize(
    ("result", "back"),
    [
        ({"images": [PICTURE] * 4}, {}),
        ({"images": [PICTURE] * 6}, {}),
        ({"images": [PICTURE] * 3}, {"images": 5}),
        ({"images": [PICTURE] * 4, "has_nsfw_concepts": [True, False, True, False]}, {"images": 10}),
        ({"images": [PICTURE] * 4, "has_nsfw_concepts": [True]}, {"images": 5}),
        ({"images": [PICTURE] * 4, "has_nsfw_concepts": [1, "true", None, False]}, {}),
        ({"images": [PICTURE] * 6, "has_nsfw_concepts": [True, True, False, False, False, False]}, {}),
        ({"images": [PICTURE] * 4, "has_nsfw_concepts": [True] * 4}, None),
        ({"images": [PICTURE] * 4, "has_nsfw_concepts": True}, None),
        ({"images": []}, None),
        ({"images": None}, None),
        ({"video": PICTURE}, None),
    ],
)
def test_an_image_that_did_not_come_goes_back(result: dict[str, Any], back: dict[str, int] | None) -> None:
    assert BY_IMAGE.refund_for(result) == back


@pytest.mark.parametrize(
    ("result", "back"),
    [
        ({"images": pictures(1200, 1200)}, {}),
        ({"images": pictures(1024, 1200)}, {"size": 3}),
        ({"images": pictures(1200)}, {"size": 6}),
        # A larger one is a gift, and no substitute for the other one.
        ({"images": pictures(4096)}, {"size": 6}),
        # A size that fal does not tell keeps the debit.
        ({"images": [PICTURE, {**PICTURE, "width": 0, "height": "1024"}]}, {}),
        ({"images": []}, None),
    ],
)
def test_a_smaller_image_costs_less(result: dict[str, Any], back: dict[str, int] | None) -> None:
    assert BY_SIZE.cost_tokens == 14
    assert BY_SIZE.refund_for(result) == back


def test_a_film_is_there_or_not() -> None:
    assert FILM.cost_tokens == 48
    assert FILM.refund_for({"video": PICTURE}) == {}
    assert FILM.refund_for({"video": PICTURE, "has_nsfw_concepts": [True]}) == {}
    assert FILM.refund_for({}) is None


@pytest.mark.parametrize("terms", [BY_IMAGE, BY_SIZE, FILM])
def test_is_stored_as_json(terms: Terms) -> None:
    assert Terms.of_json(terms.as_json()) == terms


@pytest.mark.parametrize(
    ("result", "back"),
    [
        ({"images": [PICTURE] * 3}, {}),
        ({"images": [PICTURE] * 2}, {"generation": 5}),
        ({"images": [PICTURE] * 3, "has_nsfw_concepts": [False, True, False]}, {"generation": 5}),
        ({"images": []}, None),
    ],
)
def test_a_job_of_a_release_without_lines_is_settled_as_it_was(
    result: dict[str, Any], back: dict[str, int] | None
) -> None:
    terms = Terms.before_lines(is_video=False, cost_tokens=15, outputs=3)

    assert terms.cost_tokens == 15
    assert terms.refund_for(result) == back


def test_what_delivers_something_ends_as_charged_whatever_its_lines_say() -> None:
    """No price that the catalogue takes leads here; PostgreSQL refuses a completed job that gives everything back."""
    line = PriceLine(line="size", unit=Unit.MEGAPIXEL, unit_tokens=3, quantity=3, after=1)
    terms = Terms(lines=(line,), shape=ResultShape(outputs="images"), outputs_max=1, megapixels=4)

    back = terms.refund_for({"images": [{"url": "https://fal.media/a.png", "width": 1024, "height": 1024}]})

    assert (terms.cost_tokens, back, terms.least_tokens) == (9, {"size": 8}, 0)
