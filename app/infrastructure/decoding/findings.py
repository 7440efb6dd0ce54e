"""What a child finds, as it tells it to the service, and in which words it refuses a file."""

from dataclasses import dataclass

from app.domain.media_types import MediaType

SIDE_PIXELS_MAX = 16_384
"""WebP ends at 16,383 a side, and textures of graphics processors at 16,384. A longer picture is no picture."""
PIXELS_MAX = 50_000_000
FILM_SIDE_PIXELS_MAX = 8_192
"""8K is 7,680 pixels wide, and level 6.2 of HEVC ends at 8,192."""
SECONDS_MAX = 600
STREAMS_MAX = 8

TAKEN = "PNG, JPEG, WebP, GIF, AVIF, HEIC, MP4, MOV, WebM, MP3 or WAV"


class Refused(Exception):
    """`reason` is one sentence for whoever sent the file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    content_type: str
    width: int | None = None
    height: int | None = None
    duration_seconds: float | None = None


def unknown(first: bytes) -> str:
    """Of a file that begins so. Who sends what other services take hears that it is not the file."""
    if not first:
        return f"The file is empty: send {TAKEN}."
    if first.lstrip().lower().startswith((b"{", b"http://", b"https://", b"data:")):
        return f"This is no file, but a URL or JSON: send the file itself, {TAKEN}."
    return f"The file is of no type that is taken: send {TAKEN}."


def broken(media_type: MediaType) -> str:
    name = media_type.suffix[1:].upper()
    return (
        f"The file begins like {name} but is damaged or incomplete: check that it opens elsewhere, and send it again."
    )


def too_slow() -> str:
    return "The file takes longer to be read than is given to one file: send a smaller or simpler one."


def too_demanding() -> str:
    return "The file needs more memory to be read than is given to one file: send a smaller or simpler one."


def too_large() -> str:
    return "What is kept of the file would be larger than 100 MB: send a smaller one."


def check_size(width: int, height: int, side_max: int = SIDE_PIXELS_MAX) -> None:
    """Raises Refused."""
    if width < 1 or height < 1:
        raise Refused("The picture has no pixels: send another one.")
    if max(width, height) > side_max or width * height > PIXELS_MAX:
        raise Refused(
            f"The picture has {width} x {height} pixels: send one of at most {PIXELS_MAX // 1_000_000} megapixels "
            f"and {side_max} pixels a side."
        )


def check_duration(seconds: float) -> None:
    """Raises Refused."""
    if seconds > SECONDS_MAX:
        raise Refused(f"The file lasts longer than {SECONDS_MAX // 60} minutes: send a shorter one.")
