"""Readers of the log: by pages from a place, and by streams that go on at another process where one ends."""

import asyncio
import itertools
import json
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import aiohttp

from torture.callers import Book
from torture.event_truth import Told, subject_of

PAGE = 100
PAUSE_SECONDS = 0.2
RETRY_SECONDS = 0.05
# A stream says something every 15 s.
SILENCE_SECONDS_MAX = 40
# After the last event: whatever comes now comes twice.
LAST_SECONDS = 1.0


class Reader:
    """What somebody has read of the log of one account, from its first event on."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str], book: Book, first: int = 0) -> None:
        """`first` is the process to begin with."""
        self.user_id = book.user_id
        self.told: list[Told] = []
        self.wrong: list[str] = []
        self.answers = 0
        self._session = session
        self._headers = book.headers
        self._urls: Iterator[str] = itertools.cycle([*urls[first % len(urls) :], *urls[: first % len(urls)]])
        self._url = next(self._urls)

    @property
    def last_seq(self) -> int:
        return self.told[-1].seq if self.told else 0

    async def run(self) -> None:
        """Until it is canceled."""
        while True:
            try:
                await self._read_on()
            except (aiohttp.ClientError, TimeoutError, OSError):
                # Its process is gone, or going.
                await asyncio.sleep(RETRY_SECONDS)
            self._url = next(self._urls)

    async def _read_on(self) -> None:
        """From this process, as long as it answers or has more."""
        raise NotImplementedError

    async def _is_served(self, response: aiohttp.ClientResponse) -> bool:
        self.answers += 1
        if response.status == 503 and "Retry-After" in response.headers:
            await asyncio.sleep(RETRY_SECONDS)
            return False
        if response.status != 200:
            self.wrong.append(f"GET {response.url}: {response.status} {await response.text()}")
            await asyncio.sleep(PAUSE_SECONDS)
        return response.status == 200

    def _note(self, event: Mapping[str, Any]) -> None:
        self.told.append(Told(event["seq"], event["type"], subject_of(event)))


class PageReader(Reader):
    """Where nothing more is there, it asks the next process: all of them must have the same order."""

    _after: int | None = None

    async def _read_on(self) -> None:
        while True:
            place = "" if self._after is None else f"&after={self._after}"
            url = f"{self._url}/events?limit={PAGE}{place}"
            async with self._session.get(url, headers=self._headers) as response:
                if not await self._is_served(response):
                    return
                page = await response.json()
            for event in page["items"]:
                self._note(event)
            self._after = page["next_after"]
            if not page["has_more"]:
                await asyncio.sleep(PAUSE_SECONDS)
                return


class StreamReader(Reader):
    """As a browser's EventSource: a message counts once its blank line has come, and so does its id."""

    def __init__(self, session: aiohttp.ClientSession, urls: Sequence[str], book: Book, first: int = 0) -> None:
        super().__init__(session, urls, book, first)
        self.is_open = False
        self.gaps_seconds: array[float] = array("d")
        """How long it was without a stream, each time that one had ended."""
        self.lags_seconds: array[float] = array("d")
        """By the clock of the machine, from the fact to the reader."""
        self._last_id: str | None = None
        self._ended_at: float | None = None

    async def _read_on(self) -> None:
        last = {} if self._last_id is None else {"Last-Event-ID": self._last_id}
        try:
            async with self._session.get(
                f"{self._url}/events/stream?after=0", headers=self._headers | last
            ) as response:
                if await self._is_served(response):
                    await self._hear(response.content)
        finally:
            if self.is_open:
                self.is_open, self._ended_at = False, time.monotonic()

    async def _hear(self, content: aiohttp.StreamReader) -> None:
        rest = b""
        async for data in content.iter_any():
            if not self.is_open:
                self.is_open = True
                if self._ended_at is not None:
                    self.gaps_seconds.append(time.monotonic() - self._ended_at)
            *messages, rest = (rest + data).split(b"\n\n")
            for message in messages:
                self._take(fields_of(message))

    def _take(self, fields: Mapping[str, str]) -> None:
        self._last_id = fields.get("id", self._last_id)
        if "data" not in fields:
            return
        event = json.loads(fields["data"])
        self._note(event)
        self.lags_seconds.append(time.time() - datetime.fromisoformat(event["created_at"]).timestamp())
        if (fields.get("id"), fields.get("event")) != (str(event["seq"]), event["type"]):
            self.wrong.append(f"a message says {fields}")


def fields_of(message: bytes) -> dict[str, str]:
    """Of one message, without its comments."""
    fields = {}
    for line in message.decode().split("\n"):
        name, _, value = line.partition(":")
        if name:
            fields[name] = value.removeprefix(" ")
    return fields


@asynccontextmanager
async def reading_session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS_MAX)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield session


@asynccontextmanager
async def reading(readers: Sequence[Reader]) -> AsyncIterator[None]:
    """All of them read meanwhile. A reader that fails for a reason of its own is raised at the end."""
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    try:
        yield
        await asyncio.sleep(LAST_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
