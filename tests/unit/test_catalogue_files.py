"""The models that come with the service, and an operator's own over them."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from app.domain.catalogue import Catalogue
from app.domain.errors import InvalidCatalogue, InvalidPrices, UnknownModel
from app.domain.kinds import GenerationKind
from app.domain.margins import sold_below, worst_margin
from app.domain.models import Model
from app.domain.pricing import PRICE_TOKENS_MAX, total_tokens
from app.infrastructure.catalogue.overrides import with_prices
from app.infrastructure.catalogue.reading import BUILT_IN_DIR, read_catalogue
from tests.builders import BUILT_IN, MODEL_IDS
from tests.unit.catalogue_files import MODEL, PRICES_BY_NAME, catalogue_of, prices_by_name

# What was sold before there were other models.
TOKENS = {
    "text_to_image": 5,
    "image_to_image": 6,
    "text_to_video_5s": 30,
    "text_to_video_10s": 55,
    "image_to_video_5s": 35,
    "image_to_video_10s": 65,
}
# Four images cost no more than can be written down.
PRICES = st.integers(1, PRICE_TOKENS_MAX // 4)
IMAGE_KINDS = st.sampled_from([GenerationKind.TEXT_TO_IMAGE, GenerationKind.IMAGE_TO_IMAGE])


def cost_tokens(catalogue: Catalogue, kind: GenerationKind, **given: Any) -> int:
    model = catalogue.default_of(kind)
    return total_tokens(model.price_lines(model.completed(given)))


@pytest.mark.parametrize("model", BUILT_IN.models, ids=lambda model: model.id)
def test_every_model_has_its_price_and_an_example_that_fal_is_sent(model: Model) -> None:
    parameters = model.completed(model.example)
    terms = model.terms(parameters)

    assert model.from_tokens <= terms.cost_tokens <= model.to_tokens
    assert set(model.fal_input(parameters)) >= {model.parameters[name].fal.name for name in parameters}


@pytest.mark.parametrize(
    ("kind", "given", "tokens"),
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
def test_the_defaults_cost_what_they_cost_before(kind: GenerationKind, given: dict[str, Any], tokens: int) -> None:
    assert cost_tokens(BUILT_IN, kind, **given) == tokens


def test_the_default_of_every_kind_is_the_model_of_fal_with_its_name() -> None:
    expected = {kind: f"fal-ai/wan-25-preview/{kind.value.lower().replace('_', '-')}" for kind in GenerationKind}

    assert expected == MODEL_IDS


def test_two_kinds_make_videos() -> None:
    assert [kind.value for kind in GenerationKind if kind.is_video] == ["TEXT_TO_VIDEO", "IMAGE_TO_VIDEO"]


@settings(deadline=None)
@drawn(IMAGE_KINDS, PRICES, st.integers(1, 4))
def test_an_image_costs_its_price_for_each_image(kind: GenerationKind, price: int, count: int) -> None:
    prices = with_prices(BUILT_IN, {kind.value.lower(): price})

    assert cost_tokens(prices, kind, num_images=count) == price * count


@pytest.mark.parametrize(
    ("kind", "duration", "tokens"),
    [
        (GenerationKind.TEXT_TO_VIDEO, 5, (10, 20, 30)),
        (GenerationKind.TEXT_TO_VIDEO, 10, (19, 37, 55)),
        (GenerationKind.IMAGE_TO_VIDEO, 5, (12, 24, 35)),
        (GenerationKind.IMAGE_TO_VIDEO, 10, (22, 44, 65)),
    ],
)
def test_a_smaller_film_costs_a_third_and_two_thirds(
    kind: GenerationKind, duration: int, tokens: tuple[int, ...]
) -> None:
    costs = [cost_tokens(BUILT_IN, kind, duration=duration, resolution=each) for each in ("480p", "720p", "1080p")]

    assert tuple(costs) == tokens


def test_the_prices_that_have_a_name_are_those_that_had_one_before() -> None:
    assert prices_by_name(BUILT_IN) == PRICES_BY_NAME == TOKENS


@settings(deadline=None)
@drawn(st.sampled_from(sorted(TOKENS)), PRICES)
def test_an_override_changes_its_own_price_and_no_other(name: str, price: int) -> None:
    prices = with_prices(BUILT_IN, {name: price})

    costs = {
        **{kind: cost_tokens(prices, GenerationKind(kind.upper())) for kind in ("text_to_image", "image_to_image")},
        **{
            f"{kind}_{seconds}s": cost_tokens(prices, GenerationKind(kind.upper()), duration=seconds)
            for kind in ("text_to_video", "image_to_video")
            for seconds in (5, 10)
        },
    }
    assert costs == {**TOKENS, name: price}
    others = [model for model in BUILT_IN if not model.price_names]
    assert [prices.get(model.id) for model in others] == others


@pytest.mark.parametrize(
    "name", ["", "text_to_imag", "text_to_video", "TEXT_TO_IMAGE", "text_to_image_5s", "text_to_video_15s"]
)
def test_refuses_an_unknown_price_and_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidPrices) as refused:
        with_prices(BUILT_IN, {name: 5})

    assert str(refused.value) == f"unknown price {name!r}; the prices are {', '.join(TOKENS)}"


def test_an_override_is_held_to_the_maximum_of_a_request() -> None:
    largest = PRICE_TOKENS_MAX // 4

    assert with_prices(BUILT_IN, {"text_to_image": largest}).default_of(GenerationKind.TEXT_TO_IMAGE).to_tokens == 10**9
    with pytest.raises(InvalidPrices) as refused:
        with_prices(BUILT_IN, {"text_to_video_5s": 40, "text_to_image": largest + 1})
    assert str(refused.value) == (
        "'text_to_image': num_images 4 of fal-ai/wan-25-preview/text-to-image costs more than 1000000000 tokens: "
        "lower the price"
    )


def test_what_is_sold_below_the_value_of_a_token_is_named_with_its_worst_combination() -> None:
    below = sold_below(BUILT_IN, Fraction(1, 100))

    assert [margin.model.id for margin in below] == [
        MODEL_IDS[GenerationKind.TEXT_TO_VIDEO],
        MODEL_IDS[GenerationKind.IMAGE_TO_VIDEO],
    ]
    assert below[0].parameters == {"duration": 10, "resolution": "1080p"}
    assert (below[0].cost_usd, below[0].tokens) == (Fraction(3, 2), 55)
    assert sold_below(BUILT_IN, below[0].break_even_usd) == []
    assert worst_margin(BUILT_IN.default_of(GenerationKind.TEXT_TO_IMAGE)).break_even_usd == Fraction(1, 100)


def test_a_model_of_another_type_is_unknown_and_those_that_fit_are_named() -> None:
    with pytest.raises(UnknownModel) as refused:
        BUILT_IN.find("fal-ai/flux/schnell", GenerationKind.TEXT_TO_VIDEO)

    assert refused.value.fitting[0] == MODEL_IDS[GenerationKind.TEXT_TO_VIDEO]
    assert BUILT_IN.find(None, GenerationKind.TEXT_TO_VIDEO).id == MODEL_IDS[GenerationKind.TEXT_TO_VIDEO]
    assert BUILT_IN.find("fal-ai/flux/schnell", GenerationKind.TEXT_TO_IMAGE).title == "FLUX.1 schnell"


def test_an_operator_adds_a_model_and_it_is_read_as_it_is_written(tmp_path: Path) -> None:
    model = catalogue_of(tmp_path, MODEL).find("house/painter", GenerationKind.TEXT_TO_IMAGE)
    given = {"prompt": "A fox", "resolution": "2K", "num_images": 3, "seed": None}

    assert model.fal_input(model.completed(given | {"seed": None})) == {
        "prompt": "A fox",
        "size": 2048,
        "num_images": "3",
        "generate_audio": False,
        "mode": "fine",
    }
    assert [(line.line, line.tokens) for line in model.price_lines(model.completed(given))] == [("images", 18)]
    assert (model.from_tokens, model.to_tokens) == (4, 24)
    broken = model.violated(model.completed({"prompt": "A fox", "resolution": "2K", "generate_audio": True}))
    assert broken is not None
    assert broken.message["en"].startswith("In 2K")


def test_an_operator_replaces_prices_models_and_defaults_and_removes_them(tmp_path: Path) -> None:
    catalogue = catalogue_of(
        tmp_path,
        MODEL.replace("house/painter", "fal-ai/flux/dev").replace("title =", "is_default = true\ntitle ="),
        'remove = ["fal-ai/flux-pro/v1.1"]\n'
        '[prices."fal-ai/flux/schnell"]\nprice = [{line = "images", per = "megapixel", tokens = 9}]\n',
    )

    assert catalogue.get("fal-ai/flux-pro/v1.1") is None
    assert catalogue.default_of(GenerationKind.TEXT_TO_IMAGE).title == "Painter"
    assert catalogue.find("fal-ai/flux/schnell", GenerationKind.TEXT_TO_IMAGE).from_tokens == 9
    assert len(catalogue) == len(BUILT_IN) - 1


def test_a_copy_of_the_files_of_the_service_changes_nothing() -> None:
    catalogue = read_catalogue(BUILT_IN_DIR)

    assert [model.id for model in catalogue] == [model.id for model in BUILT_IN]


def test_a_model_that_may_make_more_than_it_was_asked_for_is_debited_for_all_of_it(tmp_path: Path) -> None:
    text = MODEL.replace("title =", "outputs_per_image_max = 2\ntitle =")
    model = catalogue_of(tmp_path, text).find("house/painter", GenerationKind.TEXT_TO_IMAGE)
    terms = model.terms(model.completed({"prompt": "A fox", "num_images": 2}))

    assert terms.cost_tokens == 16
    assert terms.refund_for({"images": [{"url": "https://example.com/1.png"}] * 3}) == {"images": 4}


def test_an_operator_lays_a_vocabulary_over_the_one_of_the_service(tmp_path: Path) -> None:
    (tmp_path / "parameters.toml").write_text(
        '[negative_prompt]\ntype = "text"\ngroup = "more"\nlength_max = 7\n'
        'label = {en = "Not", ru = "Без"}\ndescription = {en = "Not", ru = "Без"}\n'
    )

    parameter = catalogue_of(tmp_path, MODEL).default_of(GenerationKind.TEXT_TO_IMAGE).parameters["negative_prompt"]

    assert (parameter.group, parameter.length_max) == ("more", 7)


def test_files_that_editors_leave_and_the_mark_of_windows_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".file0.toml").write_text("not = [closed")
    (tmp_path / "windows.toml").write_bytes(b"\xef\xbb\xbf" + MODEL.replace("\n", "\r\n").encode())

    assert catalogue_of(tmp_path).get("house/painter") is not None


FILM = """family = "House"

