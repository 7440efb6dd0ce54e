"""The service's side: who is next, the fork server, and what came of each file.

Whatever a child says is taken as what a hostile file may have made it say: what is kept is counted, digested and looked
at here, after the child's end, and only a few words of the report are used.
"""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from app.application.ports.media_decoder import DecoderBusy, DecoderUnavailable, ExaminedMedia, UnreadableMedia
from app.domain.media_types import INLINE_CONTENT_TYPES, SNIFFED_BYTES, MediaKind, MediaType, sniff
from app.infrastructure.decoding.findings import broken, too_demanding, too_slow, unknown
from app.infrastructure.decoding.fork_server import LATE
from app.infrastructure.decoding.places import Places
from app.infrastructure.decoding.server_process import ServerGone, ServerProcess

# Pictures, each of which is done within a second, and what takes longer: none of them waits behind films.
PICTURES_MAX = 2
FILMS_MAX = 1
PER_OWNER_MAX = 1
WAITING_MAX = 64
WAITING_PER_OWNER_MAX = 8
WAIT_SECONDS_MAX = 30.0
_HASHED_BYTES = 1024 * 1024
# What is kept of a file fits into its row, whatever a child says.
PIXELS_MAX = 2**31 - 1
SECONDS_MAX = 1e9


class ConfinedDecoder:
    def __init__(self, pictures: Places, films: Places, server: ServerProcess) -> None:
        self._pictures = pictures
        self._films = films
        self._server = server

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        pictures_max: int = PICTURES_MAX,
        films_max: int = FILMS_MAX,
        per_owner_max: int = PER_OWNER_MAX,
        waiting_max: int = WAITING_MAX,
        waiting_per_owner_max: int = WAITING_PER_OWNER_MAX,
    ) -> AsyncIterator[Self]:
        """The fork server starts with the first file: a process that never gets one does without."""
        server = ServerProcess()
        waiting = (waiting_max, waiting_per_owner_max, WAIT_SECONDS_MAX)
        try:
            yield cls(Places(pictures_max, per_owner_max, *waiting), Places(films_max, per_owner_max, *waiting), server)
        finally:
            await server.close()

    async def examine(self, source: Path, cleaned: Path, *, owner: Hashable) -> ExaminedMedia:
        """Raises UnreadableMedia, DecoderBusy, DecoderUnavailable. OSError is no user's fault."""
        first = await asyncio.to_thread(_first, source)
        media_type = sniff(first)
        if media_type is None:
            raise UnreadableMedia(unknown(first))
        places = self._pictures if media_type.kind is MediaKind.PICTURE else self._films
        async with places.held(owner):
            try:
                report = await self._report_of(source, cleaned, media_type)
                return await asyncio.to_thread(_checked, _finding(report), cleaned, media_type)
            except BaseException:
                await asyncio.to_thread(cleaned.unlink, missing_ok=True)
                raise

    async def _report_of(self, source: Path, cleaned: Path, media_type: MediaType) -> list[str]:
        for _ in range(2):
            # Whoever has a fork server end takes others' children with it. They go on at the next one.
            with suppress(ServerGone):
                return await self._server.report(source, cleaned, media_type)
        raise DecoderBusy


def _first(source: Path) -> bytes:
    with source.open("rb") as file:
        return file.read(SNIFFED_BYTES)


def _finding(report: list[str]) -> dict[str, Any]:
    """Empty where it says nothing that makes sense. Raises UnreadableMedia, DecoderUnavailable."""
    *said, ending = report
    if ending in (LATE, str(-signal.SIGXCPU)):
        raise UnreadableMedia(too_slow())
    if ending == str(-signal.SIGKILL):
        # Nobody here has killed it: memory was short.
        raise UnreadableMedia(too_demanding())
    try:
        found = json.loads(said[0])
    except (ValueError, LookupError, RecursionError):
        found = {}
    if ending != "0" or not isinstance(found, dict):
        found = {}
    if isinstance(found.get("unconfined"), str):
        # This system refuses something of what a child is limited by, so no file is looked at on it.
        raise DecoderUnavailable(found["unconfined"])
    if isinstance(found.get("refused"), str):
        raise UnreadableMedia(found["refused"])
    return found


def _checked(found: dict[str, Any], cleaned: Path, media_type: MediaType) -> ExaminedMedia:
    """Raises UnreadableMedia where the file that is kept is not what the child says."""
    with cleaned.open("rb") as file:
        kept = sniff(file.read(SNIFFED_BYTES))
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(_HASHED_BYTES):
            digest.update(chunk)
        size_bytes = os.fstat(file.fileno()).st_size
    is_what_it_says = (
        kept is not None and kept.content_type == found.get("content_type") and kept.kind is media_type.kind
    )
    if kept is None or not is_what_it_says or kept.content_type not in INLINE_CONTENT_TYPES:
        raise UnreadableMedia(broken(media_type))
    try:
        return ExaminedMedia(
            content_type=kept.content_type,
            size_bytes=size_bytes,
            width=_pixels(found.get("width")),
            height=_pixels(found.get("height")),
            duration_seconds=_seconds(found.get("duration_seconds")),
            sha256=digest.hexdigest(),
        )
    except ValueError:
        raise UnreadableMedia(broken(media_type)) from None


def _pixels(value: object) -> int | None:
    """None where it is left out. Raises ValueError for what no picture has."""
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= PIXELS_MAX:
        raise ValueError
    return value


def _seconds(value: object) -> float | None:
    """None where it is left out. Raises ValueError for what no film has: NaN is not at most anything."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SECONDS_MAX:
        raise ValueError
    return value
