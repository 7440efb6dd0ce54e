"""Small files of each type that is taken, made here, and pieces of them: boxes, chunks and metadata."""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import av
import pillow_heif
from PIL import Image, ImageCms

pillow_heif.register_heif_opener()

PLACE = "+48.2082+016.3738/"
SERIAL_NUMBER = "SN-4711-0815"
# Red, green, blue and white, from the upper left on by rows: whoever turns it moves them.
CORNERS = ((220, 20, 20), (20, 200, 20), (20, 20, 220), (250, 250, 250))


def four_corners(width: int = 64, height: int = 48) -> Image.Image:
    picture = Image.new("RGB", (width, height))
    for at, colour in enumerate(CORNERS):
        left, top = at % 2 * (width // 2), at // 2 * (height // 2)
        picture.paste(colour, (left, top, left + width // 2, top + height // 2))
    return picture


def corner_order(picture: Image.Image) -> list[int]:
    """Which of CORNERS is seen where, from the upper left on by rows."""
    rgb = picture.convert("RGB")
    width, height = rgb.size

    def nearest(at: tuple[int, int]) -> int:
        pixel: Any = rgb.getpixel(at)
        return min(range(4), key=lambda each: sum(abs(a - b) for a, b in zip(pixel, CORNERS[each], strict=True)))

    return [nearest((x * width // 4, y * height // 4)) for y in (1, 3) for x in (1, 3)]


def saved(picture: Image.Image, form: str, **arguments: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=form, **arguments)
    return file.getvalue()


def phone_exif(orientation: int = 1) -> Image.Exif:
    """With a place, a serial number and an owner, as a phone or a camera writes them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Phone"
    exif.get_ifd(0x8769).update({0xA431: SERIAL_NUMBER, 0xA430: "Owner Name", 0x9003: "2026:01:02 03:04:05"})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 29.5), 3: "E", 4: (16.0, 22.0, 25.7)})
    return exif


def wide_profile() -> bytes:
    """An ICC profile that is not sRGB's, with the serial number of a screen in a tag of its own."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (count,) = struct.unpack_from(">I", srgb, 128)
    tags = {}
    for at in range(count):
        name, offset, length = struct.unpack_from(">4sII", srgb, 132 + 12 * at)
        tags[name] = srgb[offset : offset + length]
    # Red and green change places, which everybody sees who heeds the profile.
    tags[b"rXYZ"], tags[b"gXYZ"] = tags[b"gXYZ"], tags[b"rXYZ"]
    tags[b"mmod"] = b"mmod" + bytes(4) + SERIAL_NUMBER.encode() + bytes(20)
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    whole = srgb[:128] + table + data
    return struct.pack(">I", len(whole)) + whole[4:]


@cache
def pictures() -> dict[str, bytes]:
    """By suffix."""
    picture = four_corners()
    return {
        "png": saved(picture, "PNG"),
        "jpg": saved(picture, "JPEG"),
        "webp": saved(picture, "WEBP"),
        "gif": saved(picture, "GIF"),
        "avif": saved(picture, "AVIF", speed=10),
        "heic": saved(picture, "HEIF"),
    }


@cache
def films() -> dict[str, bytes]:
    return {
        "mp4": film("mp4", "libx264", "aac"),
        "mov": film("mov", "libx264", "aac"),
        "webm": film("webm", "libvpx-vp9", "libopus"),
    }


@cache
def sounds() -> dict[str, bytes]:
    return {"mp3": film("mp3", None, "libmp3lame"), "wav": film("wav", None, "pcm_s16le")}


def samples() -> dict[str, bytes]:
    return {**pictures(), **films(), **sounds()}


def film(
    form: str,
    video: str | None,
    sound: str | None,
    *,
    seconds: float = 1.0,
    size: tuple[int, int] = (96, 64),
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form, options=options or {}) as container:
        container.metadata.update(metadata or {})
        pictures_of, sounds_of = _streams(container, video, sound, size)
        if pictures_of is not None:
            for frame in _frames(size, round(seconds * 10)):
                container.mux(pictures_of.encode(frame))
            container.mux(pictures_of.encode())
        if sounds_of is not None:
            for silence in _silence(round(seconds * 10)):
                container.mux(sounds_of.encode(silence))
            container.mux(sounds_of.encode())
    return file.getvalue()


def _streams(container: Any, video: str | None, sound: str | None, size: tuple[int, int]) -> tuple[Any, Any]:
    pictures_of = sounds_of = None
    if video is not None:
        pictures_of = container.add_stream(video, rate=10)
        pictures_of.width, pictures_of.height = size
        pictures_of.pix_fmt = "yuv420p"
    if sound is not None:
        sounds_of = container.add_stream(sound, rate=48000)
        sounds_of.layout = "mono"
    return pictures_of, sounds_of


def _frames(size: tuple[int, int], count: int) -> Iterator[av.VideoFrame]:
    for at in range(count):
        frame: Any = av.VideoFrame.from_image(four_corners(*size))  # type: ignore[no-untyped-call]
        frame.pts, frame.time_base = at, Fraction(1, 10)
        yield frame


def _silence(count: int) -> Iterator[av.AudioFrame]:
    for at in range(count):
        frame = av.AudioFrame(format="s16", layout="mono", samples=4800)
        frame.sample_rate, frame.pts, frame.time_base = 48000, at * 4800, Fraction(1, 48000)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        yield frame


def box(name: bytes, *content: bytes) -> bytes:
    """One of ISO 14496-12 and of QuickTime."""
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + name + data


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, data: bytes, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """`data` is compressed here; the chunks stand before it."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(chunks)
        + png_chunk(b"IDAT", zlib.compress(data, 9))
        + png_chunk(b"IEND", b"")
    )


def riff(form: bytes, *chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    body = form + b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def element(name: str, data: bytes, size: bytes | None = None) -> bytes:
    """One of EBML. Without a size of its own it has one of eight bytes."""
    return bytes.fromhex(name) + (size or struct.pack(">Q", 0x0100000000000000 | len(data))) + data


def inserted_into_moov(movie: bytes, extra: Sequence[bytes]) -> bytes:
    """Where the table of contents stands behind the data, no offset moves."""
    at = movie.rindex(b"moov") - 4
    (length,) = struct.unpack_from(">I", movie, at)
    content = b"".join(extra)
    return (
        movie[:at]
        + struct.pack(">I", length + len(content))
        + movie[at + 4 : at + length]
        + content
        + movie[at + length :]
    )
