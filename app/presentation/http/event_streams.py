"""What goes over an open stream, and how long somebody waits for a job."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from uuid import UUID

from pydantic import BaseModel

from app.application.ports.events import EventFeed, EventLog, EventSubscription
from app.domain.errors import InvalidApiKey
from app.domain.events import Event, EventPage
from app.domain.jobs import Job
from app.presentation.http.streams import OpenStream, OpenStreams
from app.presentation.schemas.events import EventView
from app.presentation.schemas.outputs import LinkTo

PAGE = 100
PING_SECONDS = 15.0
STATE = "generation.state"
# An end is in the log some milliseconds after it can be seen, and at most so much later.
END_SECONDS_MAX = 5


def message(view: BaseModel, event: str, seq: int | None = None) -> bytes:
    place = "" if seq is None else f"id: {seq}\n"
    return f"{place}event: {event}\ndata: {view.model_dump_json(by_alias=True)}\n\n".encode()


def told(event: Event, link_to: LinkTo) -> bytes:
    return message(EventView.of(event, link_to), event.type, event.seq)


def listening(place: int) -> bytes:
    """No message, but the place from which a caller goes on who hears nothing else before it is cut off."""
    return f": listening\nretry: 2000\nid: {place}\n\n".encode()


async def events_of_account(
    stream: OpenStream,
    streams: OpenStreams,
    log: EventLog,
    feed: EventFeed,
    *,
    after: int | None,
    types: Collection[str],
    link_to: LinkTo,
) -> AsyncGenerator[bytes]:
    """From `after` on, or from now on, until the stream is ended.

    Raises EventsForgotten before the first chunk where some of them are not kept any more.
    """
    async with feed.follow(stream.account_id) as subscription:
        stream.ends(subscription)
        place = subscription.place if after is None else after
        # Before the first word, so that a place which is forgotten can still be refused. Whatever comes after this look
        # is heard, so whoever has nothing to catch up with waits for no turn to read the log.
        if after is not None and await log.goes_on_after(stream.account_id, after):
            subscription.has_missed = True
        yield listening(place)
        said_at_seconds = time.monotonic()
        while not stream.is_ended:
            if subscription.has_missed:
                # From here on it holds again what comes, and the log has what came before.
                subscription.has_missed = False
                has_more = True
                while has_more and not stream.is_ended:
                    async with streams.replaying(stream.account_id):
                        page = await log.page(stream.account_id, after=place, types=types, job_id=None, limit=PAGE)
                    for event in page.events:
                        yield told(event, link_to)
                    place, has_more = page.next_after, page.has_more
            left_seconds = said_at_seconds + PING_SECONDS - time.monotonic()
            found = [event for event in await subscription.next(max(0.0, left_seconds)) if event.seq > place]
            wanted = [event for event in found if not types or event.type in types]
            for event in wanted:
                yield told(event, link_to)
            if found:
                place = found[-1].seq
            if wanted:
                said_at_seconds = time.monotonic()
            elif time.monotonic() >= said_at_seconds + PING_SECONDS and not stream.is_ended:
                yield listening(place)
                said_at_seconds = time.monotonic()


class JobStream:
    """One job from its state to its end."""

    def __init__(
        self,
        stream: OpenStream,
        streams: OpenStreams,
        log: EventLog,
        feed: EventFeed,
        *,
        job_id: UUID,
        look: Callable[[], Awaitable[tuple[Job, BaseModel]]],
        link_to: LinkTo,
    ) -> None:
        self._stream = stream
        self._streams = streams
        self._log = log
        self._feed = feed
        self._job_id = job_id
        self._look = look
        self._link_to = link_to

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Raises what `look` raises."""
        stream = self._stream
        async with self._feed.follow(stream.account_id, self._job_id) as subscription:
            stream.ends(subscription)
            place = subscription.place
            yield listening(place)
            job, view = await self._look()
            if job.is_final:
                # With the place of the end, by which a browser that asks again is told that nothing more comes.
                yield message(view, STATE, await self._place_of_end(subscription))
                return
            yield message(view, STATE)
            while not stream.is_ended:
                subscription.seen = job
                found = [event for event in await subscription.next(PING_SECONDS) if event.seq > place]
                if subscription.has_missed:
                    subscription.has_missed = False
                    found = list((await self._page(place)).events)
                for event in found:
                    yield told(event, self._link_to)
                    place = event.seq
                if any(_is_end(event) for event in found):
                    return
                if found or stream.is_ended:
                    continue
                before = job.public_status
                job, view = await self._look()
                # An end is told as an event, which is on its way.
                is_news = job.public_status != before and not job.is_final
                yield message(view, STATE) if is_news else listening(place)

    async def _page(self, after: int | None) -> EventPage:
        account_id = self._stream.account_id
        async with self._streams.replaying(account_id):
            return await self._log.page(account_id, after=after, types=(), job_id=self._job_id, limit=PAGE)

    async def _place_of_end(self, subscription: EventSubscription) -> int:
        until = time.monotonic() + END_SECONDS_MAX
        while True:
            page = await self._page(None)
            # Also where the events of the job are forgotten, or the job is older than the log.
            is_told = not page.events or any(map(_is_end, page.events))
            if is_told or self._stream.is_ended or time.monotonic() >= until:
                return page.next_after
            await subscription.next(1)


def _is_end(event: Event) -> bool:
    return event.job is not None and event.job.is_final


async def wait_for_change(
    stream: OpenStream, subscription: EventSubscription, seconds: float, look: Callable[[], Awaitable[Job]]
) -> Job:
    """The job as it is at the next change of its status, or after so long. Raises what `look` raises, InvalidApiKey."""
    until = time.monotonic() + seconds
    job = await look()
    status = job.public_status
    while not job.is_final and job.public_status == status:
        left_seconds = until - time.monotonic()
        if left_seconds <= 0 or stream.is_ended:
            break
        subscription.seen = job
        await subscription.next(left_seconds)
        # Whatever was missed, the job tells it.
        subscription.has_missed = False
        job = await look()
    if stream.is_locked_out:
        raise InvalidApiKey
    return job
