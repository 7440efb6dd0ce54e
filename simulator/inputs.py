"""Input pictures of a run: fetched or decoded, checked, and kept in a size that is enough for drawing."""

import asyncio
import base64
import contextlib
import hashlib
import io
import time
import zlib
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import httpx
from PIL import Image, ImageOps

from simulator.answers import Refused, model_error
from simulator.journal import Journal
from simulator.media import SIDE_PIXELS_MAX, Picture, render
from simulator.storage import FileStore, StoredFile

FETCH_SECONDS_MAX = 10
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# A service of this machine that starts has its port before it answers.
LOOPBACK_FETCH_SECONDS_MAX = 60
FETCH_AGAIN_SECONDS = 0.25
FETCH_AGAIN_SECONDS_MAX = 10
SIZE_BYTES_MAX = 20 * 1024**2
PICTURE_TYPE = "image/jpeg"
TEXT_TYPE = "text/plain"
PIXELS_MAX = 50_000_000
# Whatever Pillow raises for bytes that it cannot read.
NOT_A_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "AVIF")
# Reserved for documentation (RFC 2606): nobody's picture is there, and every example names one.
EXAMPLE_HOSTS = ("example.com", "example.net", "example.org")
EXAMPLE_SIZE = (1024, 768)


class InputPictures:
    def __init__(self, store: FileStore, client: httpx.AsyncClient, journal: Journal | None = None) -> None:
        self._store = store
        self._client = client
        self._journal = journal

    async def remember_data_uris(self, arguments: object) -> object:
        """Replace each data: URI by a short reference, so that a waiting request does not hold its bytes."""
        if not isinstance(arguments, dict):
            return arguments
        return {name: await self._remember(value) for name, value in arguments.items()}

    async def as_sent(self, arguments: object) -> object:
        """The arguments with the data: URIs themselves, as fal's history shows them."""
        if isinstance(arguments, dict):
            return {name: await self.as_sent(value) for name, value in arguments.items()}
        if isinstance(arguments, list):
            return [await self.as_sent(item) for item in arguments]
        kept = self._store.find(_key_of_text(arguments)) if isinstance(arguments, str) else None
        return arguments if kept is None else await asyncio.to_thread(kept.path.read_text, "utf-8")

    async def load(self, url: str, loc: tuple[str | int, ...]) -> Path:
        """Raises Refused with the 422 that fal gives for a picture that cannot be had."""
        loc = ("body", *loc)
        if url.startswith("data:"):
            kept = self._store.find(url)
            if kept is None:
                raise Refused(model_error("image_load_error", loc=loc, value=url))
            return kept.path
        if _is_example(url):
            return await self._draw(url)
        content = await self._fetch(url, loc)
        try:
            return await self._keep(hashlib.sha256(content).hexdigest(), content)
        except NOT_A_PICTURE:
            raise Refused(model_error("image_load_error", loc=loc, value=url)) from None

    async def _draw(self, url: str) -> Path:
        kept = self._store.find(url)
        if kept is None:
            path = self._store.new_path()
            await asyncio.to_thread(render, _example(url), path)
            kept = self._add(url, path, Picture.content_type)
        return kept.path

    async def _remember(self, value: object) -> object:
        if isinstance(value, list):
            return [await self._remember(item) for item in value]
        if not isinstance(value, str) or not value.startswith("data:"):
            return value
        media_type = value[len("data:") : 100].partition(",")[0].partition(";")[0]
        reference = f"data:{media_type};sha256={hashlib.sha256(value.encode()).hexdigest()}"
        if self._store.find(reference) is None:
            # What is no picture keeps no file; the run then says so, as fal's does.
            with contextlib.suppress(*NOT_A_PICTURE):
                await self._keep(reference, await asyncio.to_thread(_decode_data_uri, value))
        if self._store.find(_key_of_text(reference)) is None:
            path = self._store.new_path()
            await asyncio.to_thread(path.write_text, value, "utf-8", "replace")
            self._record(_key_of_text(reference), self._add(_key_of_text(reference), path, TEXT_TYPE))
        return reference

    async def _keep(self, key: str, content: bytes) -> Path:
        kept = self._store.find(key)
        if kept is None:
            path = self._store.new_path()
            await asyncio.to_thread(_normalise, content, path)
            kept = self._add(key, path, PICTURE_TYPE)
            self._record(key, kept)
        return kept.path

    def _record(self, key: str, kept: StoredFile) -> None:
        if self._journal is not None:
            self._journal.record_input(key, kept.path)

    def _add(self, key: str, path: Path, content_type: str) -> StoredFile:
        """Whoever was first with this picture has its path already, so his file stays."""
        first = self._store.find(key)
        if first is None:
            return self._store.add(key, path, content_type)
        path.unlink()
        return first

    async def _fetch(self, url: str, loc: tuple[str | int, ...]) -> bytes:
        is_of_this_machine = _host_of(url) in LOOPBACK
        again_until: float | None = None
        try:
            async with asyncio.timeout(LOOPBACK_FETCH_SECONDS_MAX if is_of_this_machine else FETCH_SECONDS_MAX):
                while True:
                    try:
                        return await self._fetch_once(url, loc)
                    except httpx.TransportError:
                        # A service that is killed takes this simulator with it within a second, and until then this
                        # is no answer: the run is taken up again by the next start.
                        again_until = again_until or time.monotonic() + FETCH_AGAIN_SECONDS_MAX
                        if not is_of_this_machine or time.monotonic() >= again_until:
                            raise
                        await asyncio.sleep(FETCH_AGAIN_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            raise Refused(model_error("file_download_error", loc=loc, value=url)) from None

    async def _fetch_once(self, url: str, loc: tuple[str | int, ...]) -> bytes:
        content = bytearray()
        async with self._client.stream("GET", url) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > SIZE_BYTES_MAX:
                    ctx = {"max_size": SIZE_BYTES_MAX}
                    raise Refused(model_error("file_too_large", loc=loc, ctx=ctx, value=url))
        return bytes(content)


def _key_of_text(reference: str) -> str:
    return f"text of {reference}"


def _is_example(url: str) -> bool:
    return _host_of(url) in EXAMPLE_HOSTS


def _host_of(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None


def _example(url: str) -> Picture:
    width, height = EXAMPLE_SIZE
    seed = zlib.crc32(url.encode(errors="replace"))
    return Picture(kind="an input", prompt=url, seed=seed, number=1, count=1, width=width, height=height)


def _decode_data_uri(uri: str) -> bytes:
    header, comma, payload = uri.partition(",")
    if not comma or len(payload) > SIZE_BYTES_MAX * 4 / 3:
        raise ValueError("no data, or too much of it")
    if header.endswith(";base64"):
        return base64.b64decode(payload, validate=True)
    return unquote_to_bytes(payload)


def _normalise(content: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.width * image.height > PIXELS_MAX:
            raise ValueError("too many pixels")
        upright = ImageOps.exif_transpose(image)
        upright.thumbnail((SIDE_PIXELS_MAX, SIDE_PIXELS_MAX))
        picture = Image.new("RGB", upright.size, "white")
        rgba = upright.convert("RGBA")
        picture.paste(rgba, mask=rgba.getchannel("A"))
        picture.save(path, "JPEG", quality=92)
