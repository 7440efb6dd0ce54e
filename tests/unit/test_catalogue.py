from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain import catalogue
from app.domain.catalogue import DEFAULT_PRICES, MODEL_IDS, PriceList
from app.domain.errors import InvalidPrices
from app.domain.kinds import GenerationKind
from app.domain.pricing import PRICE_TOKENS_MAX

PRICES = st.integers(1, PRICE_TOKENS_MAX)
IMAGE_KINDS = st.sampled_from([GenerationKind.TEXT_TO_IMAGE, GenerationKind.IMAGE_TO_IMAGE])


@pytest.mark.parametrize(
    ("kind", "parameters", "cost_tokens"),
    [
        (GenerationKind.TEXT_TO_IMAGE, {}, 5),
        (GenerationKind.TEXT_TO_IMAGE, {"num_images": 4}, 20),
        (GenerationKind.IMAGE_TO_IMAGE, {"num_images": 1}, 6),
        (GenerationKind.IMAGE_TO_IMAGE, {"num_images": 3}, 18),
        (GenerationKind.TEXT_TO_VIDEO, {}, 30),
        (GenerationKind.TEXT_TO_VIDEO, {"duration": 5}, 30),
        (GenerationKind.TEXT_TO_VIDEO, {"duration": 10}, 55),
        (GenerationKind.IMAGE_TO_VIDEO, {"duration": 5}, 35),
        (GenerationKind.IMAGE_TO_VIDEO, {"duration": 10}, 65),
    ],
)
def test_costs_what_the_price_list_says(kind: GenerationKind, parameters: dict[str, int], cost_tokens: int) -> None:
    assert PriceList().cost_tokens(kind, parameters) == cost_tokens


@settings(deadline=None)
@given(IMAGE_KINDS, PRICES, st.integers(1, 4))
def test_an_image_costs_its_price_for_each_image(kind: GenerationKind, price: int, count: int) -> None:
    prices = PriceList({kind.value.lower(): price})

    assert prices.cost_tokens(kind, {"num_images": count}) == price * count


@settings(deadline=None)
@given(st.sampled_from(sorted(DEFAULT_PRICES)), PRICES)
def test_an_override_changes_its_own_price_and_no_other(name: str, price: int) -> None:
    prices = PriceList({name: price})

    costs = {
        **{kind: prices.cost_tokens(GenerationKind(kind.upper()), {}) for kind in ("text_to_image", "image_to_image")},
        **{
            f"{kind}_{seconds}s": prices.cost_tokens(GenerationKind(kind.upper()), {"duration": seconds})
            for kind in ("text_to_video", "image_to_video")
            for seconds in (5, 10)
        },
    }
    assert costs == {**DEFAULT_PRICES, name: price}


@pytest.mark.parametrize(
    "price",
    [0, -1, PRICE_TOKENS_MAX + 1, 10**30, 5.0, 0.5, float("inf"), float("nan"), True, False, "5", None, [5], {}],
)
def test_refuses_a_price_that_is_no_whole_number_in_range(price: Any) -> None:
    with pytest.raises(InvalidPrices, match=r"text_to_image.*whole number from 1 to 1000000000"):
        PriceList({"text_to_image": price})


@pytest.mark.parametrize("name", ["", "text_to_video", "TEXT_TO_IMAGE", "text_to_image_5s", "text_to_video_15s"])
def test_refuses_an_unknown_price_and_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidPrices) as refused:
        PriceList({name: 5})

    assert repr(name) in str(refused.value)
    assert all(known in str(refused.value) for known in DEFAULT_PRICES)


def test_every_kind_has_a_model_of_fal_with_its_name() -> None:
    expected = {kind: f"fal-ai/wan-25-preview/{kind.value.lower().replace('_', '-')}" for kind in GenerationKind}

    assert expected == MODEL_IDS


def test_two_kinds_make_videos() -> None:
    assert [kind.value for kind in GenerationKind if kind.is_video] == ["TEXT_TO_VIDEO", "IMAGE_TO_VIDEO"]


def test_a_model_that_is_not_sold_any_more_is_still_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, other = GenerationKind.TEXT_TO_IMAGE, GenerationKind.TEXT_TO_VIDEO
    monkeypatch.setattr(catalogue, "RETIRED_MODEL_IDS", {kind: frozenset({"fal-ai/older"})})

    assert catalogue.models_carried_out(kind) == {MODEL_IDS[kind], "fal-ai/older"}
    assert catalogue.models_carried_out(other) == {MODEL_IDS[other]}
