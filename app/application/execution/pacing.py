"""When to come back to a job."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from app.application.ports.execution import JobUpkeep
from app.domain.errors import Unavailable

BACKSTOP_SECONDS_MIN = 5.0
BACKSTOP_SECONDS_MAX = 120.0
# Of all jobs together: a look costs about as much as an accept, and almost every look finds nothing new.
LOOKS_PER_SECOND_MAX = 50
COUNT_SECONDS = 5.0
# Of the steps of one account that wait: the queue hands out what is due in the order of its age, so that thousands that
# come back together would go before everything that is new. With seven of its places free, a lane takes 70 a second.
WAITING_STEPS_PER_SECOND = 10
# More than so many of one account that were sent back, and faster than so many a second, are a crowd.
CROWD_STEPS_MIN = 5
CROWD_STEPS_PER_SECOND = 5
# By so much the first steps of many accounts that wait are spread.
ACCOUNTS_SPREAD_SECONDS_MAX = 10.0
ACCOUNTS_SPREAD_PER_SECOND = 50
TIDY_SECONDS = 1.0
BACKOFF_SECONDS_MAX = 60.0
POLL_SECONDS_MIN = 0.5
POLL_SECONDS_MAX = 10.0


def backoff_seconds(attempt: int) -> float:
    """Double the pause from 1 s to 60 s, with jitter over its upper half so that many jobs do not come back at once."""
    ceiling = min(BACKOFF_SECONDS_MAX, 2.0 ** min(attempt - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)


def poll_seconds(age_seconds: float) -> float:
    """Wait a tenth of what the job has taken so far: looks are quick for quick jobs and cheap for long ones."""
    return min(max(age_seconds * 0.1, POLL_SECONDS_MIN), POLL_SECONDS_MAX) * random.uniform(0.9, 1.1)


class Spread:
    """Spaces the steps of each account that come back later, so that they leave room for everybody else's."""

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now_seconds = now_seconds
        self._next_at: dict[UUID, float] = {}
        """When the next step of the account may come back."""
        self._sent_back: dict[UUID, float] = {}
        """Until when the account has used up the pace at which its steps may be sent back."""
        self._tidied_at = now_seconds()

    def delay_seconds(self, account_id: UUID, seconds_min: float) -> float:
        """When the step comes back: after `seconds_min`, and behind the others of its account.

        Accounts do not wait for each other, but if there are many the first steps of all are spread over some seconds.
        """
        now = self._now_seconds()
        self._tidy(now)
        next_at = self._next_at.get(account_id, now)
        if next_at <= now:
            spread_seconds = min(ACCOUNTS_SPREAD_SECONDS_MAX, len(self._next_at) / ACCOUNTS_SPREAD_PER_SECOND)
            next_at = now + seconds_min + random.uniform(0, spread_seconds)
        at = max(next_at, now + seconds_min)
        self._next_at[account_id] = at + 1 / WAITING_STEPS_PER_SECOND
        self._sent_back[account_id] = max(now, self._sent_back.get(account_id, now)) + 1 / CROWD_STEPS_PER_SECOND
        return at - now

    def is_crowded(self, account_id: UUID) -> bool:
        """So many steps of the account were sent back lately that the others should not even come."""
        crowd_seconds = CROWD_STEPS_MIN / CROWD_STEPS_PER_SECOND
        return self._sent_back.get(account_id, 0.0) > self._now_seconds() + crowd_seconds

    def add_crowd(self, account_id: UUID, steps: int) -> None:
        """So many more of its steps come back one after the other, without having come."""
        self._sent_back.pop(account_id, None)
        next_at = self._next_at.get(account_id, self._now_seconds())
        self._next_at[account_id] = next_at + steps / WAITING_STEPS_PER_SECOND

    def _tidy(self, now: float) -> None:
        """Forget the accounts of which no step waits any more."""
        if now >= self._tidied_at + TIDY_SECONDS:
            self._tidied_at = now
            self._next_at = {account_id: at for account_id, at in self._next_at.items() if at > now}
            self._sent_back = {account_id: at for account_id, at in self._sent_back.items() if at > now}


@dataclass(slots=True)
class Backstop:
    """Tells when to look at a job although fal's event should tell its end, because events get lost.

    After as long again as the job has taken; later where so many jobs wait for a look that this would be too often.
    """

    jobs: JobUpkeep
    now_seconds: Callable[[], float] = time.monotonic
    _seconds_for_all: float = field(default=0.0, init=False)
    _counted_at: float = field(default=float("-inf"), init=False)

    async def seconds_to_look(self, age_seconds: float) -> float:
        await self._count()
        own_seconds = min(max(age_seconds, BACKSTOP_SECONDS_MIN), BACKSTOP_SECONDS_MAX) * random.uniform(0.9, 1.1)
        # The looks at many jobs that began together are spread over all that time.
        return max(own_seconds, self._seconds_for_all * random.uniform(0.5, 1.5))

    async def _count(self) -> None:
        now = self.now_seconds()
        if now < self._counted_at + COUNT_SECONDS:
            return
        self._counted_at = now
        # A failed count must not fail the step; the last one is used.
        with suppress(Unavailable):
            self._seconds_for_all = await self.jobs.count_waiting_looks() / LOOKS_PER_SECOND_MAX
