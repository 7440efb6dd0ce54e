"""What goes over an open stream, and how long somebody waits for a job."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from uuid import UUID

from pydantic import BaseModel

from app.application.ports.events import EventFeed, EventLog, EventSubscription
from app.domain.errors import InvalidApiKey
from app.domain.events import Event
from app.domain.jobs import Job
from app.presentation.http.streams import PING, PING_SECONDS, OpenStream
from app.presentation.schemas.events import EventView

PAGE = 100
STATE = "generation.state"
# Ends at once, so that the caller knows that it is listened to; how soon to come again is said to browsers.
BEGINNING = b": listening\nretry: 2000\n\n"


def message(view: BaseModel, event: str, seq: int | None = None) -> bytes:
    place = "" if seq is None else f"id: {seq}\n"
    return f"{place}event: {event}\ndata: {view.model_dump_json(by_alias=True)}\n\n".encode()


def told(event: Event) -> bytes:
    return message(EventView.of(event), event.type, event.seq)


async def events_of_account(
    stream: OpenStream, log: EventLog, feed: EventFeed, after: int | None, types: Collection[str]
) -> AsyncGenerator[bytes]:
    """From `after` on, or from now on, until the stream is ended."""
    async with feed.follow(stream.account_id) as subscription:
        stream.ends(subscription)
        yield BEGINNING
        place = subscription.place if after is None else after
        subscription.has_missed = after is not None
        while not stream.is_ended:
            if subscription.has_missed:
                # From here on it holds again what comes, and the log has what came before.
                subscription.has_missed = False
                has_more = True
                while has_more and not stream.is_ended:
                    page = await log.page(stream.account_id, after=place, types=types, job_id=None, limit=PAGE)
                    for event in page.events:
                        yield told(event)
                    place, has_more = page.next_after, page.has_more
            found = await subscription.next(PING_SECONDS)
            later = [event for event in found if event.seq > place]
            for event in later:
                if not types or event.type in types:
                    yield told(event)
            if later:
                place = later[-1].seq
            elif not stream.is_ended and not subscription.has_missed:
                yield PING


async def events_of_job(
    stream: OpenStream,
    log: EventLog,
    feed: EventFeed,
    job_id: UUID,
    look: Callable[[], Awaitable[tuple[Job, BaseModel]]],
) -> AsyncGenerator[bytes]:
    """The job as it stands, then what happens to it, until its end. Raises what `look` raises."""
    async with feed.follow(stream.account_id, job_id) as subscription:
        stream.ends(subscription)
        yield BEGINNING
        job, view = await look()
        if job.is_final:
            ended = await log.page(stream.account_id, after=None, types=(), job_id=job_id, limit=PAGE)
            # With a place of its own, by which a browser that asks again is told that there is nothing more to come.
            yield message(view, STATE, ended.next_after)
            return
        yield message(view, STATE)
        while not (job.is_final or stream.is_ended):
            subscription.seen = job
            found = await subscription.next(PING_SECONDS)
            for event in found:
                yield told(event)
            if any(event.job is not None and event.job.is_final for event in found):
                break
            before = job.public_status
            job, view = await look()
            if found:
                continue
            yield PING if job.public_status == before else message(view, STATE)


async def wait_for_change(
    stream: OpenStream, subscription: EventSubscription, seconds: float, look: Callable[[], Awaitable[Job]]
) -> Job:
    """The job as it is at the next change of its status, or after so long. Raises what `look` raises, InvalidApiKey."""
    until = time.monotonic() + seconds
    job = await look()
    status = job.public_status
    while not job.is_final and job.public_status == status:
        left = until - time.monotonic()
        if left <= 0 or stream.is_ended:
            break
        subscription.seen = job
        await subscription.next(left)
        job = await look()
    if stream.is_locked_out:
        raise InvalidApiKey
    return job
