"""Owners of webhook endpoints, who do as a careful customer does: by the API alone, and until they have an answer.

Whoever finds an endpoint disabled notes `missed_after` and what was given up, enables it, has everything since
replayed, and what was given up delivered again.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from torture.callers import Book, Callers
from torture.delivery_receiver import Hook, Mood, Receiver
from torture.delivery_time import last_place

LOOK_SECONDS = 1.0
OFF_SECONDS = (2.0, 8.0)
ON_SECONDS = (10.0, 30.0)
PAGE = 100


@dataclass(slots=True)
class Endpoint:
    """What its owner knows of it."""

    hook: Hook
    created_after: int
    """The place in the log after which it hears of everything."""
    missed: list[tuple[int, int]] = field(default_factory=list)
    """From where to where was replayed: in there events come in any order."""
    given_up: set[int] = field(default_factory=set)
    """What was ever exhausted: it lets the next of its job go before it."""
    missed_after: int | None = None
    """Where the next replay begins. Kept until all of it is asked for."""
    switches_at: float = 0.0


@dataclass(slots=True)
class Owner:
    callers: Sequence[Callers]
    book: Book
    endpoints: Sequence[Endpoint]
    dsn: str
    rng: random.Random
    keeps_off: bool = False
    """Nothing is enabled, for the time being."""
    reasons: list[str] = field(default_factory=list)
    """Why its endpoints were disabled."""

    async def run(self) -> None:
        """Until it is canceled."""
        loop = asyncio.get_running_loop()
        while True:
            for endpoint in self.endpoints:
                if endpoint.hook.endpoint_id is not None:
                    await self._look_after(endpoint, loop.time())
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_after(self, endpoint: Endpoint, now: float) -> None:
        view = await self.ask("GET", endpoint, 200)
        may_switch = endpoint.hook.mood is Mood.SWITCHED and now >= endpoint.switches_at
        if view["is_enabled"] and may_switch and not endpoint.hook.is_well:
            endpoint.switches_at = now + self.rng.uniform(*OFF_SECONDS)
            await self.disable(endpoint)
        elif not self.keeps_off and (
            endpoint.missed_after is not None or (not view["is_enabled"] and now >= endpoint.switches_at)
        ):
            endpoint.switches_at = now + self.rng.uniform(*ON_SECONDS)
            await self._mend(endpoint, view)

    async def disable(self, endpoint: Endpoint) -> None:
        await self.ask("PATCH", endpoint, 200, json={"is_enabled": False})

    async def _mend(self, endpoint: Endpoint, view: dict[str, Any]) -> None:
        if not view["is_enabled"]:
            self.reasons.append(view["disabled_reason"])
            places = {place for place in (endpoint.missed_after, view["missed_after"]) if place is not None}
            endpoint.missed_after = min(places)
        exhausted = await self.exhausted(endpoint)
        endpoint.given_up |= exhausted
        await self.ask("PATCH", endpoint, 200, json={"is_enabled": True})
        after = endpoint.missed_after
        answer = await self.ask("POST", endpoint, 202, 409, path="/replay", json={"after": after})
        if answer.get("code") == "endpoint_disabled":
            return
        assert after is not None
        endpoint.missed.append((after, await last_place(self.dsn)))
        if endpoint.hook.mood is not Mood.STUBBORN:
            for seq in exhausted:
                await self.ask("POST", endpoint, 202, 409, path=f"/deliveries/evt_{seq}/redeliver")
        endpoint.missed_after = None

    async def exhausted(self, endpoint: Endpoint) -> set[int]:
        found: set[int] = set()
        before = ""
        while True:
            path = f"/deliveries?state=exhausted&limit={PAGE}{before}"
            page = await self.ask("GET", endpoint, 200, path=path)
            found |= {delivery["seq"] for delivery in page["items"]}
            if page["next_before"] is None:
                return found
            before = f"&before={page['next_before']}"

    async def ask(
        self, method: str, endpoint: Endpoint, *allowed: int, path: str = "", json: Any = None
    ) -> dict[str, Any]:
        callers = self.rng.choice(self.callers)
        url = f"/webhook-endpoints/{endpoint.hook.endpoint_id}{path}"
        answer = await callers.insist(method, url, frozenset(allowed), headers=self.book.headers, json=json)
        return answer.body


async def own(
    book: Book, hooks: Sequence[Hook], *, callers: Sequence[Callers], receiver: Receiver, dsn: str, rng: random.Random
) -> Owner:
    """Endpoints for the hooks; one of jobs is named by these, and signed with the account's secret."""
    endpoints = []
    by = rng.choice(callers)
    for hook in hooks:
        endpoint = Endpoint(hook, await last_place(dsn))
        url = receiver.add(hook)
        if hook.mood is Mood.OF_JOBS:
            answer = await by.insist("GET", "/webhook-secret", frozenset({200}), headers=book.headers)
        else:
            body = {"url": url, "types": None if hook.types is None else sorted(hook.types)}
            answer = await by.insist("POST", "/webhook-endpoints", frozenset({201}), headers=book.headers, json=body)
            hook.endpoint_id = answer.body["id"]
        hook.secret = answer.body["secret"]
        endpoints.append(endpoint)
    return Owner(callers, book, endpoints, dsn, rng)


@asynccontextmanager
async def looking_after(owners: Collection[Owner]) -> AsyncIterator[None]:
    """All of them meanwhile. An owner that fails for a reason of its own is raised at the end."""
    tasks = [asyncio.create_task(owner.run()) for owner in owners]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
