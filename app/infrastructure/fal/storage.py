"""Uploads files to fal's storage, as the port `ProviderStorage` asks.

In two steps, as fal's own Python client 1.0.3 does it: fal's API gives a token for the key, and the media host takes
the file for the token. So the key stays with the API, and the token goes to fal's media hosts alone.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from ssl import SSLContext
from typing import Self

import structlog

from app.application.ports.provider import ProviderUnavailable
from app.infrastructure.egress import Egress
from app.infrastructure.fal.exchange import Exchange, HttpLimits, Unanswered, open_exchange
from app.infrastructure.fal.lifetimes import LIFECYCLE_HEADER, PREFERENCE_HEADER, expires_after
from app.infrastructure.fal.urls import StorageUrls, checked_key, host_of
from app.infrastructure.fal.verdicts import OPERATOR_STATUSES
from app.infrastructure.fal.wire import Answer

log = structlog.get_logger(__name__)

LIMITS = HttpLimits(body_bytes_max=64 * 1024)
# Those who wait for a token that somebody else asks for count the time of that, too.
TOKEN_SECONDS_MAX = 20.0
# A token that would expire on its way is not used.
TOKEN_MARGIN_SECONDS = 60.0
# An upload that is slower is given up: 100 MB may take some seven minutes.
BYTES_PER_SECOND_MIN = 256 * 1024
NAME_LENGTH_MAX = 100

_TOKEN = re.compile(r"[!-~]{1,8192}", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z]{1,32}", re.ASCII)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class _Token:
    authorization: str
    upload_url: str
    expires_at: float


class FalStorage:
    """Callers open one with `FalStorage.open`."""

    def __init__(
        self,
        api: Exchange,
        media: Exchange,
        urls: StorageUrls,
        *,
        answer_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._media = media
        self._urls = urls
        self._answer_seconds = answer_seconds
        self._clock = clock
        self._token: _Token | None = None
        self._asking = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        rest_url: str,
        key: str,
        limits: HttpLimits = LIMITS,
        ssl_context: SSLContext | None = None,
        egress: Egress | None = None,
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Self]:
        """Open connections of its own: two sets, so that no mistake can send the key to the media host.

        Raises ValueError if the key or the URL cannot be used.
        """
        urls = StorageUrls(rest_url)
        async with (
            open_exchange(key=checked_key(key), limits=limits, ssl_context=ssl_context, egress=egress) as api,
            open_exchange(limits=limits, ssl_context=ssl_context, egress=egress) as media,
        ):
            yield cls(api, media, urls, answer_seconds=limits.exchange_seconds, clock=clock)

    async def upload(
        self, *, name: str, content_type: str, size_bytes: int, chunks: AsyncIterator[bytes], lifetime_seconds: int
    ) -> str:
        token = await self._valid_token()
        headers = {
            "Authorization": token.authorization,
            "Content-Type": content_type,
            "X-Fal-File-Name": _NOT_IN_NAMES.sub("_", name)[-NAME_LENGTH_MAX:],
            LIFECYCLE_HEADER: expires_after(lifetime_seconds),
            PREFERENCE_HEADER: expires_after(lifetime_seconds),
        }
        body = _Body(chunks, size_bytes)
        seconds = self._answer_seconds + size_bytes / BYTES_PER_SECOND_MIN
        try:
            answer = await self._media.upload(token.upload_url, body, headers, size_bytes=size_bytes, seconds=seconds)
        except Unanswered as error:
            if body.error is not None:
                raise body.error from error
            raise ProviderUnavailable(str(error)) from error
        if body.error is not None:
            raise body.error
        return self._url_in(answer, token, is_whole=body.is_given_whole)

    def _url_in(self, answer: Answer, token: _Token, *, is_whole: bool) -> str:
        if answer.status in OPERATOR_STATUSES and self._token is token:
            # It was called back. The body is gone, so only the next upload can try another one.
            self._token = None
        if not 200 <= answer.status < 300:
            raise ProviderUnavailable(f"fal's storage answered {answer.status} to an upload")
        if not is_whole:
            raise ProviderUnavailable("fal answered an upload before it had the file")
        url = answer.document().get("access_url")
        if not self._urls.is_of_files(url):
            log.error("fal_file_url_refused", host=host_of(url))
            raise ProviderUnavailable("fal took the upload, and its answer cannot be used")
        return url

    async def _valid_token(self) -> _Token:
        try:
            async with asyncio.timeout(TOKEN_SECONDS_MAX), self._asking:
                if self._token is None or self._clock() >= self._token.expires_at - TOKEN_MARGIN_SECONDS:
                    self._token = await self._new_token()
                return self._token
        except TimeoutError as error:
            raise ProviderUnavailable(f"no token for an upload within {TOKEN_SECONDS_MAX:g} s") from error

    async def _new_token(self) -> _Token:
        try:
            answer = await self._api.post(self._urls.token, b"{}", {})
        except Unanswered as error:
            raise ProviderUnavailable(str(error)) from error
        if answer.status in OPERATOR_STATUSES:
            log.error("fal_key_refused", status_code=answer.status)
        if answer.status != 200:
            raise ProviderUnavailable(f"fal answered {answer.status} without a token for an upload")
        document = answer.document()
        token, scheme, base_url = (document.get(name) for name in ("token", "token_type", "base_url"))
        upload_url = self._urls.upload(base_url)
        if upload_url is None:
            log.error("fal_upload_url_refused", host=host_of(base_url))
            raise ProviderUnavailable("fal names a host for uploads that is not one of its media")
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise ProviderUnavailable("fal's token for an upload cannot be used")
        if not (isinstance(scheme, str) and _SCHEME.fullmatch(scheme)):
            raise ProviderUnavailable("fal's token for an upload is of no kind that can be used")
        return _Token(f"{scheme} {token}", upload_url, _moment(document.get("expires_at")))


class _Body:
    """Passes on what was announced, and the last piece only once it is certain that nothing follows.

    So whatever goes wrong with the chunks, no file that looks whole arrives. What they raise is in `error`, because
    aiohttp raises something of its own.
    """

    def __init__(self, chunks: AsyncIterator[bytes], size_bytes: int) -> None:
        self._chunks = chunks
        self._size_bytes = size_bytes
        self._bytes_taken = 0
        self._held: bytes | None = None
        self.error: Exception | None = None
        self.is_given_whole = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            ready = await self._pull() if self._held is None else self._held
            self._held = None if ready is None else await self._pull()
        except Exception as error:
            self.error = error
            raise
        self.is_given_whole = self._held is None
        if ready is None:
            raise StopAsyncIteration
        return ready

    async def _pull(self) -> bytes | None:
        chunk = await anext(self._chunks, None)
        self._bytes_taken += len(chunk or b"")
        if self._bytes_taken > self._size_bytes or (chunk is None and self._bytes_taken < self._size_bytes):
            raise ValueError(f"the file is not {self._size_bytes} bytes long, as was said")
        return chunk


def _moment(text: object) -> float:
    """In seconds since 1970. What cannot be read has passed already: the token serves for one upload."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        moment = None
    return -math.inf if moment is None or moment.tzinfo is None else moment.timestamp()
