"""Pictures, made anew from their pixels alone: what is no pixel, and what stands behind the end, does not survive.

Each type is decoded by the one reader that is meant for it. Of what moves, the first frame is taken. Upright as they
are shown, and with their colours (`colours`).
"""

import warnings
from collections.abc import Mapping
from typing import Any, BinaryIO

import pi_heif
from PIL import (
    AvifImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from app.domain.media_types import AVIF, GIF, HEIC, JPEG, PNG, WEBP, MediaType
from app.infrastructure.decoding.colours import cmyk_to_srgb, kept_profile
from app.infrastructure.decoding.findings import PIXELS_MAX, Finding, Refused, broken, check_size
from app.infrastructure.decoding.jpeg import check_jpeg

# Reading them here means that a child, which can open no file, has them.
PRELOADED = (AvifImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, WebPImagePlugin)
# A block of 128 x 128 pixels takes some bits at least. libavif stretches what is smaller than the file says.
_AVIF_PIXELS_PER_BYTE_MAX = 128 * 128 * 4
_READERS = {PNG: "PNG", JPEG: "JPEG", WEBP: "WEBP", GIF: "GIF", AVIF: "AVIF"}
_SAVED_AS: Mapping[MediaType, Mapping[str, Any]] = {
    # The usual level of 6 takes 50 megapixels up to a minute, and saves a tenth.
    PNG: {"format": "PNG", "compress_level": 2},
    # All the colours that the picture has: saving it must not be seen.
    JPEG: {"format": "JPEG", "quality": 92, "subsampling": 0},
    WEBP: {"format": "WEBP", "quality": 92},
}
_LOSSLESS_WEBP = {"format": "WEBP", "lossless": True, "quality": 20, "method": 0, "exact": True}


def set_bounds() -> None:
    """For this process: what Pillow and libheif refuse by themselves, before they take memory for it."""
    # Pillow warns at this number, and refuses what has twice as many.
    Image.MAX_IMAGE_PIXELS = PIXELS_MAX // 2
    warnings.simplefilter("ignore")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024
    # One thread is as fast as several on a busy machine, and a bound of time then bounds the work.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    pi_heif.options.DECODE_THREADS = 0
    pi_heif.options.THUMBNAILS = False
    pi_heif.options.DEPTH_IMAGES = False
    pi_heif.options.AUX_IMAGES = False


def clean_picture(source: BinaryIO, output: BinaryIO, media_type: MediaType) -> Finding:
    """Raises Refused, and whatever the readers do."""
    if media_type is JPEG:
        check_jpeg(source)
    is_lossless = media_type is WEBP and _is_lossless(source)
    picture = _decode_heic(source) if media_type is HEIC else _decode(source, media_type)
    profile = picture.info.get("icc_profile")
    if picture.mode == "CMYK":
        picture, profile = cmyk_to_srgb(picture, profile), None
    picture = _plain(picture)
    target = _target(media_type, has_alpha=picture.mode in ("LA", "RGBA"))
    arguments = _LOSSLESS_WEBP if is_lossless else _SAVED_AS[target]
    # Whatever Pillow would copy from it into the file.
    picture.info = {}
    picture.save(output, icc_profile=kept_profile(profile, picture.mode), **arguments)
    return Finding(content_type=target.content_type, width=picture.width, height=picture.height)


def _decode(source: BinaryIO, media_type: MediaType) -> Image.Image:
    source.seek(0)
    try:
        picture: Image.Image = Image.open(source, formats=(_READERS[media_type],))
    except Image.DecompressionBombError as error:
        raise Refused(
            f"The picture has more than {PIXELS_MAX // 1_000_000} megapixels: send one of that many at most."
        ) from error
    check_size(*picture.size)
    if media_type is AVIF and picture.width * picture.height > source.seek(0, 2) * _AVIF_PIXELS_PER_BYTE_MAX:
        raise Refused(broken(AVIF))
    picture.load()
    return ImageOps.exif_transpose(picture)


def _decode_heic(source: BinaryIO) -> Image.Image:
    """The container says how the picture is turned, and libheif heeds it.

    A phone says it in Exif as well, which then counts for nothing (ISO 23008-12, annex A). Where the container says
    nothing, whoever wrote it into Exif alone meant it.
    """
    source.seek(0)
    file = pi_heif.open_heif(source, convert_hdr_to_8bit=True)
    check_size(*file.size)
    picture: Image.Image = file.to_pillow()
    check_size(*picture.size)
    orientation = picture.info.get("original_orientation") or 1
    if orientation == 1 or _turns_itself(source):
        return picture
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(picture)


def _turns_itself(source: BinaryIO) -> bool:
    source.seek(0)
    data = source.read()
    at = data.find(b"meta")
    meta = data[at : at + int.from_bytes(data[at - 4 : at], "big")]
    return b"irot" in meta or b"imir" in meta


def _target(media_type: MediaType, *, has_alpha: bool) -> MediaType:
    if media_type in (HEIC, AVIF):
        return PNG if has_alpha else JPEG
    return PNG if media_type is GIF else media_type


def _plain(picture: Image.Image) -> Image.Image:
    """With 8 bits a channel: grey or RGB, with alpha where there is any."""
    if picture.mode.startswith("I"):
        # 16 bits of grey, which convert() would cut off instead of dividing.
        picture = picture.convert("I").point(lambda value: value / 256).convert("L")
    has_alpha = picture.has_transparency_data
    if picture.mode in ("LA", "RGBA") or (picture.mode in ("L", "RGB") and not has_alpha):
        return picture
    if picture.mode in ("1", "L", "LA", "La"):
        return picture.convert("LA" if has_alpha else "L")
    return picture.convert("RGBA" if has_alpha else "RGB")


def _is_lossless(source: BinaryIO) -> bool:
    """Whether the first frame of a WebP is (RFC 9649). Raises Refused."""
    source.seek(12)
    while len(head := source.read(8)) == 8:
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        # The chunks of a frame stand within its own, behind 16 bytes.
        source.seek(16 if name == b"ANMF" else length + length % 2, 1)
    raise Refused(broken(WEBP))
