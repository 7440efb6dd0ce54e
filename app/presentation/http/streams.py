"""Answers that stay open: how many there are, for how long their keys are good, and how they end."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from app.application.keys import Authenticate
from app.application.ports.events import EventSubscription
from app.domain.accounts import Caller
from app.domain.accounts import Scope as KeyScope
from app.domain.errors import DomainError, InvalidApiKey, Overloaded
from app.domain.limits import TooManyStreams
from app.presentation.http.api_keys import presented_key
from app.presentation.http.state import IS_HEAD, state_of

log = structlog.get_logger(__name__)

STREAMS_MAX = 100
# A key that was revoked, has expired or may no longer read ends its streams within a second.
LOOK_SECONDS = 0.4
# Looked at together. All at once would hold up everything else for as long as it takes to read thousands of rows.
LOOK_ACCOUNTS_MAX = 100
# Replays at once, of all accounts; of one account one at a time.
REPLAYS_MAX = 4
# Beyond some tens a shared query gains nothing, and whoever asks for something else waits at each step for all of them.
LET_IN_AT_ONCE_MAX = 32


class OpenStream:
    """One stream or wait. `end` may be called at any time, from outside; `leave` is called once, at the end."""

    def __init__(self, caller: Caller, presented: str | None, leave: Callable[["OpenStream"], None]) -> None:
        self.account_id = caller.account.id
        self.presented = presented
        self.version = caller.key.version
        self.ends_by_itself = caller.ends_by_itself
        self.is_ended = False
        self.is_locked_out = False
        self._leave = leave
        self._subscription: EventSubscription | None = None

    def ends(self, subscription: EventSubscription) -> None:
        """The subscription ends with the stream."""
        self._subscription = subscription
        if self.is_ended:
            subscription.end()

    def end(self) -> None:
        self.is_ended = True
        if self._subscription is not None:
            self._subscription.end()

    def leave(self) -> None:
        self._leave(self)

    async def end_with_the_caller(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()


class OpenStreams:
    """Of this process. While there are any, a task looks whether their keys are still good."""

    def __init__(self, of_account_max: int = STREAMS_MAX) -> None:
        """0: no limit."""
        self._of_account_max = of_account_max
        self._count = 0
        self._of_account: dict[UUID, set[OpenStream]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._is_stopping = False
        self.letting_in = asyncio.Semaphore(LET_IN_AT_ONCE_MAX)
        self._replays = asyncio.Semaphore(REPLAYS_MAX)
        # Those that somebody holds or waits for.
        self._replays_of_account: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self.streams_max: int | None = None
        """Of this process, set by whoever knows how many connections it may have. None: as many as come."""

    def __len__(self) -> int:
        return self._count

    def open(self, caller: Caller, presented: str | None, authenticate: Authenticate) -> OpenStream:
        """Raises TooManyStreams, Overloaded."""
        account_id = caller.account.id
        if self._of_account_max and self._count_of(account_id) >= self._of_account_max:
            raise TooManyStreams(self._of_account_max)
        if self.streams_max is not None and self._count >= self.streams_max:
            self._make_room(account_id)
        stream = OpenStream(caller, presented, self._forget)
        self._of_account.setdefault(account_id, set()).add(stream)
        self._count += 1
        if self._is_stopping:
            stream.end()
        elif self._watch is None:
            self._watch = asyncio.create_task(self._watch_keys(authenticate), name="keys of streams")
        return stream

    def _make_room(self, account_id: UUID) -> None:
        """End one of the account that has most: its caller goes on elsewhere, or later. Raises Overloaded."""
        most = max(self._of_account.values(), key=len)
        if len(most) <= self._count_of(account_id) + 1:
            raise Overloaded
        given_up = next((one for one in most if not one.is_ended), None)
        if given_up is None:
            # All of them end already, as fast as their callers let them.
            raise Overloaded
        given_up.end()
        given_up.leave()

    @asynccontextmanager
    async def replaying(self, account_id: UUID) -> AsyncIterator[None]:
        """What streams read of the log is counted by nobody, so they take turns."""
        async with self._replays_of_account.setdefault(account_id, asyncio.Lock()), self._replays:
            yield

    def end_all(self) -> None:
        """The process stops: whoever listens goes on with another one."""
        self._is_stopping = True
        for streams in self._of_account.values():
            for stream in streams:
                stream.end()
        if self._watch is not None:
            # No stream is left to look after, and the database goes away next.
            self._watch.cancel()

    def _count_of(self, account_id: UUID) -> int:
        return len(self._of_account.get(account_id, ()))

    def _forget(self, stream: OpenStream) -> None:
        """A second time nothing happens."""
        streams = self._of_account.get(stream.account_id, set())
        if stream not in streams:
            return
        streams.discard(stream)
        self._count -= 1
        if not streams:
            del self._of_account[stream.account_id]

    async def _watch_keys(self, authenticate: Authenticate) -> None:
        try:
            while self._count:
                await self._look_at_all(authenticate)
        finally:
            self._watch = None

    async def _look_at_all(self, authenticate: Authenticate) -> None:
        """Within LOOK_SECONDS, some accounts at a time; of more than that where the answers come late."""
        now_seconds = asyncio.get_running_loop().time
        account_ids, began_seconds, start = list(self._of_account), now_seconds(), 0
        while start < len(account_ids):
            end = start + LOOK_ACCOUNTS_MAX
            share = min(1.0, end / len(account_ids))
            await asyncio.sleep(began_seconds + share * LOOK_SECONDS - now_seconds())
            due = int(len(account_ids) * (now_seconds() - began_seconds) / LOOK_SECONDS)
            if due >= end + LOOK_ACCOUNTS_MAX:
                end = due
            try:
                await self._check_keys(account_ids[start:end], authenticate)
            except DomainError:
                # Without a database nothing new is told either.
                pass
            except Exception:
                log.exception("stream_check_failed")
            start = end

    async def _check_keys(self, account_ids: Sequence[UUID], authenticate: Authenticate) -> None:
        versions = await authenticate.versions(account_ids)
        doubtful: defaultdict[str | None, list[OpenStream]] = defaultdict(list)
        for account_id in account_ids:
            for stream in self._of_account.get(account_id, ()):
                if stream.ends_by_itself or versions.get(account_id) != stream.version:
                    doubtful[stream.presented].append(stream)
        # At once: the look-ups of secrets share their queries.
        checks = (_check_key(presented, streams, authenticate) for presented, streams in doubtful.items())
        await asyncio.gather(*checks)


async def _check_key(presented: str | None, streams: Sequence[OpenStream], authenticate: Authenticate) -> None:
    try:
        caller = await authenticate(presented)
    except InvalidApiKey:
        caller = None
    except DomainError:
        # Without a database nothing new is told either.
        return
    for stream in streams:
        if caller is None or KeyScope.READ not in caller.key.scopes:
            stream.is_locked_out = True
            stream.end()
        else:
            stream.version, stream.ends_by_itself = caller.key.version, caller.ends_by_itself


def open_stream(request: Request, caller: Caller) -> OpenStream:
    """Raises TooManyStreams."""
    state = state_of(request.scope)
    presented = presented_key(request.scope["headers"])
    return state.streams.open(caller, presented, state.use_cases.keys.authenticate)


class EventStream(Response):
    """Server-sent events, as the HTML standard has them, until the chunks end or the caller goes."""

    def __init__(self, stream: OpenStream, chunks: AsyncGenerator[bytes]) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._stream = stream
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(self._stream.end_with_the_caller(receive), name="caller of a stream")
        try:
            # What cannot be begun is answered like anything else that fails.
            chunk = await anext(self._chunks)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if IS_HEAD in scope:
                # Nobody hears anything, and the connection would never be free again.
                self._stream.end()
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            with suppress(DomainError):
                async for chunk in self._chunks:
                    if self._stream.is_ended:
                        # What was read already as well: its caller may go on from the place that it knows.
                        break
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            self._stream.leave()
            await self._chunks.aclose()
