"""The apps that the simulator knows, and the arguments that they accept.

Source: fal's generated endpoint types and model pages for fal-ai/wan-25-preview. As at fal, the arguments are
checked by the run, not by the submit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from simulator.answers import Answer, model_errors

IMAGE_SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
ASPECT_RATIOS = {"16:9": (16, 9), "9:16": (9, 16), "1:1": (1, 1)}
NAMESPACES = ("workflows", "comfy")


class ImageSize(BaseModel):
    width: Annotated[int, Field(ge=1, le=14142)]
    height: Annotated[int, Field(ge=1, le=14142)]


class Arguments(BaseModel):
    prompt: Annotated[str, Field(min_length=1, max_length=2000)]
    negative_prompt: Annotated[str, Field(max_length=500)] | None = None
    seed: int | None = None
    enable_safety_checker: bool = True
    enable_prompt_expansion: bool = False

    @property
    def input_urls(self) -> Sequence[tuple[tuple[str | int, ...], str]]:
        """Where in the body a picture is named, and its URL."""
        return ()


class ImageArguments(Arguments):
    image_size: (
        Literal["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"] | ImageSize
    ) = "square"
    num_images: Annotated[int, Field(ge=1, le=4)] = 1

    @property
    def size(self) -> tuple[int, int]:
        if isinstance(self.image_size, ImageSize):
            return self.image_size.width, self.image_size.height
        return IMAGE_SIZES[self.image_size]


class TextToImage(ImageArguments):
    enable_prompt_expansion: bool = True

    @field_validator("image_size")
    @classmethod
    def _size_is_within_limits(cls, size: str | ImageSize) -> str | ImageSize:
        if isinstance(size, ImageSize):
            pixels = size.width * size.height
            ratio = size.width / size.height
            if not (768**2 <= pixels <= 1440**2 and 1 / 4 <= ratio <= 4):
                raise PydanticCustomError(
                    "value_error", "Total pixels must be 768*768 to 1440*1440, the aspect ratio 1:4 to 4:1"
                )
        return size


class ImageToImage(ImageArguments):
    image_urls: Annotated[list[str], Field(min_length=1, max_length=2)]

    @field_validator("image_size")
    @classmethod
    def _sides_are_within_limits(cls, size: str | ImageSize) -> str | ImageSize:
        if isinstance(size, ImageSize) and not all(384 <= side <= 1440 for side in (size.width, size.height)):
            raise PydanticCustomError("value_error", "Each side must be 384 to 1440 pixels")
        return size

    @property
    def input_urls(self) -> Sequence[tuple[tuple[str | int, ...], str]]:
        return [(("image_urls", index), url) for index, url in enumerate(self.image_urls)]


class VideoArguments(Arguments):
    prompt: Annotated[str, Field(min_length=1, max_length=1500)]
    resolution: Literal["480p", "720p", "1080p"] = "1080p"
    duration: Literal["5", "10"] = "5"
    audio_url: str | None = None
    enable_prompt_expansion: bool = True


class TextToVideo(VideoArguments):
    aspect_ratio: Literal["16:9", "9:16", "1:1"] = "16:9"


class ImageToVideo(VideoArguments):
    image_url: str

    @property
    def input_urls(self) -> Sequence[tuple[tuple[str | int, ...], str]]:
        return [(("image_url",), self.image_url)]


@dataclass(frozen=True, slots=True)
class Endpoint:
    endpoint_id: str
    arguments: type[ImageArguments] | type[VideoArguments]

    @property
    def kind(self) -> str:
        return self.endpoint_id.rpartition("/")[2]

    @property
    def makes_video(self) -> bool:
        return issubclass(self.arguments, VideoArguments)


ENDPOINTS = {
    endpoint.endpoint_id: endpoint
    for endpoint in (
        Endpoint("fal-ai/wan-25-preview/text-to-image", TextToImage),
        Endpoint("fal-ai/wan-25-preview/image-to-image", ImageToImage),
        Endpoint("fal-ai/wan-25-preview/text-to-video", TextToVideo),
        Endpoint("fal-ai/wan-25-preview/image-to-video", ImageToVideo),
    )
}


def app_id_of(endpoint_id: str) -> str | None:
    """`owner/app`, with the namespace where there is one; None when the path is too short to name an app."""
    parts = endpoint_id.split("/")
    length = 3 if parts[0] in NAMESPACES else 2
    return "/".join(parts[:length]) if len(parts) >= length and all(parts) else None


# fal's own names for what pydantic calls otherwise.
_ERROR_TYPES = {
    "too_short": "sequence_too_short",
    "too_long": "sequence_too_long",
    "literal_error": "one_of",
}


def invalid_arguments(error: ValidationError) -> Answer:
    return model_errors([_detail(details) for details in error.errors()])


def _detail(details: ErrorDetails) -> dict[str, Any]:
    error_type = _ERROR_TYPES.get(details["type"], details["type"])
    detail: dict[str, Any] = {
        "loc": ["body", *details["loc"]],
        "msg": details["msg"],
        "type": error_type,
        "url": f"https://docs.fal.ai/errors/#{error_type}",
        "input": details["input"],
    }
    if "ctx" in details:
        detail["ctx"] = details["ctx"]
    return detail