[[model]]
id = "house/film"
type = "TEXT_TO_VIDEO"
title = "Film"
description = {en = "Films.", ru = "Снимает."}
checked = 2026-10-10
sources = ["https://example.com"]
typical_seconds = {from = 1, to = 2}
time_limit = "video"
example = {prompt = "A fox", duration = 60}
result = {outputs = "video"}
price = [
    {line = "start", per = "run", tokens = 1000},
    {line = "further", per = "second", after = 60, tokens = 10, factors = {resolution = {"4K" = "3"}}},
]
cost_usd = [{line = "film", per = "second", usd = "1"}]

[model.parameters]
prompt = {required = true}
duration = {minimum = 1, maximum = 600, assumed = 60}
resolution = {values = ["2K", "4K"], assumed = "2K"}
"""
IN_4K = """
[[model.constraints]]
when = {resolution = ["4K"]}
require = {duration = [%s]}
message = {en = "x", ru = "x"}

[[model.constraints]]
when = {duration = [600]}
require = {resolution = ["4K"]}
message = {en = "x", ru = "x"}
"""


def film(directory: Path, text: str) -> Model:
    return catalogue_of(directory, text).find("house/film", GenerationKind.TEXT_TO_VIDEO)


def test_a_price_that_holds_in_the_middle_of_a_long_range_alone_is_seen(tmp_path: Path) -> None:
    model = film(tmp_path, FILM + IN_4K % "300, 301")

    # In 4K for 301 s, and in 2K for 599 s, since 600 s are for 4K alone.
    assert model.to_tokens == max(1000 + 241 * 30, 1000 + 539 * 10)
    assert {"duration": 599, "resolution": "2K"} in list(model.combinations())
    with pytest.raises(InvalidCatalogue, match="duration 300, resolution 4K costs more than 1000000000 tokens"):
        film(tmp_path, (FILM + IN_4K % "300, 301").replace('"4K" = "3"', '"4K" = "1000000"'))


def test_the_worst_margin_in_the_middle_of_a_long_range_is_seen(tmp_path: Path) -> None:
    """The dearest second for us is the last one that is in the price of the start."""
    model = film(tmp_path, FILM.replace("tokens = 10,", "tokens = 100,"))

    assert worst_margin(model).parameters == {"duration": 60, "resolution": "2K"}


def test_all_amounts_cost_between_what_is_told_of_a_model(tmp_path: Path) -> None:
    model = film(tmp_path, FILM + IN_4K % "90, 400")
    costs = [
        model.tokens(parameters)
        for duration in range(1, 601)
        for resolution in ("2K", "4K")
        if model.violated(parameters := {"duration": duration, "resolution": resolution}) is None
    ]

    assert (model.from_tokens, model.to_tokens) == (min(costs), max(costs))
