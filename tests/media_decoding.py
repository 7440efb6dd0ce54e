"""What the tests of the decoder share: what is kept of a file, looked at strictly, and the processes behind it."""

import asyncio
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import psutil
from PIL import Image, UnidentifiedImageError

from app.application.ports.media_decoder import ExaminedMedia, UnreadableMedia
from app.domain.media_types import sniff
from app.infrastructure.decoding.decoder import ConfinedDecoder
from tests.media_samples import four_corners, saved

PICTURE_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
SOON_SECONDS = 60.0


class Desk:
    """Hands files to a decoder, and has what is kept of them in memory."""

    def __init__(self, decoder: ConfinedDecoder, directory: Path) -> None:
        self._decoder = decoder
        self._directory = directory
        self._count = 0

    async def examine(self, data: bytes, owner: str = "somebody") -> tuple[ExaminedMedia, bytes]:
        self._count += 1
        source, cleaned = self._directory / f"{self._count}", self._directory / f"{self._count}.cleaned"
        source.write_bytes(data)
        try:
            examined = await self._decoder.examine(source, cleaned, owner=owner)
            return examined, cleaned.read_bytes()
        except BaseException:
            assert not cleaned.exists()
            raise
        finally:
            source.unlink()
            cleaned.unlink(missing_ok=True)

    async def refusal(self, data: bytes, owner: str = "somebody") -> str:
        try:
            examined, _ = await self.examine(data, owner)
        except UnreadableMedia as refused:
            return refused.reason
        raise AssertionError(f"it was not refused: {examined}")

    async def picture(self, data: bytes) -> Image.Image:
        examined, kept = await self.examine(data)
        return opened(examined, kept)


def opened(examined: ExaminedMedia, kept: bytes) -> Image.Image:
    """The picture that is kept, of which nothing is missing, and which has nothing beside its pixels."""
    with Image.open(io.BytesIO(kept), formats=(PICTURE_FORMATS[examined.content_type],)) as picture:
        picture.load()
        assert picture.size == (examined.width, examined.height)
        assert set(picture.info) <= {"icc_profile", "jfif", "jfif_version", "jfif_unit", "jfif_density", *_OF_WEBP}
        assert not picture.getexif()
    return picture


_OF_WEBP = ("loop", "background", "timestamp", "duration", "dpi")


def check_kept(examined: ExaminedMedia, kept: bytes) -> None:
    """It is what it is said to be, it can be read, and it ends where its own format says."""
    media_type = sniff(kept)
    assert media_type is not None
    assert media_type.content_type == examined.content_type
    if examined.content_type in PICTURE_FORMATS:
        opened(examined, kept)
        assert _ends_where_it_says(examined.content_type, kept)
        return
    with av.open(io.BytesIO(kept), "r") as container:
        assert {each.type for each in container.streams} <= {"video", "audio"}
        assert set(container.metadata) <= {"major_brand", "minor_version", "compatible_brands", "encoder"}
        assert container.chapters() == []
        first = container.streams[0]
        assert next(iter(container.decode(first)), None) is not None


def _ends_where_it_says(content_type: str, kept: bytes) -> bool:
    if content_type == "image/png":
        return kept.endswith(b"IEND\xae\x42\x60\x82")
    if content_type == "image/jpeg":
        return kept.endswith(b"\xff\xd9")
    (size,) = struct.unpack_from("<I", kept, 4)
    return len(kept) == int(size) + 8


def is_readable(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError):
        return False
    return True


def slow_picture() -> bytes:
    """A JPEG of 49 megapixels that takes a child some seconds, and no test any to make."""
    progressive = saved(four_corners(), "JPEG", progressive=True)
    scan, start = progressive.rindex(b"\xff\xda"), progressive.index(b"\xff\xc2") + 5
    scans = progressive[scan:-2] * 30
    sized = progressive[:start] + struct.pack(">HH", 7000, 7000) + progressive[start + 4 : scan]
    filling = b"\xff\xfe\xff\xff" + bytes(65533)
    return sized[:2] + filling * 2 + sized[2:] + scans + b"\xff\xd9"


def servers(of: psutil.Process | None = None) -> list[psutil.Process]:
    """The fork servers of this process."""
    children = (of or psutil.Process()).children()
    return [each for each in children if any("fork_server" in word for word in _command(each))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def decoding_children(of: psutil.Process | None = None) -> list[psutil.Process]:
    """Those that look at a file and have been confined."""
    children = [child for server in servers(of) for child in server.children()]
    return [each for each in children if is_confined(each)]


def is_confined(process: psutil.Process) -> bool:
    try:
        return "Seccomp:\t2" in Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(found: Callable[[], Any]) -> Any:
    async with asyncio.timeout(SOON_SECONDS):
        while not (value := found()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return value
