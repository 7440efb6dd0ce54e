"""Small pictures as people send them, no two of them alike, and what is no picture."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tests.media_samples import phone_exif, saved

# What the default model for pictures of pictures takes, at the least, and what it does not.
SIDES = (384, 480)
SIDES_TOO_SMALL = (64, 200)
ON_ITS_SIDE = 6
BROKEN = ("half of a picture", "a drawing", "noise behind a right beginning", "nothing")
_BOUNDARY = "a-form-of-torture"


@dataclass(frozen=True, slots=True)
class Sample:
    content: bytes
    content_type: str
    """That it is sent as."""
    size: tuple[int, int]
    """As it is shown, upright."""


def sample(rng: random.Random, sides: tuple[int, int] = SIDES) -> Sample:
    """One in four is a photograph on its side, with a place and a serial number."""
    width, height = rng.randint(*sides), rng.randint(*sides)
    form = rng.choice(("JPEG", "JPEG", "PNG", "HEIF"))
    is_on_its_side = form == "JPEG" and rng.random() < 0.5
    arguments: Mapping[str, Any] = {"exif": phone_exif(ON_ITS_SIDE)} if is_on_its_side else {}
    content = saved(_drawn(rng, width, height), form, **arguments)
    content_type = "image/heic" if form == "HEIF" else f"image/{form.lower()}"
    return Sample(content, content_type, (height, width) if is_on_its_side else (width, height))


def broken(rng: random.Random) -> bytes:
    whole = saved(_drawn(rng, *SIDES), "PNG")
    kind = rng.choice(BROKEN)
    if kind == "half of a picture":
        return whole[: len(whole) // 2]
    if kind == "noise behind a right beginning":
        return b"\xff\xd8\xff\xe0" + rng.randbytes(3_000)
    return b"<svg xmlns='http://www.w3.org/2000/svg'/>" if kind == "a drawing" else b""


def as_form(content: bytes) -> tuple[bytes, str]:
    """The body of a form with one file and another field, and its type."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="note"\r\n\r\na note\r\n--{_BOUNDARY}\r\n'
    of_file = 'Content-Disposition: form-data; name="file"; filename="../photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = head.encode() + of_file.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return body, f"multipart/form-data; boundary={_BOUNDARY}"


def _drawn(rng: random.Random, width: int, height: int) -> Image.Image:
    """Of few colours that flow into each other, so that it is small in every form, and differs from all others."""
    noise = Image.frombytes("RGB", (6, 6), rng.randbytes(108))
    return noise.resize((width, height), Image.Resampling.NEAREST)
