"""Which kind of file something is, by how it begins: what a name or a header claims of it counts for nothing.

To know how a file begins is not to know that the rest of it is right. Only decoding it tells that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from struct import unpack_from

UNKNOWN_TYPE = "application/octet-stream"
SNIFFED_BYTES = 64
"""So much of a file is enough for `sniff`; it looks no further."""


class MediaKind(StrEnum):
    PICTURE = "picture"
    SOUND = "sound"
    FILM = "film"


@dataclass(frozen=True, slots=True)
class MediaType:
    content_type: str
    kind: MediaKind
    suffix: str
    """For the name of a file, with its dot."""
    is_shown_inline: bool = True
    """Whether our own origin may ever have a browser show it. Whatever else it holds is downloaded only."""


PNG = MediaType("image/png", MediaKind.PICTURE, ".png")
JPEG = MediaType("image/jpeg", MediaKind.PICTURE, ".jpg")
WEBP = MediaType("image/webp", MediaKind.PICTURE, ".webp")
GIF = MediaType("image/gif", MediaKind.PICTURE, ".gif")
AVIF = MediaType("image/avif", MediaKind.PICTURE, ".avif")
HEIC = MediaType("image/heic", MediaKind.PICTURE, ".heic", is_shown_inline=False)
MP4 = MediaType("video/mp4", MediaKind.FILM, ".mp4")
QUICKTIME = MediaType("video/quicktime", MediaKind.FILM, ".mov", is_shown_inline=False)
WEBM = MediaType("video/webm", MediaKind.FILM, ".webm")
MP3 = MediaType("audio/mpeg", MediaKind.SOUND, ".mp3")
WAV = MediaType("audio/wav", MediaKind.SOUND, ".wav")

MEDIA_TYPES = (PNG, JPEG, WEBP, GIF, AVIF, HEIC, MP4, QUICKTIME, WEBM, MP3, WAV)
SUFFIXES = {each.content_type: each.suffix for each in MEDIA_TYPES}
INLINE_CONTENT_TYPES = frozenset(each.content_type for each in MEDIA_TYPES if each.is_shown_inline)

# The brands of ISO 14496-12 that name one format. "mif1" and "msf1" name none: what such a file is, the others tell.
_BRANDS = {
    b"avif": AVIF,
    b"avis": AVIF,
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), HEIC),
    b"qt  ": QUICKTIME,
    **dict.fromkeys((b"mp41", b"mp42", b"mp71", b"avc1", b"M4V ", b"M4VH", b"M4VP", b"MSNV", b"dash"), MP4),
    **dict.fromkeys((b"isom", *(b"iso%d" % version for version in range(2, 10))), MP4),
}
# Sound alone, which lists brands of MP4 beside its own.
_SOUND_BRANDS = frozenset((b"M4A ", b"M4B ", b"M4P "))


def sniff(first: bytes) -> MediaType | None:
    """What a file is that begins so, or None: nothing that this service takes."""
    first = first[:SNIFFED_BYTES]
    return next((media_type for is_one, media_type in _SIGNATURES if is_one(first)), None) or _by_brand(first)


def _by_brand(first: bytes) -> MediaType | None:
    if first[4:8] != b"ftyp" or len(first) < 16:
        return None
    (length,) = unpack_from(">I", first)
    major, compatible = first[8:12], first[16 : min(length, len(first))]
    if major in _SOUND_BRANDS:
        return None
    brands = (major, *(compatible[at : at + 4] for at in range(0, len(compatible), 4)))
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _begins(*prefixes: bytes) -> Callable[[bytes], bool]:
    return lambda first: first.startswith(prefixes)


def _is_riff(form: bytes) -> Callable[[bytes], bool]:
    return lambda first: first[:4] == b"RIFF" and first[8:12] == form


def _is_webm(first: bytes) -> bool:
    # The header of EBML says the type of the document within its first elements. Matroska differs by it alone.
    at = first.find(b"\x42\x82")
    return first.startswith(b"\x1a\x45\xdf\xa3") and at > 0 and b"webm" in first[at + 3 : at + 14]


def _is_mp3(first: bytes) -> bool:
    """ID3v2's tag, or the header of a frame of layer III (ISO 11172-3) whose rates exist."""
    if first.startswith(b"ID3"):
        return len(first) >= 10
    if len(first) < 4 or first[0] != 0xFF or first[1] & 0xE6 != 0xE2:
        return False
    version, bit_rate, sample_rate = first[1] >> 3 & 3, first[2] >> 4, first[2] >> 2 & 3
    return version != 1 and bit_rate not in (0, 15) and sample_rate != 3


_SIGNATURES = (
    (_begins(b"\x89PNG\r\n\x1a\n"), PNG),
    (_begins(b"\xff\xd8\xff"), JPEG),
    (_begins(b"GIF87a", b"GIF89a"), GIF),
    (_is_riff(b"WEBP"), WEBP),
    (_is_riff(b"WAVE"), WAV),
    (_is_webm, WEBM),
    (_is_mp3, MP3),
)
