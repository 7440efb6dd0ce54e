"""Callers that keep books of their own: what they were told, and nothing that they could not have been told."""

import asyncio
import itertools
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from torture.wishes import WEIGHTS, WISHES, Wish

ANSWER_SECONDS_MAX = 60
RETRY_SECONDS = 0.3
DEFINITE_SECONDS_MAX = 240
TOPUP_TOKENS = 2_000
SECRET = {"X-Webhook-Secret": "development-webhook-secret"}
FINAL = frozenset({"COMPLETED", "FAILED", "CANCELED"})
START = "/generations/images/text-to-image"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]


@dataclass(slots=True)
class Order:
    """One thing that a caller wanted, however often it had to ask for it."""

    prompt: str
    wish: Wish
    key: str | None
    webhook_url: str | None = None
    is_over_budget: bool = False
    """Once it was refused for that. A repeat may fit, after a refund."""
    is_not_taken: bool = False
    """It was refused for what it brings along."""
    job_ids: set[str] = field(default_factory=set)
    final_statuses_seen: set[str] = field(default_factory=set)

    @property
    def is_refused(self) -> bool:
        return (self.is_over_budget or self.is_not_taken) and not self.job_ids


@dataclass(slots=True)
class Book:
    user_id: str
    api_key: str = ""
    topped_up_tokens: int = 0
    budget_tokens: int | None = None
    """Of the key, for ever."""
    orders: list[Order] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key}


