"""What a job that waits says over HTTP, and how its wait ends: PostgreSQL, the runner, and the simulator as fal."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.execution import pacing, pauses
from app.application.execution.breaker import OWN_FAILURES_MAX
from app.bootstrap import build
from app.domain.kinds import GenerationKind
from app.infrastructure.fal import client
from app.infrastructure.postgres import admission, heartbeats
from app.infrastructure.postgres.jobs import outlooks, paces
from app.infrastructure.settings import load_settings
from app.presentation.http.api import create_api
from tests.builders import BUILT_IN, COST_TOKENS, MODEL_IDS, Connection, Customer, balance_of, open_account, until
from tests.simulator_server import running_simulator

TEXT_TO_IMAGE = "/generations/images/text-to-image"
MODEL = MODEL_IDS[GenerationKind.TEXT_TO_IMAGE]
BALANCE_TOKENS = 1000
GOOD, LOCKED = "good:key", "locked:key"


@dataclass(frozen=True)
class Service:
    http: httpx.AsyncClient
    simulator: httpx.AsyncClient

    async def start(
        self, customer: Customer, words: str = "", *, key: str | None = None, path: str = TEXT_TO_IMAGE
    ) -> httpx.Response:
        headers = {"X-API-Key": customer.api_key} | ({} if key is None else {"Idempotency-Key": key})
        return await self.http.post(path, json={"prompt": f"{words} {key or uuid4()}"}, headers=headers)

    async def started(self, customer: Customer, words: str = "") -> UUID:
        answer = await self.start(customer, words)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["job_id"])

    async def job(self, customer: Customer, job_id: UUID) -> dict[str, Any]:
        answer = await self.http.get(f"/generations/{job_id}", headers={"X-API-Key": customer.api_key})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def listed(self, customer: Customer) -> list[dict[str, Any]]:
        answer = await self.http.get("/generations", headers={"X-API-Key": customer.api_key})
        return list(answer.json()["items"])

    def shows(self, customer: Customer, job_id: UUID, **expected: Any) -> Callable[[], Awaitable[bool]]:
        async def shows() -> bool:
            job = await self.job(customer, job_id)
            return {name: job[name] for name in expected} == expected

        return shows

    async def unlock(self) -> None:
        (await self.simulator.post("/_sim/config", json={"locked_key_ids": []})).raise_for_status()


@pytest.fixture
def fal_url() -> Iterator[str]:
    with running_simulator(queue_seconds=0.2, run_seconds_image=0.2) as url:
        yield url


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "PAUSE_SECONDS_MIN", 0.2)
    monkeypatch.setattr(pauses, "PAUSE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(client, "OPERATOR_RETRY_SECONDS", 0.2)
    monkeypatch.setattr(pacing, "BACKOFF_SECONDS_MAX", 0.2)
    monkeypatch.setattr(heartbeats, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(paces, "FLUSH_SECONDS", 0.1)
    monkeypatch.setattr(outlooks, "QUEUE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(outlooks, "PACES_SECONDS_MAX", 0.2)
    monkeypatch.setattr(admission, "SNAPSHOT_SECONDS_MAX", 0.2)


@asynccontextmanager
async def service(database: str, fal_url: str, key: str = GOOD, **settings: Any) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        configured = load_settings(
            _env_file=None,
            database_url=SecretStr(database),
            fal_key=SecretStr(f"{key}-id:secret" if ":" not in key else key),
            fal_queue_url=fal_url,
            **settings,
        )
        runtime = await stack.enter_async_context(build(configured))
        api = create_api(BUILT_IN, version="1.2.3")
        api.state.use_cases = runtime.customers(BUILT_IN)
        http = await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate")
        )
        simulator = await stack.enter_async_context(httpx.AsyncClient(base_url=fal_url, trust_env=False, timeout=60))
        await stack.enter_async_context(runtime.heartbeats.beating("serve"))
        runtime.runner.start()
        try:
            yield Service(http, simulator)
        finally:
            runtime.runner.begin_stop(at_once=True)
            await runtime.runner.stop()


async def test_a_job_without_a_place_waits_for_its_fair_share(
    engine: AsyncEngine, database: str, fal_url: str, sql: Connection
) -> None:
    customer = await open_account(engine, BALANCE_TOKENS)
    await sql.execute("INSERT INTO model_paces VALUES ($1, $2)", MODEL, [float(second) for second in range(1, 101)])

    async with service(database, fal_url, fal_concurrency=1) as tollgate:
        running = await tollgate.started(customer, "[slow:30]")
        await until(tollgate.shows(customer, running, status="IN_PROGRESS"))
        waiting = [await tollgate.started(customer) for _ in range(3)]

        for position, job_id in enumerate(waiting):
            await until(tollgate.shows(customer, job_id, waiting_for="fair_share", queue_position=position))
        first, second, third, runs = reversed(await tollgate.listed(customer))
    etas = [job["eta_seconds"] for job in (second, third, runs)]
    assert first["waiting_for"] is None
    assert first["queue_position"] is None
    assert 0 < first["eta_seconds"]["from"] < first["eta_seconds"]["to"] < 100
    assert etas == sorted(etas, key=lambda eta: eta["to"])
    assert all(0 < eta["from"] < eta["to"] for eta in etas)


async def test_a_job_in_fals_queue_waits_for_the_provider_at_fals_own_position(
    engine: AsyncEngine, database: str, fal_url: str
) -> None:
    customer = await open_account(engine, BALANCE_TOKENS)

    async with service(database, fal_url) as tollgate:
        job_id = await tollgate.started(customer, "[stuck]")

        await until(tollgate.shows(customer, job_id, status="IN_QUEUE", waiting_for="provider", queue_position=0))


async def test_a_job_that_fal_does_not_take_now_waits_for_the_provider(
    engine: AsyncEngine, database: str, fal_url: str
) -> None:
    customer = await open_account(engine, BALANCE_TOKENS)

    async with service(database, fal_url) as tollgate:
        job_id = await tollgate.started(customer, "[submit:429]")

        await until(tollgate.shows(customer, job_id, status="QUEUED", waiting_for="provider", eta_seconds=None))


async def test_a_job_of_an_account_that_fails_waits_for_its_own_limit(
    engine: AsyncEngine, database: str, fal_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer, other = await open_account(engine, BALANCE_TOKENS), await open_account(engine, BALANCE_TOKENS)
    monkeypatch.setattr(pauses, "PAUSE_SECONDS_MIN", 30.0)
    monkeypatch.setattr(pauses, "PAUSE_SECONDS_MAX", 30.0)

    async with service(database, fal_url) as tollgate:
        for _ in range(OWN_FAILURES_MAX):
            failed = await tollgate.started(customer, "[submit:500]")
            await until(tollgate.shows(customer, failed, waiting_for="provider"))
        await asyncio.sleep(0.5)
        job_id, others = await tollgate.started(customer), await tollgate.started(other)

        await until(tollgate.shows(customer, job_id, status="QUEUED", waiting_for="your_limit", eta_seconds=None))
        await until(tollgate.shows(other, others, status="COMPLETED", waiting_for=None, queue_position=None))


async def test_while_fal_is_locked_jobs_wait_new_ones_are_refused_and_all_go_on_afterwards(
    engine: AsyncEngine, database: str, fal_url: str, sql: Connection
) -> None:
    customers = [await open_account(engine, BALANCE_TOKENS) for _ in range(3)]

    async with service(database, fal_url, LOCKED, admit_while_locked_seconds=1) as tollgate:
        answers = [await tollgate.start(customer, key=str(uuid4())) for customer in customers]
        jobs = [(customer, UUID(answer.json()["job_id"])) for customer, answer in zip(customers, answers, strict=True)]
        for customer, job_id in jobs:
            await until(tollgate.shows(customer, job_id, status="QUEUED", waiting_for="provider_locked"))
        newest = customers[0]

        async def is_closed() -> bool:
            return (await tollgate.start(newest)).status_code == 503

        await until(is_closed)
        written = await sql.fetchval("SELECT count(*) FROM jobs")
        balance = await balance_of(engine, newest)
        refused = await tollgate.start(newest, key=str(uuid4()))
        of_another_model = await tollgate.start(newest, path="/generations/videos/text-to-video")
        # Nobody has been refused for that one.
        assert of_another_model.status_code == 202

        assert refused.status_code == 503
        assert refused.json()["code"] == "provider_unavailable"
        assert refused.headers["Retry-After"] == "60"
        assert await sql.fetchval("SELECT count(*) FROM jobs") == written + 1
        assert await balance_of(engine, newest) == balance - of_another_model.json()["cost_tokens"]

        await tollgate.unlock()
        for customer, job_id in jobs:
            await until(tollgate.shows(customer, job_id, status="COMPLETED", waiting_for=None))

        async def is_open() -> bool:
            return (await tollgate.start(newest)).status_code == 202

        await until(is_open)
    assert not await sql.fetchval("SELECT count(*) FROM ledger_violations")


async def test_a_repeat_is_answered_while_new_jobs_are_refused(
    engine: AsyncEngine, database: str, fal_url: str
) -> None:
    customers, key = [await open_account(engine, BALANCE_TOKENS) for _ in range(2)], str(uuid4())

    async with service(database, fal_url, LOCKED, admit_while_locked_seconds=0) as tollgate:
        first = await tollgate.start(customers[0], key=key)
        await tollgate.started(customers[1])

        async def is_closed() -> bool:
            return (await tollgate.start(customers[1])).status_code == 503

        await until(is_closed)
        again = await tollgate.start(customers[0], key=key)

    assert again.status_code == 202
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["job_id"] == first.json()["job_id"]


async def test_who_has_waited_for_fal_for_too_long_is_refunded(
    engine: AsyncEngine, database: str, fal_url: str, sql: Connection
) -> None:
    customers = [await open_account(engine, BALANCE_TOKENS) for _ in range(2)]

    async with service(database, fal_url, LOCKED, queue_time_limit_seconds=1) as tollgate:
        jobs = [(customer, await tollgate.started(customer)) for customer in customers for _ in range(3)]
        for customer, job_id in jobs:
            await until(tollgate.shows(customer, job_id, status="FAILED", error_code="queue_timeout"))
        job = await tollgate.job(*jobs[0])

    assert job["billing"]["refunded_tokens"] == COST_TOKENS
    assert [await balance_of(engine, customer) for customer in customers] == [BALANCE_TOKENS] * 2
    assert not await sql.fetchval("SELECT count(*) FROM ledger_violations")
    assert not await sql.fetchval("SELECT count(*) FROM jobs WHERE fal_request_id IS NOT NULL")


async def test_what_completes_tells_how_long_it_took(
    engine: AsyncEngine, database: str, fal_url: str, sql: Connection
) -> None:
    customer = await open_account(engine, BALANCE_TOKENS)

    async with service(database, fal_url) as tollgate:
        for _ in range(2):
            job_id = await tollgate.started(customer)
            await until(tollgate.shows(customer, job_id, status="COMPLETED", eta_seconds=None))
            failed = await tollgate.started(customer, "[fail:422]")
            await until(tollgate.shows(customer, failed, status="FAILED"))

        async def are_kept() -> bool:
            return bool(
                await sql.fetchval("SELECT cardinality(seconds) = 2 FROM model_paces WHERE model_id = $1", MODEL)
            )

        await until(are_kept)
    assert await sql.fetchval(
        "SELECT min(second) > 0.3 AND max(second) < 20 FROM model_paces, unnest(seconds) AS second"
    )
