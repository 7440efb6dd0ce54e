"""Streams and waits over real connections: nothing is missed and nothing comes twice, and they end when they must."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import UUID

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import Scope
from app.domain.errors import DatabaseUnavailable
from app.domain.events import Event
from app.domain.jobs import JobStatus, Outcome
from app.infrastructure.postgres.event_feed import Subscription
from app.infrastructure.postgres.payments import PostgresPayments
from app.presentation.http import event_streams
from tests.builders import (
    RESULT,
    Connection,
    Customer,
    accept_job,
    claimed_job,
    event_log_of,
    find_caller,
    job_in,
    jobs_of,
    open_account,
    open_key,
    payment,
    provider_request,
    until,
)
from tests.integration.streams_on_postgres import HANG_SECONDS, Served, open_served


@pytest.fixture
async def served(engine: AsyncEngine) -> AsyncIterator[Served]:
    async with open_served(engine) as served:
        yield served


async def everything(engine: AsyncEngine, customer: Customer) -> Sequence[Event]:
    page = await event_log_of(engine).page(customer.account_id, after=None, types=(), job_id=None, limit=100)
    return page.events


async def all_told(sql: Connection) -> None:
    await until(lambda: sql.fetchval("SELECT count(*) = 0 FROM event_inbox"))


async def pay(engine: AsyncEngine, customer: Customer, amount: int = 5) -> None:
    await PostgresPayments(engine).credit(payment(customer.external_user_id, amount))


async def test_a_stream_tells_what_happens_from_now_on(engine: AsyncEngine, served: Served, sql: Connection) -> None:
    customer, neighbour = await open_account(engine, 100), await open_account(engine)
    await all_told(sql)

    async with served.stream(customer.api_key) as messages:
        await pay(engine, neighbour)
        job_id = await accept_job(engine, customer)
        told = await messages.next()

    assert told["event"] == told["data"]["type"] == "generation.submitted"
    assert told["data"]["data"]["job_id"] == str(job_id)
    assert told["id"] == str(told["data"]["seq"])


async def test_a_stream_goes_on_where_another_one_ended(engine: AsyncEngine, served: Served) -> None:
    customer = await open_account(engine)
    seen = []
    after = "0"
    for number in range(1, 4):
        await pay(engine, customer, number)
        async with served.stream(customer.api_key, **{"Last-Event-ID": after}) as messages:
            seen.append(await messages.next())
            await pay(engine, customer, 10 * number)
            seen.append(await messages.next())
        after = seen[-1]["id"]

    assert [told["data"]["data"]["entry"]["amount"] for told in seen] == [1, 10, 2, 20, 3, 30]


async def test_a_reader_that_falls_behind_misses_nothing(
    engine: AsyncEngine, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.infrastructure.postgres.event_feed.HELD_MAX", 3)
    monkeypatch.setattr(event_streams, "PAGE", 2)
    customer = await open_account(engine)
    count = 60

    async with served.stream(customer.api_key) as messages:
        async with engine.connect() as connection:
            # All of them become visible at once.
            await connection.exec_driver_sql(
                "INSERT INTO event_inbox (account_id, type) SELECT id, 'number.' || number"
                f" FROM accounts, generate_series(1, {count}) AS number"
            )
            await connection.commit()
        seen = [await messages.next() for _ in range(count)]

    assert [told["event"] for told in seen] == [f"number.{number}" for number in range(1, count + 1)]


async def test_only_the_types_that_were_asked_for_come(engine: AsyncEngine, served: Served) -> None:
    customer = await open_account(engine, 100)

    async with served.stream(customer.api_key, "/events/stream?type=balance.credited&after=0") as messages:
        await accept_job(engine, customer)
        await pay(engine, customer, 7)
        seen = [await messages.next(), await messages.next()]

    assert [told["data"]["data"]["entry"]["amount"] for told in seen] == [100, 7]


async def test_a_job_is_followed_from_its_state_to_its_end(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    job_id, attempt = await claimed_job(engine, customer)
    await all_told(sql)
    path = f"/generations/{job_id}/stream"

    async with served.stream(customer.api_key, path) as messages:
        state = await messages.next()
        assert await jobs_of(engine).record_submission(job_id, attempt, provider_request())
        submitted = await messages.next()
        assert await jobs_of(engine).record_progress(job_id, JobStatus.IN_PROGRESS)
        started = await messages.next()
        assert await jobs_of(engine).settle(job_id, Outcome.completed(RESULT))
        ended = await messages.next()
        await messages.ends()

    assert (state["event"], state["data"]["status"]) == ("generation.state", "QUEUED")
    assert (submitted["event"], submitted["data"]["status"]) == ("generation.state", "SUBMITTED")
    assert (started["event"], started["data"]["data"]["status"]) == ("generation.started", "IN_PROGRESS")
    assert (ended["event"], ended["data"]["data"]["result"]) == ("generation.completed", RESULT)
    again = await served.http.get(path, headers={"X-API-Key": customer.api_key, "Last-Event-ID": ended["id"]})
    assert again.status_code == 204
    async with served.stream(customer.api_key, path, **{"Last-Event-ID": started["id"]}) as messages:
        late = await messages.next()
        await messages.ends()
    assert (late["event"], late["id"]) == ("generation.state", ended["id"])


async def test_a_wait_ends_with_the_next_change(
    engine: AsyncEngine, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await open_account(engine, 100)
    job_id, attempt = await claimed_job(engine, customer)
    has_looked = asyncio.Event()
    await_next = Subscription.next

    async def next_after_a_look(subscription: Subscription, seconds: float) -> Sequence[Event]:
        has_looked.set()
        return await await_next(subscription, seconds)

    monkeypatch.setattr(Subscription, "next", next_after_a_look)

    async def look(seconds: int) -> str:
        headers = {"X-API-Key": customer.api_key}
        answer = await served.http.get(f"/generations/{job_id}?wait={seconds}", headers=headers, timeout=20)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["status"])

    assert await look(1) == "QUEUED"

    async def submit() -> bool:
        return await jobs_of(engine).record_submission(job_id, attempt, provider_request())

    async def settle() -> bool:
        return await jobs_of(engine).settle(job_id, Outcome.completed(RESULT))

    steps: list[tuple[str, Callable[[], Awaitable[bool]]]] = [("SUBMITTED", submit), ("COMPLETED", settle)]
    for status, step in steps:
        has_looked.clear()
        looking = asyncio.create_task(look(30))
        # What changes before its first look is no change to it.
        async with asyncio.timeout(HANG_SECONDS):
            await has_looked.wait()
        assert await step()
        async with asyncio.timeout(HANG_SECONDS):
            assert await looking == status
    assert await look(30) == "COMPLETED"
    assert len(served.state.streams) == 0


@pytest.mark.parametrize("wait", ["0", "61", "-1", "1.5", "", "ten", "9" * 30])
async def test_a_wait_that_is_none_is_refused(engine: AsyncEngine, served: Served, wait: str) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)

    answer = await served.http.get(f"/generations/{job_id}?wait={wait}", headers={"X-API-Key": customer.api_key})

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "invalid_wait")


@pytest.mark.alone
@pytest.mark.parametrize("end", ["UPDATE api_keys SET revoked_at = now()", "UPDATE keys SET scopes = '{generate}'"])
async def test_streams_and_waits_end_with_their_key(
    engine: AsyncEngine, served: Served, sql: Connection, end: str
) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)
    key = await open_key(engine, customer, scopes=[Scope.READ])
    await all_told(sql)
    waiting = asyncio.create_task(
        served.http.get(f"/generations/{job_id}?wait=30", headers={"X-API-Key": key}, timeout=20)
    )

    async with served.stream(key) as all_events, served.stream(key, f"/generations/{job_id}/stream") as of_job:
        await of_job.next()
        await sql.execute(
            f"{end} WHERE {'key_id' if 'api_keys' in end else 'id'} = (SELECT id FROM keys WHERE NOT is_first)"
        )
        async with asyncio.timeout(3):
            await all_events.ends()
            await of_job.ends()
            assert (await waiting).status_code in (401, 403)
    await until(lambda: asyncio.sleep(0, len(served.state.streams) == 0))


@pytest.mark.alone
async def test_a_key_that_expires_ends_its_streams(engine: AsyncEngine, served: Served, sql: Connection) -> None:
    customer = await open_account(engine)
    key = await open_key(engine, customer)
    await sql.execute("UPDATE keys SET expires_at = now() + interval '1 second' WHERE NOT is_first")

    async with served.stream(key) as messages, asyncio.timeout(4):
        await messages.ends()


async def test_an_account_has_so_many_streams_and_no_more(engine: AsyncEngine, served: Served) -> None:
    customer, neighbour = await open_account(engine, 100), await open_account(engine)
    job_id = await accept_job(engine, customer)
    served.state.streams._of_account_max = 2
    paths = ("/events/stream", f"/generations/{job_id}/stream", f"/generations/{job_id}?wait=1")

    async with served.stream(customer.api_key), served.stream(customer.api_key):
        for path in paths:
            refused = await served.http.get(path, headers={"X-API-Key": customer.api_key})
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        async with served.stream(neighbour.api_key):
            pass
    await until(lambda: asyncio.sleep(0, len(served.state.streams) == 0))
    async with served.stream(customer.api_key):
        pass


async def test_streams_end_when_the_process_stops(engine: AsyncEngine, served: Served, sql: Connection) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)
    await all_told(sql)

    async with (
        served.stream(customer.api_key) as all_events,
        served.stream(customer.api_key, f"/generations/{job_id}/stream") as of_job,
    ):
        await of_job.next()
        served.state.streams.end_all()
        await all_events.ends()
        await of_job.ends()


async def test_somebody_elses_job_is_unknown(engine: AsyncEngine, served: Served) -> None:
    customer, other = await open_account(engine, 100), await open_account(engine)
    job_id: UUID = await accept_job(engine, customer)

    for path in (f"/generations/{job_id}/stream", f"/generations/{job_id}?wait=5", f"/events?job_id={job_id}"):
        answer = await served.http.get(path, headers={"X-API-Key": other.api_key})
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_a_database_that_goes_ends_no_stream_and_loses_nothing(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer = await open_account(engine)

    async with served.stream(customer.api_key) as messages:
        for number in range(1, 4):
            await sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await sql.execute(
                "INSERT INTO event_inbox (account_id, type) VALUES ($1, $2)", customer.account_id, f"number.{number}"
            )
            assert (await messages.next())["event"] == f"number.{number}"


async def test_who_hears_nothing_before_it_is_cut_off_goes_on_from_there(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    await all_told(sql)
    async with served.stream(customer.api_key) as messages:
        place = messages.place
    job_id = await accept_job(engine, customer)

    async with served.stream(customer.api_key, **{"Last-Event-ID": str(place)}) as messages:
        missed = await messages.next()

    assert missed["data"]["data"]["job_id"] == str(job_id)


async def test_a_stream_says_where_it_is_while_only_other_things_happen(
    engine: AsyncEngine, served: Served, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "PING_SECONDS", 0.2)
    customer = await open_account(engine, 100)
    await all_told(sql)

    async with served.stream(customer.api_key, "/events/stream?type=generation.failed") as messages:
        await accept_job(engine, customer)
        async with asyncio.timeout(HANG_SECONDS):
            while (place := await messages.next_place()) == messages.place:
                pass

    (submitted,) = [event for event in await everything(engine, customer) if event.type == "generation.submitted"]
    assert place == submitted.seq


async def test_the_end_of_a_job_is_told_as_an_event_however_soon_it_is_seen(
    engine: AsyncEngine, served: Served, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event comes seconds after the end can be seen."""
    monkeypatch.setattr(event_streams, "END_SECONDS_MAX", 60)
    customer = await open_account(engine, 100)
    job_id, _ = await claimed_job(engine, customer)
    await all_told(sql)
    path = f"/generations/{job_id}/stream"

    async with served.stream(customer.api_key, path) as messages:
        assert (await messages.next())["event"] == "generation.state"
        own = sql.transaction()
        await own.start()
        await sql.execute("SELECT * FROM event_log FOR UPDATE")
        assert await jobs_of(engine).settle(job_id, Outcome.completed(RESULT))
        async with served.stream(customer.api_key, path) as late:
            state = asyncio.create_task(late.next())
            await asyncio.sleep(2.5)
            await own.rollback()
            told = await messages.next()
            await messages.ends()
            assert told["event"] == "generation.completed"
            assert (await state)["id"] == told["id"]
            await late.ends()


