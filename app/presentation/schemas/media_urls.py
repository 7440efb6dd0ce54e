"""Pictures and sounds that a request names by URL, by file or by output, or brings along as a data: URI.

The service never opens these URLs: fal does. They are checked all the same, so that a job that cannot work is refused
before it costs anything, and nothing internal is ever handed on.

What is handed on is ASCII: whatever parser fal uses sees the same host, and no notation of an IP address is a host
here.
"""

from collections.abc import Callable
from typing import Annotated, Any, NotRequired, TypedDict

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo
from pydantic_core import PydanticCustomError

from app.domain.files import FILE_PATTERN, OUTPUT_PATTERN, is_reference
from app.presentation.schemas.data_uris import (
    MEDIA_BYTES_MAX,
    PICTURES,
    SOUNDS,
    Format,
    NotTaken,
    TooLarge,
    is_data,
    media_types_of,
    normalised,
)
from app.presentation.schemas.public_hosts import NotPublic
from app.presentation.schemas.public_urls import LOOPBACK_URL, URL_LENGTH_MAX, URL_PATTERN, public_url

__all__ = ["MEDIA_BYTES_MAX", "URL_LENGTH_MAX", "ImageUrl", "ValidationContext", "audio_url", "put_right"]


_REFERENCES = (
    "A file is written as file:<file_id>, with the id that POST /files gave, and an output of yours as "
    "output:<job_id>/<number>, counted from 0."
)


class ValidationContext(TypedDict):
    allow_private_media_urls: bool
    is_safety_checker_required: NotRequired[bool]


def _media_url(
    formats: tuple[Format, ...], seconds: tuple[int, int] | None = None
) -> Callable[[str, ValidationInfo], str]:
    def check(value: str, info: ValidationInfo) -> str:
        context: ValidationContext | None = info.context
        is_loopback_allowed = context is not None and context["allow_private_media_urls"]
        return _put_right(value, formats, seconds, is_loopback_allowed=is_loopback_allowed)

    return check


def put_right(value: str) -> str:
    """What a field had made of it that took it. Which kind of media it took makes no difference to that.

    Raises ValueError where no field takes it.
    """
    return _put_right(value, (*PICTURES, *SOUNDS), None, is_loopback_allowed=True)


def _put_right(
    value: str, formats: tuple[Format, ...], seconds: tuple[int, int] | None, *, is_loopback_allowed: bool
) -> str:
    """Raises PydanticCustomError."""
    text = value.strip()
    if is_reference(text):
        return text.lower()
    if is_data(text):
        return _data_uri(text, formats, seconds)
    if text.lower().startswith(("file:", "output:")):
        raise PydanticCustomError("url_not_allowed", "URL", {"reason": _REFERENCES})
    if is_loopback_allowed and LOOPBACK_URL.fullmatch(text):
        return text
    try:
        return public_url(text)
    except NotPublic as error:
        raise PydanticCustomError("url_not_allowed", "URL", {"reason": str(error)}) from None


def _data_uri(text: str, formats: tuple[Format, ...], seconds: tuple[int, int] | None) -> str:
    try:
        return normalised(text, formats, seconds)
    except TooLarge:
        raise PydanticCustomError("data_uri_too_large", "size", {"size_bytes_max": MEDIA_BYTES_MAX}) from None
    except NotTaken as error:
        raise PydanticCustomError("data_uri_not_allowed", "data: URI", {"reason": str(error)}) from None


def _published_pattern(formats: tuple[Format, ...]) -> dict[str, JsonValue]:
    """What always works. What is written otherwise is put right where its meaning is clear."""
    data = rf"data:({'|'.join(media_types_of(formats))});base64,[A-Za-z0-9+/]+=*"
    return {"pattern": f"^({'|'.join((URL_PATTERN, FILE_PATTERN, OUTPUT_PATTERN, data))})$"}


_LIMITS = (
    "Or `file:<file_id>` of an upload, `output:<job_id>/0` of an earlier job of yours, or the media itself as a "
    "`data:` URI in base64, at most 5 MiB decoded"
)

ImageUrl = Annotated[
    str,
    AfterValidator(_media_url(PICTURES)),
    Field(
        description=f"A public http or https URL. {_LIMITS} (PNG, JPEG, WebP, GIF, AVIF or HEIC, whatever type it "
        "declares).",
        json_schema_extra=_published_pattern(PICTURES),
    ),
]


def audio_url(seconds: tuple[int, int] | None) -> Any:
    """The type of a sound that may take so many seconds, which is checked where a WAV file is sent along."""
    length = "" if seconds is None else f" of {seconds[0]} to {seconds[1]} seconds"
    return Annotated[
        str,
        AfterValidator(_media_url(SOUNDS, seconds)),
        Field(
            description=f"A public http or https URL of a WAV or MP3 file{length}. {_LIMITS}.",
            json_schema_extra=_published_pattern(SOUNDS),
        ),
    ]
