"""How often somebody may ask, in this process and for so long as it remembers: a second or a minute of its clock."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from app.domain.accounts import Caller
from app.domain.limits import TooManyFailedAuthentications, TooManyReads

FAILURES_PER_MINUTE = 20
SLOWED_SECONDS = 1.0
# Of one address, and of all. Who would wait beside them is told to come back later.
SLOWED_OF_ONE_MAX = 8
SLOWED_MAX = 128
# So many addresses or keys, whoever sends them, are remembered in a second or minute.
REMEMBERED_MAX = 100_000


class Reads:
    """Counts what each key reads in a second of the clock."""

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._second = 0
        self._reads: Counter[UUID] = Counter()

    def count(self, caller: Caller) -> None:
        """Raises TooManyReads, and then counts nothing."""
        own = caller.account.reads_per_second
        limit = self._per_second if own is None else own
        if limit == 0:
            return
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._reads.clear()
        if self._reads[caller.key.id] >= limit:
            raise TooManyReads(limit)
        self._reads[caller.key.id] += 1


class FailedAuthentications:
    """Slows the failures of an address down, once there are many in a minute. Who proves a right is never slowed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._minute = 0
        self._failures: Counter[str] = Counter()
        self._slowed: Counter[str] = Counter()

    async def slow(self, address: str | None) -> None:
        """To be awaited before a failure is answered. Raises TooManyFailedAuthentications."""
        place = _place(address)
        now = self._clock()
        if int(now // 60) != self._minute:
            self._minute = int(now // 60)
            self._failures.clear()
        if place in self._failures or len(self._failures) < REMEMBERED_MAX:
            self._failures[place] += 1
        if self._failures[place] <= FAILURES_PER_MINUTE:
            return
        if self._slowed[place] >= SLOWED_OF_ONE_MAX or self._slowed.total() >= SLOWED_MAX:
            raise TooManyFailedAuthentications(retry_after_seconds=60 - int(now % 60))
        self._slowed[place] += 1
        try:
            await asyncio.sleep(SLOWED_SECONDS)
        finally:
            self._slowed[place] -= 1
            if not self._slowed[place]:
                del self._slowed[place]


def _place(address: str | None) -> str:
    """Whoever has an IPv6 address has all those of its /64."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        # A socket of this machine, or what a client wrote for a trusted proxy to hand on. As one place it can neither
        # be a new one each time, nor fill the memory with texts as long as a header.
        return ""
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, 64), strict=False))