async def test_a_job_that_is_no_longer_told_of_is_shown_and_left(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    job_id = await job_in(engine, customer, JobStatus.COMPLETED)
    await all_told(sql)
    await sql.execute("DELETE FROM events")
    path = f"/generations/{job_id}/stream"

    async with served.stream(customer.api_key, path) as messages:
        state = await messages.next()
        await messages.ends()

    assert state["data"]["status"] == "COMPLETED"
    again = await served.http.get(path, headers={"X-API-Key": customer.api_key, "Last-Event-ID": state["id"]})
    assert again.status_code == 204


async def test_a_wait_that_nobody_waits_for_any_more_ends(engine: AsyncEngine, served: Served) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)

    # Whoever cannot even connect in time has begun no wait.
    timeout = httpx.Timeout(HANG_SECONDS, read=0.5)
    with pytest.raises(httpx.ReadTimeout):
        await served.http.get(
            f"/generations/{job_id}?wait=60", headers={"X-API-Key": customer.api_key}, timeout=timeout
        )

    await until(lambda: asyncio.sleep(0, len(served.state.streams) == 0), seconds=HANG_SECONDS)


async def test_a_wait_asks_for_the_key_that_is_remembered_elsewhere(
    engine: AsyncEngine, served: Served, sql: Connection
) -> None:
    customer = await open_account(engine, 100)
    job_id = await job_in(engine, customer, JobStatus.COMPLETED)
    headers = {"X-API-Key": customer.api_key}
    assert (await served.http.get(f"/generations/{job_id}", headers=headers)).status_code == 200

    await sql.execute("UPDATE api_keys SET revoked_at = now()")

    assert (await served.http.get(f"/generations/{job_id}?wait=1", headers=headers)).status_code == 401


