"""What a JPEG says of itself, read before it is decoded (ITU T.81, annex B).

libjpeg reads on where data are missing or wrong, and paints what it does not have. A file of a kilobyte can so take as
long as it likes: by its size, and by the number of its scans, each of which goes over all pixels again.
"""

from typing import BinaryIO

from app.domain.media_types import JPEG
from app.infrastructure.decoding.findings import Refused, broken, check_size

SCANS_MAX = 40
"""Usual progressive ones have about ten."""
SEGMENTS_MAX = 1000
"""255 of them may hold a profile. Bytes that fill up are counted, too."""
# A block of 8 x 8 pixels takes a bit at least, whose further scans may be missing.
_PIXELS_PER_BYTE_MAX = 8 * 64
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
# Coded by Huffman, at once or progressively. What else there is no browser shows.
_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)


def check_jpeg(source: BinaryIO) -> None:
    """Raises Refused."""
    source.seek(0)
    data = source.read()
    segments = scans = 0
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 9:
        marker = data[at + 1]
        if marker == _END_OF_IMAGE:
            break
        # Stuffed bytes and restarts have no length.
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        segments += 1
        scans += marker == _START_OF_SCAN
        if marker in _OTHER_FRAMES or segments > SEGMENTS_MAX or scans > SCANS_MAX:
            raise Refused("The JPEG is coded in an unusual way: save it again as an ordinary one.")
        if marker in _FRAMES:
            _check_frame(data, at)
        # Before a marker there may be bytes that fill up.
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if not scans:
        raise Refused(broken(JPEG))


def _check_frame(data: bytes, at: int) -> None:
    height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
    check_size(width, height)
    if width * height > len(data) * _PIXELS_PER_BYTE_MAX:
        raise Refused(broken(JPEG))
