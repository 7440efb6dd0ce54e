"""Pictures and sounds that a request names by URL, or brings along as a data: URI.

The service never opens these URLs: fal does. They are checked all the same, so that a job that cannot work is
refused before it costs anything, and nothing internal is ever handed on.

A URL is read by one regular expression, with nothing between `//` and the path but a host name and a port:
whatever parser fal uses, it sees the same host, and no notation of an IP address is a host name here.
"""

import binascii
import re
from collections.abc import Callable, Mapping
from typing import Annotated, TypedDict

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

URL_LENGTH_MAX = 2048
MEDIA_BYTES_MAX = 5 * 1024 * 1024


class ValidationContext(TypedDict):
    allow_private_media_urls: bool


# Printable ASCII without # and \, the latter because some parsers read it as another /.
_PATH = r'([/?][!-"$-\[\]-~]*)?'
_URL_PATTERN = rf"https?://([A-Za-z0-9_-]+\.)+[A-Za-z][A-Za-z0-9-]*(:80|:443)?{_PATH}"
_URL = re.compile(_URL_PATTERN, re.ASCII | re.IGNORECASE)
_LOOPBACK_URL = re.compile(rf"http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{{1,5}})?{_PATH}", re.ASCII | re.IGNORECASE)
_INTERNAL_HOST = re.compile(r"https?://[^/:?]+\.(localhost|localdomain|local|internal)([:/?]|$)", re.IGNORECASE)

_WAV = re.compile(rb"RIFF.{4}WAVE", re.DOTALL)
_MP3 = re.compile(rb"ID3|\xff[\xe0-\xff]")
# The first bytes that a file of each media type must have.
_IMAGES: Mapping[str, re.Pattern[bytes]] = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}
_SOUNDS: Mapping[str, re.Pattern[bytes]] = {
    "audio/mpeg": _MP3,
    "audio/mp3": _MP3,
    "audio/wav": _WAV,
    "audio/x-wav": _WAV,
}


def _media_url(signatures: Mapping[str, re.Pattern[bytes]]) -> Callable[[str, ValidationInfo], str]:
    def check(value: str, info: ValidationInfo) -> str:
        if value.startswith("data:"):
            _check_data_uri(value, signatures)
        else:
            context: ValidationContext | None = info.context
            _check_url(value, allow_loopback=context is not None and context["allow_private_media_urls"])
        return value

    return check


def _check_url(url: str, *, allow_loopback: bool) -> None:
    if len(url) <= URL_LENGTH_MAX:
        if _URL.fullmatch(url) and not _INTERNAL_HOST.match(url):
            return
        if allow_loopback and _LOOPBACK_URL.fullmatch(url):
            return
    raise PydanticCustomError("url_not_allowed", "URL", {"url_length_max": URL_LENGTH_MAX})


def _check_data_uri(uri: str, signatures: Mapping[str, re.Pattern[bytes]]) -> None:
    head, _, encoded = uri.partition(";base64,")
    signature = signatures.get(head.removeprefix("data:"))
    media = _decode(encoded)
    if signature is None or not signature.match(media):
        raise PydanticCustomError("data_uri_not_allowed", "data: URI", {"media_types": ", ".join(signatures)})
    if len(media) > MEDIA_BYTES_MAX:
        raise PydanticCustomError("data_uri_too_large", "size", {"size_bytes_max": MEDIA_BYTES_MAX})


def _decode(encoded: str) -> bytes:
    """Returns nothing if it is not base64: no signature matches that."""
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        return b""


def _published_pattern(media_types: Mapping[str, re.Pattern[bytes]]) -> dict[str, str]:
    return {"pattern": rf"^({_URL_PATTERN}|data:({'|'.join(media_types)});base64,[A-Za-z0-9+/]+=*)$"}


_LIMITS = "Or the media itself as a `data:` URI in base64, at most 5 MiB decoded"

ImageUrl = Annotated[
    str,
    AfterValidator(_media_url(_IMAGES)),
    Field(
        description=f"A public http or https URL. {_LIMITS} (PNG, JPEG or WebP).",
        json_schema_extra=_published_pattern(_IMAGES),
    ),
]
AudioUrl = Annotated[
    str,
    AfterValidator(_media_url(_SOUNDS)),
    Field(
        description=f"A public http or https URL of a WAV or MP3 file of 3 to 30 seconds. {_LIMITS}.",
        json_schema_extra=_published_pattern(_SOUNDS),
    ),
]
