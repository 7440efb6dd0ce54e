"""Users who start pictures, follow their links and delete what they have; and time that is over for some of it."""

import asyncio
import hashlib
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
from yarl import URL

from torture.callers import FINAL, Book, Callers, Order
from torture.media_truth import GONE, Download
from torture.pace import Pace
from torture.wishes import Wish

SMALL = "[size:160x160]"
SLOW = "[media:slow:6000 x3]"
FINAL_SECONDS_MAX = 240
LOOK_SECONDS = (0.2, 0.6)
BY_PART = 0.2
BY_A_STRANGER = 0.05
TWICE_AT_ONCE = 0.5
ENDINGS = {"keep": 60, "delete at once": 15, "delete later": 15, "expire": 10}
# Their copies take some seconds, so that a deletion comes into the middle.
ENDINGS_OF_SLOW = {"keep": 40, "delete at once": 30, "delete later": 30}
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def _pictures(words: str, images: int = 1, weight: int = 1) -> Wish:
    return Wish(f"{SMALL} {words}".strip(), {"COMPLETED": images}, images, weight)


WISHES = (
    _pictures("", weight=8),
    _pictures("", images=3, weight=3),
    _pictures("[webhook:never]"),
    _pictures(SLOW, weight=3),
    _pictures(SLOW, images=2, weight=2),
    _pictures("[media:503 x2]", weight=2),
    _pictures("[media:cut x2]", weight=2),
    _pictures("[media:drop x2]"),
    # Half of a file, which as a file is whole: nobody can see that.
    _pictures("[media:truncated]"),
    _pictures("[media:404 x3]", weight=2),
    _pictures(GONE),
    Wish("[fail]", {"FAILED": 0}),
)
WEIGHTS = [wish.weight for wish in WISHES]
_EXPIRE = """
    UPDATE outputs SET expires_at = now() - interval '1 second'
     WHERE job_id = $1 AND number = ANY($2) AND stored_at IS NOT NULL AND deleted_at IS NULL
    RETURNING job_id || '-' || number
"""


