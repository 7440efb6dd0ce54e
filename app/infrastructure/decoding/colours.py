"""What keeps the colours of a picture as they were meant, and nothing else of its ICC profile.

A profile says what the numbers of the pixels look like: without it, a photograph of a phone (Display P3) would turn
pale. But it also has room for the name and the serial number of a screen (Apple's tag "mmod"), and for anything that
somebody puts there. So it is written anew, with the tags alone from which colours follow (ICC.1:2022, clause 8 and 9).
"""

from collections.abc import Mapping
from io import BytesIO
from struct import error, pack, unpack_from

from PIL import Image, ImageCms

PROFILE_BYTES_MAX = 128 * 1024
"""A profile of matrices and curves has some 3 KB. The tables of printers are larger, but CMYK is not kept."""
_READ_BYTES_MAX = 4 * 1024 * 1024
_HEADER_BYTES = 128
_TAGS_MAX = 100
_COLOUR_TAGS = frozenset(b"wtpt chad cicp rXYZ gXYZ bXYZ rTRC gTRC bTRC kTRC A2B0 A2B1 A2B2 B2A0 B2A1 B2A2".split())
_SPACES = {"RGB": b"RGB ", "RGBA": b"RGB ", "L": b"GRAY", "LA": b"GRAY", "CMYK": b"CMYK"}


def kept_profile(profile: bytes | None, mode: str) -> bytes | None:
    """What is kept of the profile for a picture of this mode. None: it has none that counts for its pixels."""
    if not profile or len(profile) > _READ_BYTES_MAX or profile[16:20] != _SPACES.get(mode):
        return None
    try:
        cleaned = _with_tags_of_colour(profile)
        ImageCms.ImageCmsProfile(BytesIO(cleaned))
    except (OSError, ValueError, error):
        return None
    return cleaned if len(cleaned) <= PROFILE_BYTES_MAX else None


def cmyk_to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """By its profile where that can be read, and otherwise as everybody does who has none."""
    if profile and len(profile) <= _READ_BYTES_MAX:
        try:
            # The tables of a printer are needed here whatever their size; the profile itself is not kept.
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (OSError, ValueError, ImageCms.PyCMSError):
            converted = None
        if converted is not None:
            return converted
    return picture.convert("RGB")


def _with_tags_of_colour(profile: bytes) -> bytes:
    """Raises ValueError or struct.error for what is no profile."""
    (count,) = unpack_from(">I", profile, _HEADER_BYTES)
    if profile[36:40] != b"acsp" or count > _TAGS_MAX:
        raise ValueError("no profile")
    tags: dict[bytes, bytes] = {}
    for at in range(count):
        name, offset, length = unpack_from(">4sII", profile, _HEADER_BYTES + 4 + 12 * at)
        if name in _COLOUR_TAGS:
            tags[name] = profile[offset : offset + length]
            if len(tags[name]) != length:
                raise ValueError("a tag ends behind the profile")
    return _assembled(profile[:_HEADER_BYTES], tags)


def _assembled(header: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    places: dict[bytes, int] = {}
    table, data = pack(">I", len(tags)), b""
    first = _HEADER_BYTES + 4 + 12 * len(tags)
    for name, value in tags.items():
        # Tags of equal content share it, as the three curves of sRGB do.
        if value not in places:
            places[value] = first + len(data)
            data += value + bytes(-len(value) % 4)
        table += pack(">4sII", name, places[value], len(value))
    # What made it, when, for which device, and the digest of what it was are left out.
    cleaned = bytearray(header)
    for begin, end in ((4, 8), (24, 36), (40, 44), (48, 64), (80, 128)):
        cleaned[begin:end] = bytes(end - begin)
    cleaned[:4] = pack(">I", first + len(data))
    return bytes(cleaned) + table + data
