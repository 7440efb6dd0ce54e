"""Whoever begins to listen, or is told that something went wrong, finds in the log what it does not hear."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.domain.errors import DatabaseUnavailable
from app.domain.events import Event
from app.infrastructure.postgres import event_feed
from app.infrastructure.postgres.event_feed import PostgresEventFeed
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.events import complete
from tests.builders import Connection, Customer, event_log_of, open_account, until

SECONDS = 20.0


async def write(engine: AsyncEngine, sql: Connection, customer: Customer, *names: str) -> None:
    for name in names:
        await sql.execute("INSERT INTO event_inbox (account_id, type) VALUES ($1, $2)", customer.account_id, name)
    assert await EventSequencer(engine).move() == len(names)


class HeldUp:
    """Stands before what completes the events that were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_reached, self.goes_on = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        monkeypatch.setattr(event_feed, "complete", self)

    async def __call__(self, connection: AsyncConnection, rows: Sequence[Any]) -> Sequence[Event]:
        self.is_reached.set()
        await self.goes_on.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return await complete(connection, rows)


async def test_who_begins_to_listen_while_others_are_told_finds_it_in_the_log(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer, feed, held_up = await open_account(engine), PostgresEventFeed(engine), HeldUp(monkeypatch)

    async with feed.follow(customer.account_id) as first, asyncio.timeout(SECONDS):
        await write(engine, sql, customer, "told")
        await held_up.is_reached.wait()
        async with feed.follow(customer.account_id) as second:
            held_up.goes_on.set()
            (told,) = await first.next(SECONDS)
            await write(engine, sql, customer, "later")
            heard = [event.type for event in await second.next(SECONDS)]
            assert [event.type for event in await first.next(SECONDS)] == ["later"]

    page = await event_log_of(engine).page(customer.account_id, after=second.place, types=(), job_id=None, limit=9)
    assert told.seq <= second.place
    assert heard == [event.type for event in page.events] == ["later"]


async def test_who_listens_is_sent_to_the_log_where_it_could_not_be_told(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer, feed, held_up = await open_account(engine), PostgresEventFeed(engine), HeldUp(monkeypatch)
    held_up.error = DatabaseUnavailable()
    held_up.goes_on.set()

    async with feed.follow(customer.account_id) as subscription, asyncio.timeout(SECONDS):
        await write(engine, sql, customer, "missed")
        assert await subscription.next(SECONDS) == []
        assert subscription.has_missed
        subscription.has_missed = False
        await write(engine, sql, customer, "heard")
        assert [event.type for event in await subscription.next(SECONDS)] == ["heard"]


async def test_who_listens_again_later_hears_what_happens_then(engine: AsyncEngine, sql: Connection) -> None:
    customer, feed = await open_account(engine), PostgresEventFeed(engine)

    for number in range(3):
        async with feed.follow(customer.account_id) as subscription, asyncio.timeout(SECONDS):
            await write(engine, sql, customer, f"heard.{number}")
            assert [event.type for event in await subscription.next(SECONDS)] == [f"heard.{number}"]
        # The reader ends with its last listener; until it has, it may tell what happened a moment before.
        await until(lambda: asyncio.sleep(0, feed._task is None))
        await write(engine, sql, customer, f"unheard.{number}")


async def test_nobody_hears_of_another_account(engine: AsyncEngine, sql: Connection) -> None:
    customer, neighbour, feed = await open_account(engine), await open_account(engine), PostgresEventFeed(engine)

    async with feed.follow(customer.account_id) as own, feed.follow(neighbour.account_id) as other:
        await write(engine, sql, neighbour, "theirs")
        await write(engine, sql, customer, "ours")
        async with asyncio.timeout(SECONDS):
            assert [event.type for event in await own.next(SECONDS)] == ["ours"]
            assert [event.type for event in await other.next(SECONDS)] == ["theirs"]


async def test_a_listening_connection_that_dies_is_opened_anew(
    engine: AsyncEngine, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_feed, "LOOK_SECONDS", 60.0)
    monkeypatch.setattr(event_feed, "FAILED_SECONDS", 0.1)
    customer, feed = await open_account(engine), PostgresEventFeed(engine)
    listening = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"

    async with feed.follow(customer.account_id) as subscription, asyncio.timeout(2 * SECONDS):
        await until(lambda: sql.fetchval(listening))
        dead = await sql.fetchval(listening)
        await sql.execute("SELECT pg_terminate_backend($1)", dead)
        await until(lambda: sql.fetchval(f"{listening} AND pid <> {dead}"))
        await write(engine, sql, customer, "heard")
        assert [event.type for event in await subscription.next(SECONDS)] == ["heard"]
