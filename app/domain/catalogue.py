"""What can be generated, by which model of fal, and for how many tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.domain.errors import InvalidPrices
from app.domain.pricing import PriceLine, Unit
from app.domain.terms import ResultShape, Terms

PRICE_TOKENS_MAX = 10**9


class GenerationKind(StrEnum):
    TEXT_TO_IMAGE = "TEXT_TO_IMAGE"
    IMAGE_TO_IMAGE = "IMAGE_TO_IMAGE"
    TEXT_TO_VIDEO = "TEXT_TO_VIDEO"
    IMAGE_TO_VIDEO = "IMAGE_TO_VIDEO"

    @property
    def is_video(self) -> bool:
        return self in (GenerationKind.TEXT_TO_VIDEO, GenerationKind.IMAGE_TO_VIDEO)


MODEL_IDS: Mapping[GenerationKind, str] = {
    GenerationKind.TEXT_TO_IMAGE: "fal-ai/wan-25-preview/text-to-image",
    GenerationKind.IMAGE_TO_IMAGE: "fal-ai/wan-25-preview/image-to-image",
    GenerationKind.TEXT_TO_VIDEO: "fal-ai/wan-25-preview/text-to-video",
    GenerationKind.IMAGE_TO_VIDEO: "fal-ai/wan-25-preview/image-to-video",
}

# Models that are not sold any more, and that an unfinished job may still have. Steps of any other model are left to a
# newer release, so a model moves here, instead of away, until no release that sells it runs and its jobs have ended.
RETIRED_MODEL_IDS: Mapping[GenerationKind, frozenset[str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizeLimits:
    """What a model takes as the width and height of a picture that it makes."""

    side_pixels_min: int
    side_pixels_max: int
    pixels_min: int = 1
    pixels_max: int | None = None
    ratio_max: int | None = None
    """Of the longer side to the shorter one."""

    @property
    def sentence(self) -> str:
        told = [f"Each side must have {self.side_pixels_min} to {self.side_pixels_max} pixels"]
        if self.pixels_max is not None:
            told.append(f"width times height must be {self.pixels_min} to {self.pixels_max}")
        if self.ratio_max is not None:
            told.append(f"the longer side may be at most {self.ratio_max} times the shorter one")
        return f"{', and '.join(told)}."

    def allows(self, width: int, height: int) -> bool:
        return (
            self.side_pixels_min <= min(width, height)
            and max(width, height) <= self.side_pixels_max
            and self.pixels_min <= width * height <= (self.pixels_max or width * height)
            and max(width, height) <= min(width, height) * (self.ratio_max or max(width, height))
        )


# Source: fal's pages of the models, https://fal.ai/models/fal-ai/wan-25-preview/text-to-image and /image-to-image.
IMAGE_SIZE_LIMITS: Mapping[GenerationKind, ImageSizeLimits] = {
    GenerationKind.TEXT_TO_IMAGE: ImageSizeLimits(
        side_pixels_min=384, side_pixels_max=1440, pixels_min=768 * 768, pixels_max=1440 * 1440, ratio_max=4
    ),
    GenerationKind.IMAGE_TO_IMAGE: ImageSizeLimits(side_pixels_min=384, side_pixels_max=1440),
}
# Width and height of fal's presets. `square` is what fal makes of text without a size, so that it is taken there
# although it is below the limit of a size in numbers.
IMAGE_PRESETS: Mapping[str, tuple[int, int]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
# Of the sound that goes into a video.
AUDIO_SECONDS_MIN = 3
AUDIO_SECONDS_MAX = 30

DEFAULT_PRICES: Mapping[str, int] = {
    "text_to_image": 5,
    "image_to_image": 6,
    "text_to_video_5s": 30,
    "text_to_video_10s": 55,
    "image_to_video_5s": 35,
    "image_to_video_10s": 65,
}


def models_carried_out(kind: GenerationKind) -> frozenset[str]:
    """The models whose jobs this release submits, follows and settles."""
    return RETIRED_MODEL_IDS.get(kind, frozenset()) | {MODEL_IDS[kind]}


def outputs_requested(parameters: Mapping[str, Any]) -> int:
    return int(parameters.get("num_images", 1))


@dataclass(frozen=True, slots=True)
class PriceList:
    """Tokens per image, or per video of a given length. `overrides` replaces single prices.

    Raises InvalidPrices for an unknown name or for anything but a whole number from 1 to 10^9.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, price in self.overrides.items():
            if name not in DEFAULT_PRICES:
                raise InvalidPrices(f"unknown price {name!r}; the prices are {', '.join(DEFAULT_PRICES)}")
            if type(price) is not int or not 1 <= price <= PRICE_TOKENS_MAX:
                raise InvalidPrices(f"the price {name!r} must be a whole number from 1 to {PRICE_TOKENS_MAX}")

    @property
    def cheapest_tokens(self) -> int:
        return min(map(self._price, DEFAULT_PRICES))

    def cost_tokens(self, kind: GenerationKind, parameters: Mapping[str, Any]) -> int:
        return self.terms(kind, parameters).cost_tokens

    def terms(self, kind: GenerationKind, parameters: Mapping[str, Any]) -> Terms:
        """One line, which has the name of the price."""
        name = f"{kind.value.lower()}_{parameters.get('duration', 5)}s" if kind.is_video else kind.value.lower()
        outputs = 1 if kind.is_video else outputs_requested(parameters)
        line = PriceLine(line=name, unit=Unit.IMAGE, unit_tokens=self._price(name), quantity=outputs)
        shape = ResultShape(outputs="video" if kind.is_video else "images", flags="has_nsfw_concepts")
        return Terms(lines=[line], shape=shape, outputs_max=outputs)

    def _price(self, name: str) -> int:
        price = self.overrides.get(name)
        return DEFAULT_PRICES[name] if price is None else int(price)
