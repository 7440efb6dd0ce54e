"""Batches of orders, apart from those of accounts that are told again and again what was clear already.

An order that does not fit makes its whole batch ask before it writes, and a repeat costs as much. Neither is ever
refused for being one of many: a refusal is owed with its figures, and the repeat of an order whose answer was lost with
its job. So what one account sends for nothing costs that account time, and nobody else.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.budgets import AccountLimits
from app.domain.errors import DomainError, Overloaded, Unavailable
from app.domain.jobs import is_large
from app.domain.orders import Accepted
from app.infrastructure.postgres.batching import Batcher
from app.infrastructure.postgres.jobs.acceptance import accept_all
from app.infrastructure.postgres.jobs.writing_orders import StorableOrder

# However many wait: with up to 64 in a batch no more was done for 128 callers, and each waits for the end of his batch.
ACCEPTS_MAX = 32
# Of an account in a second: whoever meets a limit now and then, or repeats an order, is not slowed down.
FRUITLESS_PER_SECOND = 5
# In each such time so many of an account are asked, and the others of it wait.
APART_EVERY_SECONDS = 0.05
APART_AT_ONCE_MAX = 32
# Of one account: by then the last of them waits for most of a second. And of all.
APART_WAITING_MAX = 500
APART_WAITING_OF_ALL_MAX = 2_000


class FruitlessOrders:
    """Counts the orders of each account that came to no new job, in a second of the clock and the one before it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = 0
        self._counts: Counter[UUID] = Counter()
        self._counts_before: Counter[UUID] = Counter()

    def count(self, account_id: UUID) -> None:
        self._turn()
        self._counts[account_id] += 1

    def are_many(self, account_id: UUID) -> bool:
        self._turn()
        return max(self._counts[account_id], self._counts_before[account_id]) >= FRUITLESS_PER_SECOND

    def _turn(self) -> None:
        second = int(self._clock())
        if second != self._second:
            is_next = second == self._second + 1
            self._counts_before = self._counts if is_next else Counter()
            self._counts, self._second = Counter(), second


@dataclass(slots=True)
class _Apart:
    """The orders of one account that go apart."""

    waiting: int = 0
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(APART_AT_ONCE_MAX))


class OrderBatches:
    def __init__(self, engine: AsyncEngine, limits: AccountLimits, clock: Callable[[], float] = time.monotonic) -> None:
        accept, size_bytes = partial(accept_all, limits=limits), attrgetter("size_bytes")
        self._clock = clock
        self._together: Batcher[StorableOrder, Accepted] = Batcher(
            engine, accept, size_max=ACCEPTS_MAX, size_bytes=size_bytes, takes_half=True
        )
        self._apart: Batcher[StorableOrder, Accepted] = Batcher(
            engine, accept, flushes_max=1, size_max=ACCEPTS_MAX, size_bytes=size_bytes
        )
        self._fruitless = FruitlessOrders(clock)
        self._apart_of: dict[UUID, _Apart] = {}
        self._waiting_apart = 0

    async def __call__(self, order: StorableOrder) -> Accepted:
        """Raises Overloaded, and what the order is refused for."""
        account_id = order.order.job.account_id
        try:
            accepted = await self._accepted(order, account_id)
        except Unavailable:
            # Not the account's doing.
            raise
        except DomainError:
            self._fruitless.count(account_id)
            raise
        if accepted.is_replay:
            self._fruitless.count(account_id)
        return accepted

    async def _accepted(self, order: StorableOrder, account_id: UUID) -> Accepted:
        # A large one holds the turn of all large bodies until it is answered, so it must not wait; and it goes alone.
        if not self._fruitless.are_many(account_id) or is_large(order.order.job.parameters):
            return await self._together(order)
        async with self._turn_of(account_id):
            await asyncio.sleep(APART_EVERY_SECONDS - self._clock() % APART_EVERY_SECONDS)
            return await self._apart(order)

    @asynccontextmanager
    async def _turn_of(self, account_id: UUID) -> AsyncIterator[None]:
        apart = self._apart_of.get(account_id) or _Apart()
        if apart.waiting >= APART_WAITING_MAX or self._waiting_apart >= APART_WAITING_OF_ALL_MAX:
            raise Overloaded
        self._apart_of[account_id] = apart
        apart.waiting += 1
        self._waiting_apart += 1
        try:
            async with apart.turns:
                yield
        finally:
            apart.waiting -= 1
            self._waiting_apart -= 1
            if not apart.waiting:
                del self._apart_of[account_id]
