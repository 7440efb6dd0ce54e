"""A body that is read only as fast as somebody takes it, and that is either whole or an error.

What aiohttp 3.14.5 does, read from its code and held by tests: it stops reading from the connection once more than
twice `set_read_chunk_size` waits to be taken, 512 KiB by default; it raises where a body ends before its Content-Length
or its last chunk. A body with neither ends when the connection does, so nobody can tell whether it was cut short.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Self

import aiohttp

from app.infrastructure.guarded_http.reasons import NotReached, TooLong

CHUNK_BYTES_MAX = 256 * 1024


class Chunks:
    """The body, once, in pieces of at most CHUNK_BYTES_MAX.

    Raises NotReached where the body breaks off, is packed or does not say where it ends, and where nothing more of it
    came within `stall_seconds_max`, which do not run while nobody asks. Raises TooLong, before anything is read if the
    head tells the length.
    """

    def __init__(self, response: aiohttp.ClientResponse, stall_seconds_max: float, bytes_max: int) -> None:
        self._response = response
        self._stall_seconds_max = stall_seconds_max
        self._bytes_max = bytes_max
        self._bytes_read = 0
        self._is_checked = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._is_checked:
            self._check_head()
            self._is_checked = True
        chunk = await self._read()
        if not chunk:
            raise StopAsyncIteration
        self._bytes_read += len(chunk)
        if self._bytes_read > self._bytes_max:
            raise self._too_long()
        return chunk

    def _check_head(self) -> None:
        headers = self._response.headers
        if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise NotReached("The answer is packed, which was not asked for.")
        length = self._response.content_length
        if length is None and "chunked" not in headers.get("Transfer-Encoding", "").lower():
            raise NotReached("The answer does not say where it ends.")
        if length is not None and length > self._bytes_max:
            raise self._too_long()

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_seconds_max):
                return await self._response.content.read(CHUNK_BYTES_MAX)
        except TimeoutError as error:
            raise NotReached(f"Nothing more of the answer came within {self._stall_seconds_max:g} s.") from error
        except Exception as error:
            raise NotReached.because_of(error) from error

    def _too_long(self) -> TooLong:
        return TooLong(f"The answer is longer than {self._bytes_max} bytes.")


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """`headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
