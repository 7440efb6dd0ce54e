"""Pictures and sounds that a request brings along as a data: URI (RFC 2397), as people have them.

What the bytes are decides, not what the URI says they are. Whatever is only written differently is put right:
`image/jpg`, capitals, parameters, base64 without padding, with line breaks or in its form for URLs, or no `data:`.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

MEDIA_BYTES_MAX = 5 * 1024 * 1024

PLAIN_LENGTH_MAX = 64 * 1024

_HEAD_LENGTH_MAX = 1024
# Of a WAV file, before that of its samples.
_CHUNKS_MAX = 64
_HEAD = re.compile(r"data:(?P<type>[^,;]*)(?P<parameters>(;[^,]*)?),", re.ASCII | re.IGNORECASE)
_BLANKS = re.compile(rb"[ \t\r\n\f]+")
_BASE64_START = re.compile(r"(iVBORw0KGg[o-r]|/9j/|_9j_|UklGR|R0lGOD|SUQz)[A-Za-z0-9+/_=\s-]*")
# What base64 may have in it and a URL may want escaped.
_ESCAPES = {
    escape: meant
    for code, meant in (("2b", b"+"), ("2f", b"/"), ("3d", b"="), ("0a", b""), ("0d", b""), ("20", b""))
    for escape in {f"%{code}".encode(), f"%{code.upper()}".encode()}
}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class Format:
    """`media_types`: under which a file of this format is known, the right one first."""

    name: str
    signature: re.Pattern[bytes]
    media_types: tuple[str, ...] = ()


def _format(name: str, signature: bytes, *media_types: str) -> Format:
    return Format(name, re.compile(signature, re.DOTALL), media_types)


PNG = _format("PNG", rb"\x89PNG\r\n\x1a\n", "image/png")
JPEG = _format("JPEG", rb"\xff\xd8\xff", "image/jpeg")
WEBP = _format("WebP", rb"RIFF.{4}WEBP", "image/webp")
# A frame of MPEG audio of layer I to III; layer 0 is AAC.
MP3 = _format("MP3", rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]", "audio/mpeg", "audio/mp3")
WAV = _format("WAV", rb"RIFF.{4}WAVE", "audio/wav", "audio/x-wav")
# These are kept as JPEG or PNG, and of a GIF its first frame.
GIF = _format("GIF", rb"GIF8[79]a", "image/gif")
AVIF = _format("AVIF", rb".{4}ftypavi[fs]", "image/avif")
HEIC = _format("HEIC", rb".{4}ftyp(hei[cmsx]|hev[cmx]|mif1|msf1)", "image/heic", "image/heif")
PICTURES = (PNG, JPEG, WEBP, GIF, AVIF, HEIC)
SOUNDS = (MP3, WAV)
# What people send where it is not taken, to be able to say so.
_OTHERS = (
    _format("BMP", rb"BM.{12}[\x0c\x28\x6c\x7c]\x00\x00\x00"),
    _format("TIFF", rb"II\*\x00|MM\x00\*"),
    _format("M4A", rb".{4}ftypM4[AB] "),
    _format("MP4", rb".{4}ftyp"),
    _format("WebM", rb"\x1a\x45\xdf\xa3"),
    _format("Ogg", rb"OggS"),
    _format("FLAC", rb"fLaC"),
    _format("AAC", rb"\xff[\xf0\xf1\xf8\xf9]"),
    _format("SVG", rb"\s{0,99}(<\?xml[^>]{0,200}>\s{0,99})?<(svg[\s>]|!DOCTYPE svg)"),
    _format("HTML", rb"(?i:\s{0,99}<(!doctype html|html|head|script))"),
    _format("PDF", rb"%PDF-"),
    _format("ZIP", rb"PK\x03\x04"),
)


class NotTaken(ValueError):
    """The message says why, in one sentence of ours."""


class TooLarge(ValueError):
    """The media has more than MEDIA_BYTES_MAX bytes."""


def is_data(text: str) -> bool:
    """Whether it is a data: URI, or the base64 of one that has lost its head."""
    return text[:5].lower() == "data:" or bool(_BASE64_START.fullmatch(text))


def normalised(uri: str, formats: tuple[Format, ...], seconds: tuple[int, int] | None = None) -> str:
    """The URI in its one right form; `uri` itself if it has that already. Raises NotTaken, TooLarge.

    `seconds`: what a sound may take, at least and at most.
    """
    declared, media, is_plain = _parsed(uri)
    if not media:
        raise NotTaken("The data: URI is empty.")
    if len(media) > MEDIA_BYTES_MAX:
        raise TooLarge
    found = next((one for one in formats if one.signature.match(media)), None)
    if found is None:
        raise NotTaken(f"{_told(media)} This must be one of: {_names(formats)}.")
    if found is WAV and seconds is not None:
        _check_duration(media, *seconds)
    if is_plain and declared in found.media_types:
        return uri
    media_type = declared.lower() if declared.lower() in found.media_types else found.media_types[0]
    return f"data:{media_type};base64,{base64.b64encode(media).decode('ascii')}"


def _parsed(uri: str) -> tuple[str, bytes, bool]:
    """The declared type, the bytes, and whether nothing but the type has to be put right."""
    if uri[:5].lower() != "data:":
        return "", _decoded(uri.encode("ascii")), False
    head = _HEAD.match(uri[:_HEAD_LENGTH_MAX])
    if head is None:
        raise NotTaken("The data: URI has no comma, behind which the data begin.")
    if not uri.isascii():
        raise NotTaken("The data: URI has characters that no URI can have.")
    declared, encoded = head["type"].strip(), uri[head.end() :]
    if head["parameters"] == ";base64":
        media = _strictly_decoded(encoded)
        if media is not None:
            return declared, media, uri.startswith("data:") and head["type"] == declared
    if head["parameters"].replace(" ", "").lower().endswith(";base64"):
        return declared, _decoded(encoded.encode("ascii")), False
    # To take apart megabytes of escapes costs seconds.
    if len(encoded) > PLAIN_LENGTH_MAX:
        raise NotTaken("Send data of this size in base64.")
    return declared, unquote_to_bytes(encoded), False


def _strictly_decoded(encoded: str) -> bytes | None:
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        return None


def _decoded(encoded: bytes) -> bytes:
    """Raises NotTaken, TooLarge."""
    data = encoded
    for escape, meant in _ESCAPES.items():
        data = data.replace(escape, meant)
    data = _BLANKS.sub(b"", data).translate(_URL_SAFE).rstrip(b"=")
    if len(data) * 3 // 4 > MEDIA_BYTES_MAX:
        raise TooLarge
    try:
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)
    except ValueError:
        raise NotTaken("The data behind the comma are not base64, or not all of it.") from None


def _told(media: bytes) -> str:
    known = next((one for one in (*PICTURES, *SOUNDS, *_OTHERS) if one.signature.match(media[:4096])), None)
    return "These bytes are no format that is known here." if known is None else f"These bytes are {known.name}."


def _names(formats: tuple[Format, ...]) -> str:
    return ", ".join(one.name for one in formats)


def _check_duration(wav: bytes, seconds_min: int, seconds_max: int) -> None:
    seconds = _seconds_of(wav)
    if seconds is not None and not seconds_min <= seconds <= seconds_max:
        raise NotTaken(f"The sound must take {seconds_min} to {seconds_max} seconds.")


def _seconds_of(wav: bytes) -> float | None:
    """From the chunks of a WAV file; None where they do not say it beyond doubt."""
    bytes_per_second = 0
    position = 12
    for _ in range(_CHUNKS_MAX):
        name, size = wav[position : position + 4], int.from_bytes(wav[position + 4 : position + 8], "little")
        if name == b"fmt " and size >= 16:
            bytes_per_second = int.from_bytes(wav[position + 16 : position + 20], "little")
        if name == b"data":
            # Whoever streams does not know the size beforehand, and writes the largest one or none.
            size = min(size or len(wav), len(wav) - position - 8)
            return size / bytes_per_second if bytes_per_second else None
        position += 8 + size + size % 2
    return None


def media_types_of(formats: tuple[Format, ...]) -> Mapping[str, Format]:
    return {media_type: one for one in formats for media_type in one.media_types}
