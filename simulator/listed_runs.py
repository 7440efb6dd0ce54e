"""What a run of a listed endpoint delivers: pictures or a film in the asked size, and its model's own result."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from simulator.answers import BILLABLE_UNITS_HEADER, Answer
from simulator.arguments import ImageSize
from simulator.behaviours import Behaviour
from simulator.billing import Size, billable_units
from simulator.listed import ListedEndpoint
from simulator.media import FRAMES_PER_SECOND, Film, Picture, delivered_size, film_size, image_size
from simulator.models import IMAGE_SIZES
from simulator.requests import Outcome, QueueRequest

SEED_MAX = 2**31 - 1
SQUARE_SIDES = {"auto_1K": 1024, "auto_2K": 2048, "auto_3K": 3072, "auto_4K": 4096}
RESOLUTION_SIDES = {"0.5k": 512, "1k": 1024, "2k": 2048, "4k": 4096}
SIDE_STEP = 16
# What a model takes that may choose the length itself.
CHOSEN_SECONDS = 5
IMAGES_MAX = 99


@dataclass(frozen=True, slots=True)
class Run:
    endpoint: ListedEndpoint
    arguments: BaseModel
    behaviour: Behaviour
    seed: int
    sources: tuple[Path, ...]
    input_sizes: Sequence[Size]


def success(
    request: QueueRequest, endpoint: ListedEndpoint, arguments: BaseModel, sources: tuple[Path, ...]
) -> Outcome:
    given = getattr(arguments, "seed", None)
    seed = random.Random(request.request_id).randint(0, SEED_MAX) if given is None else int(given)
    sizes = [image_size(source) for source in sources]
    run = Run(endpoint, arguments, request.behaviour, seed, sources, sizes)
    media: Sequence[Picture | Film]
    if endpoint.makes_video:
        film = _film(run)
        media = [film]
        units = billable_units(endpoint, arguments, inputs=sizes, seconds=film.duration_seconds)
    else:
        media = _pictures(run)
        delivered = [(picture.width, picture.height) for picture in media]
        units = billable_units(endpoint, arguments, images=delivered, inputs=sizes)
    files = [_file(request, endpoint, number, item) for number, item in enumerate(media, 1)]
    told = _told(arguments, media, seed)
    body: dict[str, Any] = {"video": files[0]} if endpoint.makes_video else {"images": files}
    body |= {name: told[name] for name in endpoint.fields}
    return Outcome(Answer(200, body, {BILLABLE_UNITS_HEADER: units}), media, files)


def _told(arguments: BaseModel, media: Sequence[Picture | Film], seed: int) -> dict[str, object]:
    """Whatever a model may say beside its files."""
    prompt = _prompt(arguments)
    expanded = f"{prompt} (as a prompt expansion would put it, with more detail)"
    return {
        "seed": seed,
        "has_nsfw_concepts": [item.is_black for item in media],
        "prompt": prompt,
        "timings": {"inference": 0.5},
        "duration": sum(item.duration_seconds for item in media if isinstance(item, Film)),
        "actual_prompt": expanded,
        "revised_prompt": expanded,
        "description": "",
        "generated_text": None,
    }


def _prompt(arguments: BaseModel) -> str:
    return str(getattr(arguments, "prompt", None) or "")


def _film(run: Run) -> Film:
    width, height = film_size(*(_ratio(run.arguments) or (run.input_sizes[0] if run.input_sizes else (16, 9))))
    return Film(
        kind=run.endpoint.endpoint_id,
        prompt=_prompt(run.arguments),
        seed=run.seed,
        width=width,
        height=height,
        duration_seconds=_seconds(run.endpoint, run.arguments),
        sources=run.sources,
        is_black=run.behaviour.flags(1),
    )


def _seconds(endpoint: ListedEndpoint, arguments: BaseModel) -> int:
    """fal spells it 5, "5" or "8s", and "auto" or null where the model may choose."""
    if endpoint.seconds is not None:
        return endpoint.seconds
    digits = str(getattr(arguments, "duration", None)).removesuffix("s")
    return int(digits) if digits.isdecimal() else CHOSEN_SECONDS


def _pictures(run: Run) -> list[Picture]:
    asked = run.endpoint.images_asked(run.arguments)
    count = min(run.behaviour.count_of(asked), IMAGES_MAX)
    width, height = delivered_size(*(run.behaviour.size or _asked_size(run.arguments, run.input_sizes)))
    return [
        Picture(
            kind=run.endpoint.endpoint_id,
            prompt=_prompt(run.arguments),
            seed=run.seed + number - 1,
            number=number,
            count=asked,
            width=width,
            height=height,
            sources=run.sources,
            is_black=run.behaviour.flags(number),
        )
        for number in range(1, count + 1)
    ]


def _asked_size(arguments: BaseModel, input_sizes: Sequence[Size]) -> Size:
    size = getattr(arguments, "image_size", None)
    if isinstance(size, dict):
        size = ImageSize.model_validate(size)
    if isinstance(size, ImageSize):
        return size.width, size.height
    if size in IMAGE_SIZES:
        return IMAGE_SIZES[size]
    side = SQUARE_SIDES.get(str(size))
    names = type(arguments).model_fields
    if side is None and input_sizes and "resolution" not in names and "aspect_ratio" not in names:
        return input_sizes[0]
    if side is None:
        side = RESOLUTION_SIDES.get(str(getattr(arguments, "resolution", None)).lower(), 1024)
        ratio = _ratio(arguments) or (input_sizes[0] if input_sizes else (1, 1))
        return _sides(side**2, *ratio)
    return side, side


def _ratio(arguments: BaseModel) -> Size | None:
    width, _, height = str(getattr(arguments, "aspect_ratio", None)).partition(":")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() and int(height) else None


def _sides(pixels: int, ratio_width: int, ratio_height: int) -> Size:
    """About so many pixels in this ratio, and no more, so that it stays within its megapixels."""
    width = math.sqrt(pixels * ratio_width / ratio_height)
    height = pixels / width
    return max(1, int(width // SIDE_STEP)) * SIDE_STEP, max(1, int(height // SIDE_STEP)) * SIDE_STEP


def _file(request: QueueRequest, endpoint: ListedEndpoint, number: int, item: Picture | Film) -> dict[str, Any]:
    name = f"{request.request_id}-{number}{item.suffix}"
    file: dict[str, Any] = {
        "url": f"{request.base_url}/files/b/{request.request_id[-8:]}/{name}",
        "content_type": item.content_type,
        "file_name": name,
        # Known once somebody has downloaded the file: only then is it drawn.
        "file_size": None,
    }
    if endpoint.sizes != "absent":
        is_told = endpoint.sizes == "told" or request.behaviour.tells_sizes
        file |= {"width": item.width if is_told else None, "height": item.height if is_told else None}
        if isinstance(item, Film):
            file |= {
                "fps": FRAMES_PER_SECOND,
                "duration": float(item.duration_seconds),
                "num_frames": item.frame_count,
            }
    return file
