"""Delivery of webhooks when runs end: at least once, with a growing back-off.

One heap of due times and one timer serve all requests: one that waits costs no task.
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from simulator.config import SimulatorConfig
from simulator.requests import Outcome, QueueRequest
from simulator.webhook_message import WebhookMessage, WebhookSigner

# What answers a POST of a body to a URL with these headers; raises aiohttp's errors.
Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[int]]

POSTS_LISTED_MAX = 1_000
BACK_OFF_SECONDS_MAX = 300
# How soon to look again after a run that is over but still loads its inputs.
OUTCOME_LOOK_SECONDS = 0.2
TIMER_SECONDS_MIN = 0.001
# aiohttp complains about a large body in one piece.
SLICE_BYTES = 64 * 1024
# Below the idle limit common among servers: a POST on a connection that is just being closed is lost.
KEEPALIVE_SECONDS = 4


@dataclass(frozen=True, slots=True)
class WebhookPost:
    """One POST, as `/_sim/webhooks` lists it; either a status code came back or an error says why none did."""

    request_id: str
    url: str
    attempt: int
    status_code: int | None
    error: str | None
    sent_at: float


@dataclass(slots=True, eq=False)
class Delivery:
    request: QueueRequest
    url: str
    due_at: float = math.inf
    attempts: int = 0
    is_running: bool = False


class Webhooks:
    def __init__(
        self,
        post: Post,
        signer: WebhookSigner,
        *,
        config: Callable[[], SimulatorConfig],
        now: Callable[[], float],
        signed_at: Callable[[], float],
        outcome_of: Callable[[QueueRequest], Awaitable[Outcome | None]],
        on_settled: Callable[[QueueRequest], None],
    ) -> None:
        self._send = post
        self._signer = signer
        self._config = config
        self._now = now
        self._signed_at = signed_at
        self._outcome_of = outcome_of
        self._on_settled = on_settled
        self._deliveries: dict[str, Delivery] = {}
        self._heap: list[tuple[float, int, Delivery]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._posts: deque[WebhookPost] = deque(maxlen=POSTS_LISTED_MAX)

    @property
    def key_set(self) -> dict[str, list[dict[str, str]]]:
        return self._signer.key_set

    def newest(self, count: int | None = None) -> Iterable[WebhookPost]:
        return itertools.islice(reversed(self._posts), count)

    def schedule(self, request: QueueRequest) -> None:
        """Deliver when the run ends; to be called again when a cancel has moved its end."""
        delivery = self._delivery(request)
        if delivery is not None and not delivery.is_running:
            delay_seconds = request.behaviour.webhook_delay_seconds / self._config().speed
            self._put(delivery, request.ended_at + delay_seconds)

    async def deliver_now(self, request: QueueRequest) -> None:
        """Make the first attempt before returning, without waiting for a free place among the others."""
        delivery = self._delivery(request)
        if delivery is not None:
            await asyncio.wait({self._start(delivery)})

    def look(self) -> None:
        """To be called when the clock was moved: deliver what is due now."""
        self._start_due()

    def clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()
        self._deliveries.clear()
        self._posts.clear()
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        self.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _delivery(self, request: QueueRequest) -> Delivery | None:
        url = request.webhook_url
        if url is None or request.behaviour.webhook_is_never_sent:
            return None
        return self._deliveries.setdefault(request.request_id, Delivery(request, url))

    def _put(self, delivery: Delivery, due_at: float) -> None:
        delivery.due_at = due_at
        if math.isinf(due_at):
            # Stuck until it is cancelled.
            return
        heapq.heappush(self._heap, (due_at, next(self._numbers), delivery))
        if self._heap[0][2] is delivery:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Without a free place the end of a delivery goes on instead.
        if self._heap and self._has_place():
            # Not at once: a clock that is held never gets to the end of the last moment.
            seconds = max(TIMER_SECONDS_MIN, self._heap[0][0] - self._now())
            self._timer = asyncio.get_running_loop().call_later(seconds, self._start_due)

    def _start_due(self) -> None:
        while self._heap and self._has_place() and self._heap[0][0] <= self._now():
            due_at, _, delivery = heapq.heappop(self._heap)
            # Another due time: a cancel has moved it, and this entry is left over.
            if delivery.due_at == due_at:
                self._start(delivery)
        self._set_timer()

    def _has_place(self) -> bool:
        return len(self._tasks) < self._config().webhooks_at_once

    def _start(self, delivery: Delivery) -> asyncio.Task[None]:
        delivery.due_at = math.inf
        delivery.is_running = True
        task = asyncio.create_task(self._attempt(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start_due()

    async def _attempt(self, delivery: Delivery) -> None:
        request = delivery.request
        outcome = await self._outcome_of(request)
        delivery.attempts += outcome is not None
        status_codes: list[int | None] = []
        if outcome is not None:
            # Made anew for each attempt: a timestamp of the first would be refused as too old.
            message = self._signer.message(request, outcome, self._config().user_id, self._signed_at())
            posts = (self._post(delivery, message) for _ in range(request.behaviour.webhook_copies))
            status_codes = await asyncio.gather(*posts)
        delivery.is_running = False
        if outcome is None:
            self._put(delivery, self._now() + OUTCOME_LOOK_SECONDS)
        elif _is_final(status_codes) or delivery.attempts >= self._config().webhook_attempts_max:
            del self._deliveries[request.request_id]
            self._on_settled(request)
        else:
            self._put(delivery, self._now() + self._back_off_seconds(delivery.attempts))

    async def _post(self, delivery: Delivery, message: WebhookMessage) -> int | None:
        sent_at = self._now()
        status_code = error = None
        try:
            async with asyncio.timeout(self._config().webhook_seconds_max):
                headers = message.headers | {"content-length": str(len(message.body))}
                status_code = await self._send(delivery.url, message.body, headers)
        except (aiohttp.ClientError, TimeoutError) as problem:
            error = f"{type(problem).__name__}: {problem}".removesuffix(": ")
        self._posts.append(
            WebhookPost(
                delivery.request.request_id,
                delivery.url,
                delivery.attempts,
                status_code,
                error,
                sent_at,
            )
        )
        return status_code

    def _back_off_seconds(self, attempts: int) -> float:
        config = self._config()
        return min(math.ldexp(config.webhook_retry_seconds, attempts - 1), BACK_OFF_SECONDS_MAX) / config.speed


def _is_final(status_codes: list[int | None]) -> bool:
    """2xx is a receipt, 3xx a failure for good; one copy that arrived is enough."""
    return any(status_code is not None and 200 <= status_code < 400 for status_code in status_codes)


@asynccontextmanager
async def open_post() -> AsyncIterator[Post]:
    """aiohttp itself: thousands of webhooks can be due together, and httpx around it takes more than twice as long."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout()
    ) as session:

        async def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
            data = body if len(body) <= SLICE_BYTES else _slices(body)
            async with session.post(url, data=data, headers=headers, allow_redirects=False) as response:
                await response.read()
                return response.status

        yield post


async def _slices(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]
