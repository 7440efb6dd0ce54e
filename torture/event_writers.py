"""Whoever makes events through the API: payments, their reversals, orders, and balances that cross their mark."""

import asyncio
import itertools
import random
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from torture.callers import SECRET, Book, Callers, Order, calling
from torture.event_truth import REFUSAL, Fact
from torture.report import Check
from torture.wishes import PRICE_TOKENS, Wish

START_TOKENS = 200
MARK_TOKENS = 150
# Around the mark, so that it is crossed again and again, and nothing is ever refused for want of tokens.
SMALL_TOPUP_TOKENS = 1
LARGE_TOPUP_TOKENS = (6, 10)
OPERATIONS = {"order": 35, "top-up": 55, "reversal": 10}
# Below the price of anything, so that each order by such a key is refused, and one event tells of it.
BUDGET_TOKENS = PRICE_TOKENS - 1
BY_BUDGET = 0.1
BY_WEBHOOK_URL = 0.3
# How many events follow from one of them, about.
EVENTS_EACH = 1.9
EITHER = {"CANCELED": 0, "COMPLETED": 1}
WISHES = (
    Wish("", {"COMPLETED": 1}, weight=10),
    Wish("[webhook:never]", {"COMPLETED": 1}, weight=2),
    Wish("[fail]", {"FAILED": 0}, weight=2),
    Wish("[submit:422]", {"FAILED": 0}, weight=2),
    Wish("[slow:3]", EITHER, weight=3, is_canceled=True),
    Wish("[slow:3] [ignore-cancel]", EITHER, is_canceled=True),
    Wish("[stuck]", {"CANCELED": 0}, is_canceled=True),
)
WEIGHTS = [wish.weight for wish in WISHES]


@asynccontextmanager
async def calling_all(urls: Sequence[str]) -> AsyncIterator[list[Callers]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(calling(url)) for url in urls]


async def open_books(
    callers: Sequence[Callers], count: int, tokens: int = START_TOKENS, mark_tokens: int = MARK_TOKENS
) -> list[Book]:
    """New accounts. Their first event is their first payment, after which they get their mark."""

    async def one(number: int) -> Book:
        by = callers[number % len(callers)]
        book = await by.register(tokens)
        mark = {"balance_low_tokens": mark_tokens}
        await by.insist("PATCH", "/account", frozenset({200}), headers=book.headers, json=mark)
        return book

    return [await one(number) for number in range(count)]


@dataclass(slots=True)
class Budget:
    """A key of an account, by which everything is refused."""

    book: Book
    key_id: str
    has_refused: bool = False

    @property
    def user_id(self) -> str:
        return self.book.user_id

    @property
    def refusal(self) -> Fact:
        return Fact(REFUSAL, f"key {self.key_id}")


async def open_budgets(callers: Sequence[Callers], books: Sequence[Book]) -> list[Budget]:
    async def one(number: int, book: Book) -> Budget:
        body = {"name": "bounded", "scopes": ["generate"], "budget": {"tokens": BUDGET_TOKENS, "per": "ever"}}
        by = callers[number % len(callers)]
        answer = await by.insist("POST", "/keys", frozenset({201}), headers=book.headers, json=body)
        return Budget(Book(book.user_id, answer.body["api_key"]), answer.body["id"])

    return [await one(number, book) for number, book in enumerate(books)]


@dataclass(slots=True)
class Writers:
    """At a steady pace, until `count` operations are done and `is_enough` says so, or the time is over."""

    callers: Sequence[Callers]
    books: Sequence[Book]
    budgets: Sequence[Budget]
    """One of each book."""
    rng: random.Random
    count: int
    seconds: float
    is_enough: Callable[[], bool]
    seconds_max: float
    webhook_urls: Mapping[str, str] = field(default_factory=dict)
    """By user, what some of the orders name."""
    at_once_max: int = 120
    """Many of them wait for a process that is gone just then."""
    done: Counter[str] = field(default_factory=Counter)
    with_webhook_url: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By user, the jobs that have one."""
    _payments: defaultdict[str, deque[tuple[str, int]]] = field(default_factory=lambda: defaultdict(deque))

    async def run(self) -> None:
        began = asyncio.get_running_loop().time()
        numbers = itertools.count()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.at_once_max):
                tasks.create_task(self._one_after_the_other(numbers, began))

    async def _one_after_the_other(self, numbers: "itertools.count[int]", began: float) -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            spent_seconds = loop.time() - began
            if (number >= self.count and self.is_enough()) or spent_seconds > self.seconds_max:
                return
            await asyncio.sleep(number * self.seconds / self.count - spent_seconds)
            await self._one(number)

    async def _one(self, number: int) -> None:
        book, budget = self.books[number % len(self.books)], self.budgets[number % len(self.books)]
        callers = self.rng.choice(self.callers)
        (operation,) = self.rng.choices([*OPERATIONS], [*OPERATIONS.values()])
        payments = self._payments[book.user_id]
        if operation == "order" and self.rng.random() < BY_BUDGET:
            operation = "order over budget"
            await self._order_over_budget(callers, budget, number)
        elif operation == "order":
            await self._order(callers, book, number)
        elif operation == "reversal" and payments:
            await self._reverse(callers, book, *payments.popleft())
        else:
            operation = "top-up"
            is_low = await callers.balance_tokens(book) < MARK_TOKENS
            amount = self.rng.randint(*LARGE_TOPUP_TOKENS) if is_low else SMALL_TOPUP_TOKENS
            payments.append((await callers.top_up(book, amount), amount))
        self.done[operation] += 1

    async def _order(self, callers: Callers, book: Book, number: int) -> None:
        (wish,) = self.rng.choices(WISHES, WEIGHTS)
        order = Order(f"event {number} {wish.words}", wish, str(uuid.uuid4()))
        if self.rng.random() < BY_WEBHOOK_URL:
            order.webhook_url = self.webhook_urls.get(book.user_id)
        job_id = await callers.place(book, order)
        if job_id is not None and order.webhook_url is not None:
            self.with_webhook_url[book.user_id].add(job_id)
        if job_id is not None and wish.is_canceled:
            await asyncio.sleep(self.rng.uniform(0, 1.5))
            await callers.cancel(book, order, job_id)

    async def _order_over_budget(self, callers: Callers, budget: Budget, number: int) -> None:
        order = Order(f"event {number}", WISHES[0], str(uuid.uuid4()))
        await callers.place(budget.book, order)
        budget.has_refused |= order.is_over_budget

    async def _reverse(self, callers: Callers, book: Book, payment: str, amount: int) -> None:
        headers = SECRET | {"X-Event-Id": str(uuid.uuid4())}
        taken = self.rng.randint(1, amount)
        body = {"payment_event_id": payment, "amount": taken}
        answer = await callers.insist("POST", "/webhook/reversal", frozenset({200}), headers=headers, json=body)
        if answer.status == 200:
            book.topped_up_tokens -= taken


def answers_are_right(callers: Sequence[Callers]) -> Check:
    wrong = [answer for each in callers for answer in each.wrong_answers]
    return Check("answers are right, or 503 with Retry-After", sum(each.answers.total() for each in callers), wrong)