async def test_a_process_has_so_many_streams_and_who_has_most_gives_way(engine: AsyncEngine, served: Served) -> None:
    greedy, modest, late = [await open_account(engine) for _ in range(3)]
    served.state.streams.streams_max = 4

    async with (
        served.stream(greedy.api_key) as first,
        served.stream(greedy.api_key) as second,
        served.stream(greedy.api_key) as third,
        served.stream(modest.api_key) as fourth,
        served.stream(late.api_key) as fifth,
    ):
        ended = [asyncio.create_task(one.ends()) for one in (first, second, third)]
        done, left = await asyncio.wait(ended, timeout=HANG_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        refused = await served.http.get("/events/stream", headers={"X-API-Key": late.api_key})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        for task in left:
            task.cancel()
        for customer, stream in ((modest, fourth), (late, fifth)):
            await pay(engine, customer)
            assert (await stream.next())["event"] == "balance.credited"


async def test_without_a_database_a_stream_is_refused(
    engine: AsyncEngine, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await open_account(engine)

    async def fail(*_: object) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr("app.infrastructure.postgres.event_feed.PostgresEventFeed._find_place", fail)
    refused = await served.http.get("/events/stream", headers={"X-API-Key": customer.api_key})

    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert len(served.state.streams) == 0


@pytest.mark.parametrize("path", ["/events/stream", "/events/stream?after=0"])
async def test_the_head_of_a_stream_is_all_of_it(engine: AsyncEngine, served: Served, path: str) -> None:
    customer = await open_account(engine, 100)

    for _ in range(2):
        head = await served.http.head(path, headers={"X-API-Key": customer.api_key}, timeout=HANG_SECONDS)
        assert (head.status_code, head.headers["content-type"][:17]) == (200, "text/event-stream")

    await until(lambda: asyncio.sleep(0, len(served.state.streams) == 0), seconds=HANG_SECONDS)


async def test_a_process_whose_streams_all_end_already_refuses_another_one(engine: AsyncEngine, served: Served) -> None:
    """Their callers do not take what was sent, so they are not gone yet."""
    greedy, late = await open_account(engine), await open_account(engine)
    streams, caller = served.state.streams, await find_caller(engine, greedy.api_key)
    streams.streams_max = 3
    left = [streams.open(caller, greedy.api_key, served.state.use_cases.keys.authenticate) for _ in range(3)]
    for stream in left:
        stream.end()

    refused = await served.http.get("/events/stream", headers={"X-API-Key": late.api_key})

    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    for stream in left:
        stream.leave()
