"""Takes deliveries that are due and makes the attempts, apart from the steps of jobs."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from uuid import UUID

import structlog

from app.application.ports.webhooks import DeliveryQueue, Replays
from app.domain.errors import DatabaseUnavailable
from app.domain.webhooks import AT_ONCE_MAX, ClaimedDelivery

log = structlog.get_logger(__name__)

ATTEMPTS_AT_ONCE_MAX = 256
# What may be under way for an account, of what is left free beside it: endpoints that hang then fill no process. Also
# the part of the free places that one look for work fills, since all that it finds may be of one account.
SHARE = 1 / 4
# For what is due by the clock, and for what a lost notification told of.
LOOK_SECONDS = 1.0
# What becomes due within this time is taken together.
GATHER_SECONDS = 0.003
FAILED_SECONDS = 1.0
# Replays are work that has time: between two portions, whoever they are of.
REPLAY_SECONDS = 0.1
STOP_SECONDS_MAX = 2.0


class Deliverer:
    """`hearing` sets the event when something may be due."""

    def __init__(
        self,
        queue: DeliveryQueue,
        replays: Replays,
        deliver: Callable[[ClaimedDelivery], Awaitable[object]],
        hearing: Callable[[asyncio.Event], AbstractAsyncContextManager[None]],
    ) -> None:
        self._queue = queue
        self._replays = replays
        self._deliver = deliver
        self._hearing = hearing
        self._attempts: set[asyncio.Task[None]] = set()
        self._held: Counter[UUID | None] = Counter()
        self._due = asyncio.Event()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        tasks = {
            asyncio.create_task(self._work(), name="deliverer"),
            asyncio.create_task(self._replay(), name="deliverer of replays"),
        }
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._stop()

    async def _work(self) -> None:
        async with self._hearing(self._due):
            while True:
                self._due.clear()
                if not await self._take():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._due.wait(), LOOK_SECONDS)
                await asyncio.sleep(GATHER_SECONDS)

    async def _take(self) -> bool:
        """Whether there may be more that is due."""
        free = ATTEMPTS_AT_ONCE_MAX - len(self._attempts)
        if free < AT_ONCE_MAX:
            return False
        try:
            endpoints_max = max(1, int(SHARE * free) // AT_ONCE_MAX)
            claimed = await self._queue.claim(endpoints_max, leave_out=self._full(free))
        except DatabaseUnavailable:
            # The event database_failed says why.
            await asyncio.sleep(FAILED_SECONDS)
            return False
        except Exception:
            log.exception("deliveries_not_claimed")
            await asyncio.sleep(FAILED_SECONDS)
            return False
        for delivery in claimed:
            self._held[delivery.account_id] += 1
            task = asyncio.create_task(self._attempt(delivery))
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)
        return bool(claimed)

    def _full(self, free: int) -> Collection[UUID]:
        """Accounts that have their share of the attempts already."""
        return [account for account, held in self._held.items() if account is not None and held >= SHARE * free]

    async def _attempt(self, delivery: ClaimedDelivery) -> None:
        try:
            await self._deliver(delivery)
        except asyncio.CancelledError:
            with suppress(DatabaseUnavailable):
                await self._queue.give_back(delivery)
            raise
        except DatabaseUnavailable:
            # Its claim ends by itself, and somebody makes the attempt again.
            pass
        except Exception:
            log.exception("delivery_failed", endpoint_id=str(delivery.endpoint_id))
        finally:
            self._held[delivery.account_id] -= 1
            if not self._held[delivery.account_id]:
                del self._held[delivery.account_id]
            self._due.set()

    async def _replay(self) -> None:
        while True:
            try:
                advanced = await self._replays.advance()
            except DatabaseUnavailable:
                advanced = False
            except Exception:
                log.exception("replay_failed")
                advanced = False
            if advanced:
                self._due.set()
            await asyncio.sleep(REPLAY_SECONDS if advanced else LOOK_SECONDS)

    async def _stop(self) -> None:
        """What is under way gets a moment; the rest goes back, and another process takes it."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=STOP_SECONDS_MAX)
        for task in self._attempts:
            task.cancel()
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=STOP_SECONDS_MAX)
