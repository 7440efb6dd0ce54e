"""Answers that are files: streamed as fast as their caller takes them, and no faster."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from uuid import UUID

import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from app.application.execution.places import Place, Places
from app.application.media import Linked, Medium, OpenMedia
from app.application.ports.media import MediaNotReached
from app.application.ports.media_store import ObjectMissing
from app.domain.media_errors import MediaUnavailable, TooManyDownloads
from app.domain.media_types import INLINE_CONTENT_TYPES, SNIFFED_BYTES, UNKNOWN_TYPE, sniff
from app.presentation.http.byte_ranges import ByteRange, RangeNotSatisfiable, is_known, one_range, requested_range
from app.presentation.http.state import IS_HEAD, state_of

log = structlog.get_logger(__name__)

DOWNLOADS_MAX = 384
"""At once in a process, two thirds of them of one account at most."""
PROVIDER_DOWNLOADS_MAX = 128
"""The same for what fal fetches."""
# A caller who takes not even so many bytes in so long holds a place for nothing.
TAKE_SECONDS_MAX = 60.0
TAKE_BYTES_MAX = 64 * 1024
_ALWAYS = {
    # Should a browser ever take a file for a page, the page can do nothing.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class Download(Response):
    """Bytes whose place is given back at the end, however it comes."""

    def __init__(
        self, status: int, headers: Mapping[str, str], chunks: AsyncIterator[bytes], held: AsyncExitStack
    ) -> None:
        super().__init__(status_code=status, headers={**_ALWAYS, **headers})
        if "Content-Length" not in headers:
            # It is not known, and Starlette has taken this answer for an empty one.
            del self.headers["content-length"]
        self._chunks = chunks
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_until_gone(receive), name="caller of a download")
        try:
            async with self._held:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                if IS_HEAD not in scope:
                    async for chunk in self._chunks:
                        for start in range(0, len(chunk), TAKE_BYTES_MAX):
                            if gone.done():
                                return
                            piece = chunk[start : start + TAKE_BYTES_MAX]
                            async with asyncio.timeout(TAKE_SECONDS_MAX):
                                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, MediaNotReached, MediaUnavailable, ObjectMissing) as error:
            # The answer has begun: that its connection ends early is all that can be said.
            log.info("download_cut_short", reason=type(error).__name__)
        finally:
            gone.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def download(request: Request, media: OpenMedia, linked: Linked, *, is_saved: bool = False) -> Response:
    """`is_saved`: the browser is not to show it. Raises MediaUnavailable, RangeNotSatisfiable, TooManyDownloads."""
    state, account_id, medium = state_of(request.scope), linked.account_id, linked.medium
    async with AsyncExitStack() as held:
        places = state.provider_downloads if linked.is_for_provider else state.downloads
        held.enter_context(_taken(places, account_id))
        if medium.is_stored:
            # What our store has lost, fal may have kept.
            with suppress(ObjectMissing):
                return await stored_download(request, media, linked, held, is_saved=is_saved)
        held.enter_context(_taken(state.passed_downloads, account_id))
        return await passed_download(request, media, medium, held, is_saved=is_saved)


def _taken(places: Places, account_id: UUID) -> Place:
    place = places.take(account_id)
    if place is None:
        raise TooManyDownloads
    return place


async def stored_download(
    request: Request, media: OpenMedia, linked: Linked, held: AsyncExitStack, *, is_saved: bool = False
) -> Response:
    """Raises MediaUnavailable, ObjectMissing, RangeNotSatisfiable. An answer that goes on takes over what is held."""
    medium = linked.medium
    assert medium.size_bytes is not None
    size_bytes, etag = medium.size_bytes, f'"{medium.sha256}"'
    headers = _shown(medium.name, medium.content_type, is_saved=is_saved)
    if is_known(request.headers, etag):
        return Response(status_code=304, headers={**_ALWAYS, "ETag": etag})
    is_head = IS_HEAD in request.scope
    # A URL of the store is signed for GET alone, and its answer to a HEAD would be a refusal.
    url = None if is_head else await media.store_url(medium, headers["Content-Disposition"], headers["Content-Type"])
    if url is not None:
        return Response(status_code=302, headers={**_ALWAYS, "Location": url, "Cache-Control": "no-store"})
    wanted = requested_range(request.headers, size_bytes, etag)
    part = wanted or ByteRange(0, size_bytes)
    if wanted is not None:
        headers["Content-Range"] = wanted.content_range(size_bytes)
    left_seconds = max(0, int((linked.ends_at - datetime.now(UTC)).total_seconds()))
    headers |= {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"private, max-age={left_seconds}, immutable",
        "Content-Length": str(part.end - part.start),
    }
    chunks = media.read(medium, part.start, part.end)
    # A store that is away is told of before the answer begins.
    first = b"" if is_head else await anext(chunks, b"")
    return Download(206 if wanted else 200, headers, _again(first, chunks), held.pop_all())


async def passed_download(
    request: Request, media: OpenMedia, medium: Medium, held: AsyncExitStack, *, is_saved: bool = False
) -> Response:
    """What fal keeps, until our copy is there. Raises MediaUnavailable, RangeNotSatisfiable.

    An answer that goes on takes over what is held.
    """
    byte_range = one_range(request.headers, None)
    try:
        answer = await held.enter_async_context(media.pass_through(medium, byte_range))
        first = b"" if answer.status == 416 else await _beginning(answer.chunks)
    except MediaNotReached as error:
        log.warning("pass_through_failed", media=str(medium.id), reason=error.reason)
        raise MediaUnavailable from error
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "no-store"}
    headers |= {name: answer.headers[name] for name in ("Content-Length", "Content-Range") if name in answer.headers}
    if answer.status == 416:
        raise RangeNotSatisfiable(headers.get("Content-Range", "bytes */*"))
    content_type = _type_of(medium, answer.headers.get("Content-Range"), first)
    headers |= _shown(medium.name, content_type, is_saved=is_saved)
    return Download(answer.status, headers, _again(first, answer.chunks), held.pop_all())


def _type_of(medium: Medium, content_range: str | None, first: bytes) -> str | None:
    if content_range is None or content_range.startswith("bytes 0-"):
        found = sniff(first[:SNIFFED_BYTES])
        return None if found is None else found.content_type
    # The middle of a file does not tell. As one of these types no browser takes it for anything that runs.
    return medium.content_type


def _shown(name: str, content_type: str | None, *, is_saved: bool) -> dict[str, str]:
    """Whatever may not be shown is downloaded."""
    if content_type in INLINE_CONTENT_TYPES:
        assert content_type is not None
        disposition = "attachment" if is_saved else "inline"
        return {"Content-Type": content_type, "Content-Disposition": f'{disposition}; filename="{name}"'}
    return {"Content-Type": UNKNOWN_TYPE, "Content-Disposition": f'attachment; filename="{name}"'}


async def _beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """Enough to tell what it is, however small the pieces are that it comes in."""
    first = b""
    while len(first) < SNIFFED_BYTES and (chunk := await anext(chunks, b"")):
        first += chunk
    return first


async def _again(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    # A megabyte, for as long as the rest takes.
    del first
    async for chunk in rest:
        yield chunk
