"""Files of an operator, written into a directory of a test."""

from collections.abc import Mapping
from pathlib import Path

from app.domain.catalogue import Catalogue
from app.infrastructure.catalogue.reading import read_catalogue
from tests.builders import BUILT_IN

MODEL = """family = "House"

[[model]]
id = "house/painter"
type = "TEXT_TO_IMAGE"
title = "Painter"
description = {en = "Paints.", ru = "Рисует."}
checked = 2026-10-10
sources = ["https://example.com"]
typical_seconds = {from = 1, to = 2}
time_limit = "image"
example.prompt = "A fox"
result = {outputs = "images"}
price = [
    {line = "images", per = "image", tokens = 4, factors = {resolution = {"2K" = "3/2"}}},
    {line = "sound", per = "run", tokens = 1, when = {generate_audio = [true]}, is_optional = true},
]
cost_usd = [
    {line = "images", per = "image", usd = "0.03"},
]

[model.parameters]
prompt = {required = true}
negative_prompt = {}
resolution = {values = ["1K", "2K"], assumed = "1K", fal = {name = "size", values = {"2K" = 2048}}}
generate_audio = {default = false}
num_images = {maximum = 4, default = 1, fal = {text = "{}"}}
image_size = {presets = ["square"], side_min = 100, side_max = 2000}

[model.fixed]
mode = "fine"

[[model.constraints]]
when = {resolution = ["2K"]}
require = {generate_audio = [false]}
message = {en = "In 2K there is no sound: set generate_audio to false.", ru = "Звука в 2K нет."}
"""


def prices_by_name(catalogue: Catalogue) -> Mapping[str, int]:
    """What TOKEN_PRICES_JSON can override."""
    return {
        name: rule.tokens
        for model in catalogue
        for rule in model.prices
        if (name := model.price_names.get(rule.line)) is not None
    }


PRICES_BY_NAME = prices_by_name(BUILT_IN)


def catalogue_of(directory: Path, *texts: str) -> Catalogue:
    """With these files over the models of the service."""
    for number, text in enumerate(texts):
        (directory / f"file{number}.toml").write_text(text)
    return read_catalogue(directory)
