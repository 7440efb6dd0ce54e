"""What it costs when all streams of a process that stops go on at another one, and that nobody else has to wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from app.infrastructure.postgres.database import POOL_SIZE
from app.infrastructure.postgres.event_feed import PostgresEventFeed
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.events import PostgresEventLog
from app.presentation.http.streams import LET_IN_AT_ONCE_MAX, REPLAYS_MAX
from tests.builders import Connection, Customer, accept_job, event_log_of, open_account, until
from tests.integration.api_on_postgres import TEXT_TO_IMAGE
from tests.integration.streams_on_postgres import Served, open_served

NOTE = "INSERT INTO event_inbox (account_id, type) VALUES ($1, $2)"
AGE = 40 * 24 * 60 * 60 * 1_000_000
RECONNECTS = 500
SECONDS = 30


@pytest.fixture
async def served(engine: AsyncEngine) -> AsyncIterator[Served]:
    async with open_served(engine) as served:
        yield served


@contextmanager
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    """Whatever is executed meanwhile, by SQLAlchemy and past it."""
    found: list[str] = []
    known: list[Any] = []

    def log(record: Any) -> None:
        # Those of SQLAlchemy are prepared, which the driver does not tell of. What a connection asks once in its life
        # about PostgreSQL's types is nobody's look at anything.
        if "pg_catalog.pg_type" not in record.query:
            found.append(record.query)

    def execute(*given: Any) -> None:
        found.append(given[2])

    def hear(connection: Any, *_: object) -> None:
        driver = connection.driver_connection
        if driver not in known:
            known.append(driver)
            driver.add_query_logger(log)

    event.listen(engine.sync_engine, "checkout", hear)
    event.listen(engine.sync_engine, "before_cursor_execute", execute)
    try:
        yield found
    finally:
        event.remove(engine.sync_engine, "checkout", hear)
        event.remove(engine.sync_engine, "before_cursor_execute", execute)
        for driver in known:
            driver.remove_query_logger(log)


async def told(engine: AsyncEngine, sql: Connection, customer: Customer, *names: str) -> int:
    """The place behind them in the log."""
    for name in names:
        await sql.execute(NOTE, customer.account_id, name)
    await until(lambda: sql.fetchval("SELECT count(*) = 0 FROM event_inbox"))
    place: int = await sql.fetchval("SELECT max(seq) FROM events WHERE account_id = $1", customer.account_id)
    return place


@pytest.mark.alone
async def test_who_has_missed_nothing_goes_on_by_one_look_at_the_log(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer, neighbour = await open_account(engine, 100), await open_account(engine)
    place = await told(engine, sql, customer, "told")

    with statements(engine) as executed:
        async with served.stream(neighbour.api_key):
            # What a process with streams does anyway, and the look at the caller's key.
            await served.http.get("/balance", headers={"X-API-Key": customer.api_key})
            await asyncio.sleep(1.5)
            usual = set(executed)
            executed.clear()
            async with served.stream(customer.api_key, **{"Last-Event-ID": str(place)}):
                alone = [statement for statement in executed if statement not in usual]
            executed.clear()
            async with AsyncExitStack() as stack:
                together = [
                    stack.enter_async_context(served.stream(customer.api_key, **{"Last-Event-ID": str(place)}))
                    for _ in range(20)
                ]
                await asyncio.gather(*together)
                shared = [statement for statement in executed if statement not in usual]

    assert len(alone) == 1, alone
    assert "forgotten_events" in alone[0]
    assert set(shared) == set(alone)
    assert len(shared) < 10


async def test_who_begins_to_listen_at_once_shares_the_search_for_a_place(engine: AsyncEngine) -> None:
    feed, goes_away = PostgresEventFeed(engine), asyncio.Event()
    places: list[int] = []

    async def follow(account_id: UUID) -> None:
        async with feed.follow(account_id) as subscription:
            places.append(subscription.place)
            await goes_away.wait()

    with statements(engine) as executed:
        following = [asyncio.create_task(follow(uuid4())) for _ in range(50)]
        await asyncio.sleep(0)
        # Whoever came first has begun the search.
        following[0].cancel()
        await until(lambda: asyncio.sleep(0, len(places) == len(following) - 1))
        goes_away.set()
        await asyncio.wait(following)

    assert len(set(places)) == 1
    assert len([statement for statement in executed if "event_log.last_seq" in statement]) == 1


class Reconnects:
    """Raw sockets, because a client would open its connections one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.statuses: Counter[str] = Counter()
        self._writers: list[asyncio.StreamWriter] = []

    async def __call__(self, customer: Customer, place: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.append(writer)
        key = customer.api_key
        writer.write(
            f"GET /events/stream HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\nLast-Event-ID: {place}\r\n\r\n".encode()
        )
        self.statuses[(await reader.readline()).split()[1].decode()] += 1
        await reader.readuntil(b"\n\n")

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


async def test_hundreds_go_on_at_once_while_others_are_served(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    """And there is always a connection left in the pool: whoever is served waits for none of them."""
    customers = [await open_account(engine, 1_000) for _ in range(10)]
    places = [await told(engine, sql, customer, "told") for customer in customers]
    busy = await open_account(engine, 1_000_000)
    job_id = await accept_job(engine, busy)
    pool = engine.pool
    assert isinstance(pool, AsyncAdaptedQueuePool)
    taken: list[int] = []
    event.listen(engine.sync_engine, "checkout", lambda *_: taken.append(pool.checkedout()))
    reconnects, is_over, answers = Reconnects(served.http.base_url.port or 0), asyncio.Event(), Counter[int]()

    async def serve() -> None:
        headers = {"X-API-Key": busy.api_key}
        while not is_over.is_set():
            accepted = await served.http.post(TEXT_TO_IMAGE, json={"prompt": "a"}, headers=headers, timeout=60)
            looked = await served.http.get(f"/generations/{job_id}", headers=headers, timeout=60)
            answers.update((accepted.status_code, looked.status_code))

    serving = [asyncio.create_task(serve()) for _ in range(2)]
    try:
        async with asyncio.timeout(120):
            await asyncio.gather(*(reconnects(customers[n % 10], places[n % 10]) for n in range(RECONNECTS)))
        assert len(served.state.streams) == RECONNECTS
    finally:
        is_over.set()
        await asyncio.gather(*serving)
        reconnects.close()

    assert reconnects.statuses == {"200": RECONNECTS}
    assert set(answers) == {200, 202}
    assert max(taken) < POOL_SIZE


async def test_who_has_missed_nothing_waits_for_nobody_who_catches_up(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer, late = await open_account(engine), await open_account(engine)
    place = await told(engine, sql, customer, "told")
    await told(engine, sql, late, "missed")

    async with AsyncExitStack() as turns:
        for _ in range(REPLAYS_MAX):
            await turns.enter_async_context(served.state.streams.replaying(uuid4()))
        async with (
            served.stream(customer.api_key, **{"Last-Event-ID": str(place)}) as messages,
            served.stream(late.api_key, "/events/stream?after=0") as behind,
        ):
            catching_up = asyncio.create_task(behind.next())
            await told(engine, sql, customer, "heard")
            assert (await messages.next())["event"] == "heard"
            assert not catching_up.done()
            await turns.aclose()
            assert (await catching_up)["event"] == "missed"


@pytest.mark.parametrize("path", ["/events/stream", "/generations/{job_id}/stream"])
async def test_so_many_are_let_in_at_a_time_and_others_come_between_them(
    engine: AsyncEngine, served: Served, path: str
) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)
    headers = {"X-API-Key": customer.api_key}

    async with AsyncExitStack() as turns:
        for _ in range(LET_IN_AT_ONCE_MAX):
            await turns.enter_async_context(served.state.streams.letting_in)
        opening = asyncio.create_task(served.http.head(path.format(job_id=job_id), headers=headers, timeout=SECONDS))
        accepted = await served.http.post(TEXT_TO_IMAGE, json={"prompt": "a"}, headers=headers)
        looked = await served.http.get(f"/generations/{job_id}", headers=headers)
        assert (accepted.status_code, looked.status_code, opening.done()) == (202, 200, False)
        await turns.aclose()
        assert (await opening).status_code == 200


@pytest.mark.parametrize("is_before", [True, False])
async def test_what_happens_around_the_look_at_the_log_comes_once(
    engine: AsyncEngine, served: Served, sql: Connection, monkeypatch: pytest.MonkeyPatch, *, is_before: bool
) -> None:
    """A stream listens already by then, and hears of it beside what it may find in the log."""
    customer = await open_account(engine)
    place = await told(engine, sql, customer, "told")
    look = PostgresEventLog.goes_on_after
    looked: list[bool] = []

    async def look_meanwhile(log: PostgresEventLog, account_id: UUID, after: int) -> bool:
        if is_before:
            await told(engine, sql, customer, "meanwhile")
        looked.append(await look(log, account_id, after))
        if not is_before:
            await told(engine, sql, customer, "meanwhile")
        await asyncio.sleep(0.2)
        return looked[-1]

    monkeypatch.setattr(PostgresEventLog, "goes_on_after", look_meanwhile)
    async with served.stream(customer.api_key, **{"Last-Event-ID": str(place)}) as messages:
        first = await messages.next()
        await told(engine, sql, customer, "later")
        second = await messages.next()

    assert looked == [is_before]
    assert [first["event"], second["event"]] == ["meanwhile", "later"]


async def forgetful(engine: AsyncEngine, sql: Connection, *names: str) -> tuple[Customer, Sequence[int]]:
    """An account of whose events half are forgotten, and the places of all."""
    customer = await open_account(engine)
    for name in names:
        await sql.execute(NOTE, customer.account_id, name)
        await EventSequencer(engine).move()
    seqs = [
        row[0]
        for row in await sql.fetch("SELECT seq FROM events WHERE account_id = $1 ORDER BY seq", customer.account_id)
    ]
    old = seqs[: len(seqs) // 2]
    await sql.execute("UPDATE events SET seq = seq - $1 WHERE seq = ANY($2)", AGE, old)
    return customer, [*(seq - AGE for seq in old), *seqs[len(old) :]]


async def test_the_look_says_of_each_place_what_the_page_says(engine: AsyncEngine, sql: Connection) -> None:
    """All places at once, in one query."""
    log, neighbour = event_log_of(engine), await open_account(engine)
    one, seqs = await forgetful(engine, sql, "a", "b", "c", "d", "e")
    other, others_seqs = await forgetful(engine, sql, "f", "g")
    await log.forget()
    places = sorted({0, 1, *(seq + step for seq in (*seqs, *others_seqs) for step in (-1, 0, 1))})
    wanted = [(who.account_id, place) for who in (one, other, neighbour) for place in places]

    async def by_page(account_id: UUID, place: int) -> object:
        page = await log.page(account_id, after=place, types=(), job_id=None, limit=1)
        return bool(page.events)

    found = await asyncio.gather(*(log.goes_on_after(*each) for each in wanted), return_exceptions=True)
    expected = [(await asyncio.gather(by_page(*each), return_exceptions=True))[0] for each in wanted]

    assert list(map(repr, found)) == list(map(repr, expected))
    assert len(set(map(repr, found))) == 3


async def test_a_stream_from_a_place_that_is_forgotten_is_refused_before_it_begins(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer, seqs = await forgetful(engine, sql, "a", "b", "c", "d")
    neighbour = await open_account(engine)
    await event_log_of(engine).forget()

    async def ask(who: Customer, place: int) -> int:
        request = served.http.build_request(
            "GET", "/events/stream", headers={"X-API-Key": who.api_key, "Last-Event-ID": str(place)}
        )
        answer = await served.http.send(request, stream=True)
        try:
            if answer.status_code == 410:
                await answer.aread()
                assert answer.json()["code"] == "events_forgotten"
            return answer.status_code
        finally:
            await answer.aclose()

    asked = [(customer, seqs[0]), (neighbour, seqs[0]), (customer, seqs[1]), (customer, 0), (customer, seqs[1] - 1)]
    statuses = await asyncio.gather(*(ask(*each) for each in asked))

    assert statuses == [410, 200, 200, 200, 410]
    await until(lambda: asyncio.sleep(0, len(served.state.streams) == 0), seconds=SECONDS)
