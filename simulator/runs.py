"""What a run makes of its arguments. It is worked out once, when somebody first asks after the run's end."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator import answers, listed_runs
from simulator.answers import BILLABLE_UNITS_HEADER, Answer, Refused
from simulator.behaviours import Behaviour
from simulator.inputs import InputPictures
from simulator.listed import LISTED, check_pictures
from simulator.media import (
    FRAMES_PER_SECOND,
    Film,
    Picture,
    film_size,
    image_size,
    picture_size,
)
from simulator.models import (
    ASPECT_RATIOS,
    ENDPOINTS,
    Endpoint,
    ImageArguments,
    TextToVideo,
    VideoArguments,
    invalid_arguments,
)
from simulator.requests import Outcome, QueueRequest

SEED_MAX = 2**31 - 1


async def finish(request: QueueRequest, pictures: InputPictures) -> Outcome:
    if request.misses_start:
        return Outcome(answers.infrastructure_error("request_timeout", answers.MISSED_START_HEADERS))
    if request.endpoint_id not in ENDPOINTS and request.endpoint_id not in LISTED:
        return Outcome(answers.unknown_path(request.endpoint_id.removeprefix(request.app_id).lstrip("/")))
    if request.behaviour.failure is not None:
        return Outcome(answers.failure(request.behaviour.failure, request.input))
    try:
        return await (_run_listed if request.endpoint_id in LISTED else _run)(request, pictures)
    except ValidationError as error:
        return Outcome(invalid_arguments(error))
    except Refused as refused:
        return Outcome(refused.answer)


async def _run(request: QueueRequest, pictures: InputPictures) -> Outcome:
    endpoint = ENDPOINTS[request.endpoint_id]
    arguments = endpoint.arguments.model_validate(request.input)
    sources = tuple([await pictures.load(url, loc) for loc, url in arguments.input_urls])
    return _success(request, endpoint, arguments, sources)


async def _run_listed(request: QueueRequest, pictures: InputPictures) -> Outcome:
    endpoint = LISTED[request.endpoint_id]
    arguments = endpoint.validated(request.input)
    urls = endpoint.input_urls(arguments)
    sources = tuple([await pictures.load(url, loc) for loc, url in urls])
    check_pictures(endpoint, urls, [image_size(source) for source in sources])
    return listed_runs.success(request, endpoint, arguments, sources)


def _success(
    request: QueueRequest,
    endpoint: Endpoint,
    arguments: ImageArguments | VideoArguments,
    sources: tuple[Path, ...],
) -> Outcome:
    # Without a seed in the arguments the request's id is the seed: the same request, the same pictures.
    seed = random.Random(request.request_id).randint(0, SEED_MAX) if arguments.seed is None else arguments.seed
    media: Sequence[Picture | Film]
    body: dict[str, Any]
    if isinstance(arguments, VideoArguments):
        film = _film(request.behaviour, endpoint.kind, arguments, sources, seed)
        media, units = [film], film.duration_seconds
        files = [_file(request, 1, film) | _film_fields(film)]
        body = {"video": files[0], "seed": seed}
    else:
        media = _pictures(request.behaviour, endpoint.kind, arguments, sources, seed)
        units = len(media)
        files = [_file(request, number, picture) for number, picture in enumerate(media, 1)]
        body = {"images": files, "seeds": [picture.seed for picture in media]}
    if arguments.enable_prompt_expansion:
        body["actual_prompt"] = f"{arguments.prompt} (as a prompt expansion would put it, with more detail)"
    if any(item.is_black for item in media):
        body["has_nsfw_concepts"] = [item.is_black for item in media]
    return Outcome(Answer(200, body, {BILLABLE_UNITS_HEADER: str(units)}), media, files)


def _film(behaviour: Behaviour, kind: str, arguments: VideoArguments, sources: tuple[Path, ...], seed: int) -> Film:
    width, height = film_size(
        *(ASPECT_RATIOS[arguments.aspect_ratio] if isinstance(arguments, TextToVideo) else image_size(sources[0]))
    )
    return Film(
        kind=kind,
        prompt=arguments.prompt,
        seed=seed,
        width=width,
        height=height,
        duration_seconds=int(arguments.duration),
        sources=sources,
        is_black=behaviour.flags(1),
    )


def _pictures(
    behaviour: Behaviour, kind: str, arguments: ImageArguments, sources: tuple[Path, ...], seed: int
) -> list[Picture]:
    count = behaviour.count_of(arguments.num_images)
    width, height = picture_size(*(behaviour.size or arguments.size))
    return [
        Picture(
            kind=kind,
            prompt=arguments.prompt,
            seed=seed + number - 1,
            number=number,
            count=arguments.num_images,
            width=width,
            height=height,
            sources=sources,
            is_black=behaviour.flags(number),
        )
        for number in range(1, count + 1)
    ]


def _file(request: QueueRequest, number: int, item: Picture | Film) -> dict[str, Any]:
    # fal's form of the URL: eight hexadecimal digits, then a name. Here the name alone identifies the file.
    name = f"{request.request_id}-{number}{item.suffix}"
    return {
        "url": f"{request.base_url}/files/b/{request.request_id[-8:]}/{name}",
        "content_type": item.content_type,
        "file_name": name,
        # Known once somebody has downloaded the file: only then is it drawn.
        "file_size": None,
        "width": item.width,
        "height": item.height,
    }


def _film_fields(film: Film) -> dict[str, Any]:
    return {
        "fps": FRAMES_PER_SECOND,
        "duration": float(film.duration_seconds),
        "num_frames": film.frame_count,
    }