class Callers:
    """Sends, repeats, and notes every answer that nobody should ever get."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.answers: Counter[str] = Counter()
        self.wrong_answers: list[str] = []
        self.unanswered: list[str] = []
        self.put_off: list[str] = []

    async def ask(
        self,
        method: str,
        path: str,
        allowed: frozenset[int],
        *,
        headers: Mapping[str, str],
        json: Any = None,
        content: bytes | None = None,
    ) -> Answer | None:
        """None: no answer, or one that says to ask again later."""
        try:
            async with self._session.request(method, path, headers=headers, json=json, data=content) as response:
                body = await response.json(content_type=None)
                retry_after = response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self.unanswered.append(f"{method} {path}: {type(error).__name__}: {error}")
            return None
        self.answers[str(response.status)] += 1
        if response.status == 503 and retry_after is not None:
            self.put_off.append(f"{method} {path}: 503 {body}")
            return None
        if response.status not in allowed:
            self.wrong_answers.append(f"{method} {path}: {response.status} {body}")
        return Answer(response.status, body)

    @property
    def not_served(self) -> list[str]:
        """For scenarios in which nothing is taken away, so that every request must be served at once."""
        return self.wrong_answers + self.unanswered + self.put_off

    async def insist(
        self,
        method: str,
        path: str,
        allowed: frozenset[int],
        *,
        headers: Mapping[str, str],
        json: Any = None,
        content: bytes | None = None,
    ) -> Answer:
        async with asyncio.timeout(DEFINITE_SECONDS_MAX):
            while True:
                answer = await self.ask(method, path, allowed, headers=headers, json=json, content=content)
                if answer is not None:
                    return answer
                await asyncio.sleep(RETRY_SECONDS)

    async def top_up(self, book: Book, amount: int = TOPUP_TOKENS) -> str:
        """As a payment provider does: until it hears 200. Each payment once in the book. Returns what names it."""
        event_id = str(uuid.uuid4())
        headers = SECRET | {"X-Event-Id": event_id}
        body = {"external_user_id": book.user_id, "amount": amount}
        answer = await self.insist("POST", "/webhook/topup", frozenset({200}), headers=headers, json=body)
        if answer.status == 200:
            book.topped_up_tokens += amount
        return event_id

    async def register(self, tokens: int = TOPUP_TOKENS) -> Book:
        book = Book(str(uuid.uuid4()))
        await self.top_up(book, tokens)
        body = {"external_user_id": book.user_id}
        answer = await self.insist("POST", "/auth", frozenset({201}), headers={}, json=body)
        book.api_key = answer.body["api_key"]
        return book

    async def spend_by_budget(self, book: Book, tokens: int, per: str) -> None:
        """From now on by a key of its own."""
        body = {"name": "bounded", "scopes": ["generate", "read"], "budget": {"tokens": tokens, "per": per}}
        answer = await self.insist("POST", "/keys", frozenset({201}), headers=book.headers, json=body)
        book.api_key = answer.body["api_key"]
        book.budget_tokens = tokens if per == "ever" else None

    async def place(self, book: Book, order: Order) -> str | None:
        """The job's id; None where there is none, or nobody can know."""
        headers = dict(book.headers)
        body: dict[str, Any] = {"prompt": order.prompt, "num_images": order.wish.images}
        if order.webhook_url is not None:
            body["webhook_url"] = order.webhook_url
        if order.key is None:
            answer = await self.ask("POST", START, frozenset({202, 402}), headers=headers, json=body)
        else:
            headers["Idempotency-Key"] = order.key
            answer = await self._insist_on_202(headers, body)
        if answer is not None and answer.status == 402:
            order.is_over_budget = answer.body["code"] == "budget_exceeded"
            if not order.is_over_budget:
                self.wrong_answers.append(f"POST {START}: 402 {answer.body}")
        if answer is None or answer.status != 202:
            return None
        job_id = str(answer.body["job_id"])
        order.job_ids.add(job_id)
        return job_id

    async def _insist_on_202(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> Answer:
        async with asyncio.timeout(DEFINITE_SECONDS_MAX):
            while True:
                answer = await self.insist("POST", START, frozenset({202, 402, 409}), headers=headers, json=body)
                if answer.status != 409 or answer.body.get("code") != "idempotency_key_in_use":
                    return answer
                await asyncio.sleep(RETRY_SECONDS)

    async def cancel(self, book: Book, order: Order, job_id: str) -> None:
        """400: it had ended already, maybe by this very cancel, whose answer was lost."""
        path = f"/generations/{job_id}/cancel"
        answer = await self.insist("POST", path, frozenset({200, 400}), headers=book.headers)
        _note_the_end(order, answer)

    async def look(self, book: Book, order: Order, job_id: str) -> None:
        answer = await self.insist("GET", f"/generations/{job_id}", frozenset({200}), headers=book.headers)
        _note_the_end(order, answer)

    async def list_jobs(self, book: Book) -> dict[str, dict[str, Any]]:
        jobs: dict[str, dict[str, Any]] = {}
        for offset in itertools.count(0, 100):
            path = f"/generations?limit=100&offset={offset}"
            page = (await self.insist("GET", path, frozenset({200}), headers=book.headers)).body["items"]
            jobs |= {job["job_id"]: job for job in page}
            if len(page) < 100:
                break
        return jobs

    async def balance_tokens(self, book: Book) -> int:
        answer = await self.insist("GET", "/balance", frozenset({200}), headers=book.headers)
        return int(answer.body["balance_tokens"])


def _note_the_end(order: Order, answer: Answer) -> None:
    if answer.status == 200 and answer.body["status"] in FINAL:
        order.final_statuses_seen.add(answer.body["status"])


@asynccontextmanager
async def calling(url: str, *, connections: int = 100) -> AsyncIterator[Callers]:
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        yield Callers(session)


@dataclass(slots=True)
class Load:
    """Places orders at a steady pace until `count` of them are placed and `is_enough` says so."""

    callers: Callers
    books: list[Book]
    rng: random.Random
    count: int
    seconds: float
    is_enough: Callable[[], bool]
    at_once_max: int = 48
    placed: int = 0
    is_over: bool = False

    async def run(self) -> None:
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.at_once_max):
                tasks.create_task(self._caller(began))
        self.is_over = True

    async def _caller(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        while self.placed < self.count or not self.is_enough():
            number = self.placed
            self.placed += 1
            await asyncio.sleep(began + number * self.seconds / self.count - loop.time())
            await self._one(self.books[number % len(self.books)], number)

    async def _one(self, book: Book, number: int) -> None:
        rng = self.rng
        (wish,) = rng.choices(WISHES, WEIGHTS)
        # Unlike a seed or a user, the prompt comes through to fal: there it names the order.
        order = Order(f"order {number} {wish.words}", wish, str(uuid.uuid4()) if rng.random() < 0.7 else None)
        book.orders.append(order)
        if number % (len(self.books) * 20) < len(self.books):
            await self.callers.top_up(book)
        impatience, pause_seconds = rng.random(), rng.uniform(0, 3)
        job_id = await self._place(book, order, is_impatient=impatience < 0.2)
        if job_id is None:
            return
        if wish.is_canceled:
            await asyncio.sleep(pause_seconds * rng.random())
            await self.callers.cancel(book, order, job_id)
        elif impatience > 0.7:
            await asyncio.sleep(pause_seconds)
            await self.callers.look(book, order, job_id)

    async def _place(self, book: Book, order: Order, *, is_impatient: bool) -> str | None:
        if order.key is None or not is_impatient:
            return await self.callers.place(book, order)
        # The second request does not wait for the answer to the first one.
        first, second = await asyncio.gather(self.callers.place(book, order), self.callers.place(book, order))
        return first or second
