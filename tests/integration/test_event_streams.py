"""Streams and waits over real connections: nothing is missed and nothing comes twice, and they end when they must."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
import uvicorn
from sqlalchemy.ext.asyncio import AsyncEngine

from app.domain.accounts import Scope
from app.domain.jobs import JobStatus, Outcome
from app.infrastructure.postgres.event_sequencer import EventSequencer
from app.infrastructure.postgres.payments import PostgresPayments
from app.presentation.http import event_streams
from app.presentation.http.protocol import HttpProtocol
from app.presentation.http.state import ApiState
from tests.builders import (
    RESULT,
    Connection,
    Customer,
    accept_job,
    claimed_job,
    jobs_of,
    open_account,
    open_key,
    payment,
    provider_request,
    until,
)
from tests.integration.api_on_postgres import api_of
from tests.service_process import free_port


class Served:
    def __init__(self, http: httpx.AsyncClient, state: ApiState) -> None:
        self.http = http
        self.state = state

    @asynccontextmanager
    async def stream(self, key: str, path: str = "/events/stream", **headers: str) -> AsyncIterator["Messages"]:
        async with self.http.stream("GET", path, headers={"X-API-Key": key, **headers}) as answer:
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-accel-buffering"] == "no"
            messages = Messages(answer)
            await messages.begun()
            yield messages


class Messages:
    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def begun(self) -> None:
        assert await anext(self._lines) == ": listening"
        assert await anext(self._lines) == "retry: 2000"

    async def next(self) -> dict[str, Any]:
        """The next message that is no comment; empty where the stream has ended."""
        found: dict[str, Any] = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                if not line and found:
                    return {**found, "data": json.loads(found["data"])}
                name, _, value = line.partition(": ")
                if name:
                    found[name] = value
        return {}

    async def ends(self) -> None:
        assert await self.next() == {}


@pytest.fixture
async def served(engine: AsyncEngine) -> AsyncIterator[Served]:
    api, port = api_of(engine), free_port()
    config = uvicorn.Config(api, port=port, lifespan="off", log_config=None, http=HttpProtocol, ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server.serve())
    await until(lambda: asyncio.sleep(0, server.started))
    async with EventSequencer(engine).working(), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        yield Served(http, cast(ApiState, api.state))
        api.state.streams.end_all()
        server.should_exit = True
        await running


async def pay(engine: AsyncEngine, customer: Customer, amount: int = 5) -> None:
    await PostgresPayments(engine).credit(payment(customer.external_user_id, amount))


async def test_a_stream_tells_what_happens_from_now_on(engine: AsyncEngine, served: Served) -> None:
    customer, neighbour = await open_account(engine, 100), await open_account(engine)

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


async def test_a_job_is_followed_from_its_state_to_its_end(engine: AsyncEngine, served: Served) -> None:
    customer = await open_account(engine, 100)
    job_id, attempt = await claimed_job(engine, customer)
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


async def test_a_wait_ends_with_the_next_change(engine: AsyncEngine, served: Served) -> None:
    customer = await open_account(engine, 100)
    job_id, attempt = await claimed_job(engine, customer)

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
        looking = asyncio.create_task(look(30))
        await until(lambda: asyncio.sleep(0, len(served.state.streams)))
        assert await step()
        async with asyncio.timeout(10):
            assert await looking == status
    assert await look(30) == "COMPLETED"
    assert len(served.state.streams) == 0


@pytest.mark.parametrize("wait", ["0", "61", "-1", "1.5", "", "ten", "9" * 30])
async def test_a_wait_that_is_none_is_refused(engine: AsyncEngine, served: Served, wait: str) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)

    answer = await served.http.get(f"/generations/{job_id}?wait={wait}", headers={"X-API-Key": customer.api_key})

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "invalid_wait")


@pytest.mark.parametrize("end", ["UPDATE api_keys SET revoked_at = now()", "UPDATE keys SET scopes = '{generate}'"])
async def test_streams_and_waits_end_with_their_key(
    engine: AsyncEngine, served: Served, sql: Connection, end: str
) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)
    key = await open_key(engine, customer, scopes=[Scope.READ])
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


async def test_streams_end_when_the_process_stops(engine: AsyncEngine, served: Served) -> None:
    customer = await open_account(engine, 100)
    job_id = await accept_job(engine, customer)

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
