"""The customers' side of webhooks: one server in a thread of its own, with a URL for each endpoint.

It checks each signature with the library of Standard Webhooks, writes down what came, and answers as the endpoint does:
well, or badly in its own way, until it is told that all of them are well again.
"""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from torture.event_truth import Told, subject_of

START_SECONDS_MAX = 10
# Longer than the service waits for an answer.
HANG_SECONDS = 17.0
HANGS = 0.02
REFUSES = 0.1
# Of what an endpoint refuses for good: each takes twelve attempts and days.
REFUSED_FOR_GOOD_MAX = 2
GONE_EVERY = 60
# More in a row, and the endpoint is left alone for minutes.
FAILS_EVERY, FAILS_FOR = 50, 8


class Mood(StrEnum):
    STEADY = "steady"
    FAILING = "failing"
    """For a while each answer is 500 or 503, again and again."""
    HANGING = "hanging"
    GONE = "gone"
    """Once in a while 410, so that it is disabled."""
    STUBBORN = "stubborn"
    """It refuses a few events for good."""
    SWITCHED = "switched"
    """It is well, but its owner disables it now and then."""
    OF_JOBS = "of jobs"
    """What jobs name themselves: some answers are 500."""
    DOWN = "down"


class Receipt(NamedTuple):
    told: Told
    is_accepted: bool
    """Answered 2xx in time, as far as the receiver knows."""


@dataclass(slots=True)
class Hook:
    """One URL, and what came there."""

    user_id: str
    mood: Mood
    types: frozenset[str] | None = None
    """None: everything."""
    secret: str = ""
    """Before it is known, nothing is taken."""
    endpoint_id: str | None = None
    """None: only jobs name it."""
    receipts: list[Receipt] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """What was not signed as it must be."""
    is_well: bool = False
    _for_good: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        what = "" if self.types is None else " of some types"
        return f"{self.mood}{what} of {self.user_id}"

    @property
    def path(self) -> str:
        return f"/{self.user_id}/{self.mood.replace(' ', '-')}/{'all' if self.types is None else 'some'}"

    def status(self, seq: int, rng: random.Random) -> int | None:
        """What is answered. None: nothing, for too long."""
        if self.mood is Mood.STUBBORN and self._is_refused_for_good(seq):
            return 500
        number = len(self.receipts)
        bad: dict[Mood, tuple[bool, int | None]] = {
            Mood.DOWN: (True, 500),
            Mood.FAILING: (number % FAILS_EVERY >= FAILS_EVERY - FAILS_FOR, rng.choice((500, 503))),
            Mood.GONE: (number % GONE_EVERY == GONE_EVERY // 3, 410),
            Mood.HANGING: (rng.random() < HANGS, None),
            Mood.OF_JOBS: (rng.random() < REFUSES, 500),
        }
        is_bad, status = bad.get(self.mood, (False, None))
        return status if is_bad and not self.is_well else rng.choice((200, 204))

    def _is_refused_for_good(self, seq: int) -> bool:
        if len(self._for_good) < REFUSED_FOR_GOOD_MAX:
            self._for_good.add(seq)
        return seq in self._for_good


class Receiver:
    def __init__(self, seed: str) -> None:
        self.url = ""
        self.hooks: dict[str, Hook] = {}
        self.strays: list[str] = []
        """What came where nobody is."""
        self.answers: Counter[str] = Counter()
        self._rng = random.Random(seed)

    def add(self, hook: Hook) -> str:
        """Its URL."""
        assert hook.path not in self.hooks, hook.name
        self.hooks[hook.path] = hook
        return f"{self.url}{hook.path}"

    def all_are_well(self) -> None:
        for hook in self.hooks.values():
            hook.is_well = True

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self._judge(request.path, _lower(request.headers), body)
        self.answers["none" if status is None else str(status)] += 1
        if status is None:
            await asyncio.sleep(HANG_SECONDS)
            return web.Response(status=200)
        # Seconds that the service waits of its own clock.
        return web.Response(status=status, headers={"Retry-After": "1"} if status == 503 else None)

    def _judge(self, path: str, headers: Mapping[str, str], body: bytes) -> int | None:
        hook = self.hooks.get(path)
        if hook is None:
            self.strays.append(f"{path}: {body[:200]!r}")
            return 404
        if not hook.secret:
            return 503
        try:
            event: dict[str, Any] = Webhook(hook.secret).verify(body, dict(headers))
            told = Told(event["seq"], event["type"], subject_of(event))
            if not headers["webhook-id"] == event["id"] == f"evt_{told.seq}":
                raise ValueError(f"{headers['webhook-id']} names {told}")
        except (WebhookVerificationError, KeyError, ValueError) as error:
            hook.refused.append(f"{hook.name}: {type(error).__name__}: {error}: {body[:200]!r}")
            return 401
        status = hook.status(told.seq, self._rng)
        hook.receipts.append(Receipt(told, status is not None and 200 <= status < 300))
        return status


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@asynccontextmanager
async def open_receiver(seed: str) -> AsyncIterator[Receiver]:
    """In a thread, so that it answers in time whatever the torture itself is busy with."""
    receiver = Receiver(seed)
    is_open: Future[tuple[str, asyncio.AbstractEventLoop]] = Future()
    is_over = asyncio.Event()
    # Its end cancels what still hangs.
    thread = threading.Thread(target=lambda: asyncio.run(_serve(receiver, is_open, is_over)), daemon=True)
    thread.start()
    receiver.url, loop = await asyncio.wait_for(asyncio.wrap_future(is_open), START_SECONDS_MAX)
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(is_over.set)
        await asyncio.to_thread(thread.join)


async def _serve(
    receiver: Receiver, is_open: "Future[tuple[str, asyncio.AbstractEventLoop]]", is_over: asyncio.Event
) -> None:
    application = web.Application()
    application.router.add_post("/{path:.*}", receiver.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        is_open.set_result((f"http://127.0.0.1:{runner.addresses[0][1]}", asyncio.get_running_loop()))
        await is_over.wait()
    finally:
        await runner.cleanup()