async def past_the_guard(dsn: str, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    """The database lets nobody move such times otherwise, and no configuration makes them short enough."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


@dataclass(slots=True)
class Users:
    callers: Sequence[Callers]
    urls: Sequence[str]
    session: aiohttp.ClientSession
    books: Sequence[Book]
    dsn: str
    rng: random.Random
    pace: Pace
    placed: int = 0
    done: Counter[str] = field(default_factory=Counter)
    downloads: list[Download] = field(default_factory=list)
    cut_off: Counter[str] = field(default_factory=Counter)
    """Downloads without a whole answer."""
    links: dict[str, str] = field(default_factory=dict)
    """By output, without the address of the API."""
    _over: set[str] = field(default_factory=set)
    """Outputs of which somebody was told that they are deleted, or whose time was over."""

    async def run(self) -> None:
        await self.pace.keep(self._one)

    async def _one(self, number: int) -> None:
        book = self.books[number % len(self.books)]
        (wish,) = self.rng.choices(WISHES, WEIGHTS)
        order = Order(f"picture {number} {wish.words}", wish, str(uuid.uuid4()))
        book.orders.append(order)
        self.placed += 1
        job_id = await self._caller.place(book, order)
        job = None if job_id is None else await until_final(self.callers, self.rng, book, order, job_id)
        if job is None or job["status"] != "COMPLETED":
            return
        outputs = self.remember(job)
        endings = ENDINGS_OF_SLOW if SLOW in wish.words else ENDINGS
        (ending,) = self.rng.choices([*endings], [*endings.values()])
        self.done[ending] += 1
        if self.rng.random() < BY_A_STRANGER:
            stranger = self.books[(number + 1) % len(self.books)]
            await self._delete(self._caller, stranger, job["job_id"], frozenset({404}))
        await self._end(ending, book, job["job_id"], outputs)

    def remember(self, job: Mapping[str, Any]) -> list[str]:
        """The names of the outputs of the job, whose links are kept for later."""
        for output in job["outputs"]:
            if output["url"] is not None:
                link = urlsplit(output["url"])
                self.links[link.path.split("/")[2]] = f"{link.path}?{link.query}"
        return [f"{job['job_id']}-{number}" for number in range(len(job["outputs"]))]

    async def _end(self, ending: str, book: Book, job_id: str, outputs: Sequence[str]) -> None:
        if ending == "delete at once":
            await asyncio.gather(self._delete_all(book, job_id, outputs), self._download_each(outputs))
            await self._download_each(outputs)
            return
        await self._download_each(outputs)
        await asyncio.sleep(self.rng.uniform(0.3, 5))
        if ending == "delete later":
            await asyncio.gather(self._delete_all(book, job_id, outputs), self._download_each(outputs))
        elif ending == "expire":
            await self._expire(job_id, outputs)
        await self._download_each(outputs)

    @property
    def _caller(self) -> Callers:
        return self.rng.choice(self.callers)

    async def _delete(self, callers: Callers, book: Book, job_id: str, allowed: frozenset[int]) -> None:
        await callers.insist("DELETE", f"/generations/{job_id}/media", allowed, headers=book.headers)

    async def _delete_all(self, book: Book, job_id: str, outputs: Sequence[str]) -> None:
        callers = self.callers if self.rng.random() < TWICE_AT_ONCE else [self._caller]
        self.done["deletions"] += len(callers)
        for answered in asyncio.as_completed([self._delete(each, book, job_id, frozenset({200})) for each in callers]):
            await answered
            self._over.update(outputs)

    async def _expire(self, job_id: str, outputs: Sequence[str]) -> None:
        """Of some outputs that are stored: what is not would be given its time again by its copy."""
        numbers = self.rng.sample(range(len(outputs)), self.rng.randint(1, len(outputs)))
        rows = await past_the_guard(self.dsn, _EXPIRE, job_id, numbers)
        self._over.update(row[0] for row in rows)
        self.done["outputs expired"] += len(rows)

    async def _download_each(self, outputs: Sequence[str]) -> None:
        for output in outputs:
            await asyncio.sleep(self.rng.uniform(0, 1))
            if output in self.links:
                await self._download(output)

    async def _download(self, output: str) -> None:
        first = self.rng.randrange(500)
        headers = {"Range": f"bytes={first}-{first + self.rng.randrange(1, 2_000)}"}
        is_part = self.rng.random() < BY_PART
        is_after_the_end = output in self._over
        url = self.rng.choice(self.urls)
        try:
            found = await follow(
                self.session, output, url, self.links[output], headers if is_part else {}, is_late=is_after_the_end
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.cut_off[type(error).__name__] += 1
        else:
            self.downloads.append(found)


async def until_final(
    callers: Sequence[Callers], rng: random.Random, book: Book, order: Order, job_id: str
) -> Mapping[str, Any] | None:
    """The job as it ended; None where that takes too long, which is said elsewhere."""
    until = time.monotonic() + FINAL_SECONDS_MAX
    while time.monotonic() < until:
        path = f"/generations/{job_id}"
        answer = await rng.choice(callers).insist("GET", path, frozenset({200}), headers=book.headers)
        if answer.status == 200 and answer.body["status"] in FINAL:
            order.final_statuses_seen.add(answer.body["status"])
            return answer.body
        await asyncio.sleep(rng.uniform(*LOOK_SECONDS))
    return None


async def follow(
    session: aiohttp.ClientSession,
    output: str,
    url: str,
    link: str,
    headers: Mapping[str, str] | None = None,
    *,
    is_late: bool = False,
) -> Download:
    """Raises what aiohttp does where the answer is not whole."""
    return (await follow_whole(session, output, url, link, headers, is_late=is_late))[0]


async def follow_whole(
    session: aiohttp.ClientSession,
    output: str,
    url: str,
    link: str,
    headers: Mapping[str, str] | None = None,
    *,
    is_late: bool = False,
) -> tuple[Download, bytes]:
    """With the bytes themselves."""
    async with session.get(URL(f"{url}{link}", encoded=True), headers=headers, allow_redirects=False) as response:
        body = await response.read()
        part = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    found = Download(
        output,
        response.status,
        len(body),
        hashlib.sha256(body).hexdigest(),
        start=int(part[1]) if part and response.status == 206 else None,
        of_bytes=int(part[3]) if part else None,
        may_be_put_off="Retry-After" in response.headers,
        is_after_the_end=is_late,
        by=url,
    )
    return found, body
