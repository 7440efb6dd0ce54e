"""The service as it is wired for production, a fal that lies on demand, and everything that can be seen of both.

A test takes the steps of a job itself: what the queue would wait for has simply happened already.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import uvicorn
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application import cancel as cancellation
from app.application.execution import pauses, settlement
from app.application.execution.breaker import Breaker
from app.application.execution.follow import CANCEL_GRACE_SECONDS, UNANSWERED_GRACE_SECONDS
from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB, RetryLater, Step
from app.application.execution.submit import SubmitJob
from app.application.use_cases import CustomerUseCases
from app.bootstrap import Runtime, build
from app.domain.errors import JobFinished
from app.domain.jobs import Job, JobStatus
from app.domain.kinds import GenerationKind
from app.infrastructure.fal import client as fal_client
from app.infrastructure.fal.client import FalClient
from app.infrastructure.fal.exchange import HttpLimits
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.settings import Settings
from app.presentation.http.api import create_api
from tests.builders import BUILT_IN, COST_TOKENS, MODEL_IDS, Customer, balance_of, open_account, until, wish
from tests.fal_stub import FalStub, running_stub

FAL_KEY = "test-key-id:test-key-secret"
WEBHOOK_USER_ID = "simulator-user"
# Where a row is about slowness. Ordinary rows keep the limits of production.
SHORT_LIMITS = HttpLimits(read_seconds=0.3, submit_seconds=0.5, exchange_seconds=0.5)
DRIVE_SECONDS_MAX = 120.0
LOOKS_MAX = 45
EVENT_SECONDS_MAX = 60.0


@dataclass
class World:
    runtime: Runtime
    customers: CustomerUseCases
    engine: AsyncEngine
    sql: "asyncpg.Pool[asyncpg.Record]"
    breaker: Breaker
    url: str
    """Where the web application answers."""
    simulator: httpx.AsyncClient
    canary: FalStub
    customer: Customer
    balance_before: int = 0

    async def start_over(self, balance_tokens: int) -> None:
        """For the next row: a fal that has seen nothing, a customer of its own, and submissions that go on."""
        (await self.simulator.post("/_sim/reset")).raise_for_status()
        await self.configure(foreign_url=self.canary.url)
        self.customer, self.balance_before = await open_account(self.engine, balance_tokens), balance_tokens
        self.breaker.record_success(self.customer.account_id, MODEL_IDS[GenerationKind.TEXT_TO_IMAGE])

    async def accept(self, words: str, *, outputs: int = 1, customer: Customer | None = None) -> UUID:
        parameters = {"prompt": f"{uuid4()} {words}", "num_images": outputs}
        start = self.customers.jobs.start
        accepted = await start((customer or self.customer).account_id, wish(parameters))
        return accepted.job.id

    async def step(self, step: Step, job_id: UUID) -> float | None:
        """One step as the runner takes it; how long it wants to wait for the next, None where it wants none."""
        try:
            await self.runtime.runner._steps[step](job_id)
        except RetryLater as decision:
            return decision.delay_seconds
        return None

    async def submit(self, job_id: UUID) -> float | None:
        return await self.step(SUBMIT_JOB, job_id)

    async def look(self, job_id: UUID, times: int = 1) -> None:
        for _ in range(times):
            await self.step(FOLLOW_JOB, job_id)

    async def drive(self, job_id: UUID, *, until_status: frozenset[str] = frozenset()) -> str:
        """One step after the other, as the queue would but without its waits, until the end or as many looks."""
        looks = 0
        async with asyncio.timeout(DRIVE_SECONDS_MAX):
            while looks < LOOKS_MAX:
                row = await self.columns(job_id)
                status = str(row["status"])
                if status in until_status or row["is_final"]:
                    break
                is_unposted = status == "QUEUED" or (status == "SUBMITTING" and row["submit_unknown_at"] is None)
                wait_seconds = await self.step(SUBMIT_JOB if is_unposted else FOLLOW_JOB, job_id)
                looks += not is_unposted
                if is_unposted and wait_seconds:
                    await asyncio.sleep(min(wait_seconds, 0.02))
        return str((await self.columns(job_id))["status"])

    async def pass_the_deadline(self, job_id: UUID) -> None:
        await self.set_back(job_id, "deadline_at", 1)

    async def pass_the_grace(self, job_id: UUID, *, answered: bool) -> None:
        """That of fal after the time limit, which is longer where it does not answer; just before its end is no end."""
        grace_seconds = CANCEL_GRACE_SECONDS if answered else UNANSWERED_GRACE_SECONDS
        await self.set_back(job_id, "overdue_noticed_at", grace_seconds - 30)
        await self.look(job_id)
        assert not (await self.columns(job_id))["is_final"], "given up before the grace was over"
        await self.set_back(job_id, "overdue_noticed_at", grace_seconds + 1)
        await self.look(job_id)

    async def set_back(self, job_id: UUID, moment: str, seconds: float) -> None:
        """As if the moment had been so long ago."""
        await self.sql.execute(
            f"UPDATE jobs SET {moment} = clock_timestamp() - make_interval(secs => $2) WHERE id = $1", job_id, seconds
        )

    async def cancel(self, job_id: UUID) -> Job | None:
        """None: it was final already."""
        try:
            return (await self.customers.jobs.cancel(self.customer.account_id, job_id)).job
        except JobFinished:
            return None

    async def columns(self, job_id: UUID) -> dict[str, Any]:
        row = await self.sql.fetchrow("SELECT * FROM jobs WHERE id = $1", job_id)
        assert row is not None
        return dict(row)

    async def attempts(self, job_id: UUID) -> list[dict[str, Any]]:
        """The oldest first."""
        rows = await self.sql.fetch("SELECT * FROM attempts WHERE job_id = $1 ORDER BY number", job_id)
        return [dict(row) for row in rows]

    async def is_final(self, job_id: UUID) -> bool:
        return bool((await self.columns(job_id))["is_final"])

    async def until_final(self, job_id: UUID) -> None:
        """For what comes by itself, an event."""
        await until(lambda: self.is_final(job_id), seconds=EVENT_SECONDS_MAX)

    async def balance(self) -> int:
        return await balance_of(self.engine, self.customer)

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        """The status code of /readyz, and what it says of fal."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=60) as http:
            answer = await http.get("/readyz")
        return answer.status_code, next(check for check in answer.json()["checks"] if check["name"] == "fal")

    async def configure(self, **settings: Any) -> None:
        (await self.simulator.post("/_sim/config", json=settings)).raise_for_status()

    async def advance(self, seconds: float) -> None:
        (await self.simulator.post("/_sim/clock", json={"advance_seconds": seconds})).raise_for_status()

    async def posts_of(self, job_id: UUID) -> list[dict[str, Any]]:
        """Every POST of the job that fal saw, the oldest first; 200 where it was queued."""
        prompt = (await self.parameters(job_id))["prompt"]
        posts = (await self.simulator.get("/_sim/posts")).json()["posts"]
        return [post for post in reversed(posts) if post["prompt"] == prompt]

    async def parameters(self, job_id: UUID) -> dict[str, Any]:
        return dict((await self.runtime.operator.jobs.inspect(job_id))["parameters"])

    async def events_of(self, job_id: UUID) -> list[dict[str, Any]]:
        """The webhooks that fal has sent for the job's first request, the oldest first."""
        request_id = (await self.posts_of(job_id))[0]["request_id"]
        sent = (await self.simulator.get("/_sim/webhooks")).json()["webhooks"]
        return [event for event in reversed(sent) if event["request_id"] == request_id]

    async def until_event(self, job_id: UUID) -> int:
        """Wait for the first webhook of the job; what the service answered."""
        await until(lambda: self.events_of(job_id), seconds=EVENT_SECONDS_MAX)
        return int((await self.events_of(job_id))[0]["status_code"])


@contextmanager
def short_waits(pause_seconds: float | None) -> Iterator[None]:
    """The same code with shorter waits. `pause_seconds`: how long the breaker pauses; None: as in production."""
    changes: list[tuple[Any, str, float]] = [
        (settlement, "PERSIST_PAUSE_SECONDS", 0.01),
        (cancellation, "CANCEL_LOOK_SECONDS", 0.02),
        (cancellation, "CANCEL_WAIT_SECONDS", 0.3),
    ]
    if pause_seconds is not None:
        changes += [
            (pauses, "PAUSE_SECONDS_MIN", pause_seconds),
            (pauses, "PAUSE_SECONDS_MAX", pause_seconds),
            (fal_client, "OPERATOR_RETRY_SECONDS", pause_seconds),
        ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(customers: CustomerUseCases, listening: socket.socket) -> AsyncIterator[None]:
    """The web application of the same process, where fal's webhooks arrive."""
    api = create_api(BUILT_IN, version="1.2.3")
    api.state.use_cases = customers
    server = Server(uvicorn.Config(api, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listening]))

    async def has_started() -> bool:
        return server.started

    try:
        await until(has_started)
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def open_world(
    simulator_url: str,
    database: str,
    *,
    with_webhooks: bool = False,
    limits: HttpLimits | None = None,
) -> AsyncIterator[World]:
    """`limits`: shorter ones than production's, for rows that are about slowness."""
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        settings = Settings(  # type: ignore[call-arg]
            jobs_unfinished_max=0,
            writes_per_minute=0,
            _env_file=None,
            database_url=SecretStr(database),
            fal_key=SecretStr(FAL_KEY),
            fal_queue_url=simulator_url,
            fal_rest_url=simulator_url,
            fal_user_id=WEBHOOK_USER_ID,
            public_url=url if with_webhooks else None,
        )
        provider = None
        if limits is not None:
            opening = FalClient.open(queue_url=simulator_url, key=FAL_KEY, limits=limits)
            provider = await stack.enter_async_context(opening)
        runtime = await stack.enter_async_context(build(settings, provider=provider))
        customers = runtime.customers(BUILT_IN)
        await stack.enter_async_context(serving(customers, listening))
        engine = await stack.enter_async_context(open_engine(database))
        # Several jobs of a row are looked at together.
        sql = await stack.enter_async_context(asyncpg.create_pool(database, min_size=1, max_size=4))
        simulator = await stack.enter_async_context(
            httpx.AsyncClient(base_url=simulator_url, timeout=20, trust_env=False)
        )
        canary = await stack.enter_async_context(running_stub())
        submit = runtime.runner._steps[SUBMIT_JOB]
        assert isinstance(submit, SubmitJob)
        customer = await open_account(engine)
        yield World(runtime, customers, engine, sql, submit.breaker, url, simulator, canary, customer)


Script = Callable[[World, Sequence[UUID]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class End:
    """Where every job of a row has to stand in the end, to the token."""

    status: JobStatus
    error_code: str | None = None
    charged_tokens: int | None = None
    posts_seen: int | None = 1
    """None: the script has looked."""
    posts_accepted: int = 1
    has_late_result: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the fault matrix: what fal does, how the job goes on, and its exact end."""

    group: str
    name: str
    words: str
    script: Script
    end: End
    outputs: int = 1
    with_webhooks: bool = False
    pause_seconds: float | None = 0.02

    @property
    def id(self) -> str:
        return f"{self.group}: {self.name}"

    @property
    def limits(self) -> HttpLimits | None:
        return SHORT_LIMITS if any(word in self.words for word in (":hang", ":slow")) else None


async def check_end(world: World, row: Row, job_ids: Sequence[UUID]) -> None:
    end, charged_tokens = row.end, 0
    for job_id in job_ids:
        columns = await world.columns(job_id)
        cost_tokens = int(columns["cost_tokens"])
        assert cost_tokens == COST_TOKENS * row.outputs
        assert (columns["status"], columns["error_code"]) == (end.status.value, end.error_code), columns
        assert (columns["late_result"] is not None) is end.has_late_result, columns
        is_completed = end.status is JobStatus.COMPLETED
        assert (columns["result"] is not None) is is_completed, columns
        expected_charge = end.charged_tokens
        if expected_charge is None:
            expected_charge = 0 if end.status in (JobStatus.FAILED, JobStatus.CANCELED) else cost_tokens
        entries = await world.sql.fetch("SELECT kind, amount FROM ledger_entries WHERE job_id = $1", job_id)
        debits = [entry["amount"] for entry in entries if entry["kind"] == "DEBIT"]
        refunds = [entry["amount"] for entry in entries if entry["kind"] == "REFUND"]
        assert debits == [cost_tokens]
        assert len(refunds) <= 1
        assert cost_tokens - sum(refunds) == expected_charge
        assert not (sum(refunds) == cost_tokens and columns["result"] is not None), "refunded and delivered"
        charged_tokens += expected_charge
        posts = await world.posts_of(job_id)
        assert sum(post["status_code"] == 200 for post in posts) == end.posts_accepted, posts
        assert end.posts_seen is None or len(posts) == end.posts_seen, posts
    assert await world.balance() == world.balance_before - charged_tokens
    assert await world.runtime.operator.ledger.violations() == []
    assert (world.canary.connections, world.canary.seen) == (0, []), "something of ours went to a foreign host"


async def run_row(row: Row, world: World, jobs: int) -> None:
    """Raises AssertionError where a job ends otherwise than the row says."""
    with short_waits(row.pause_seconds):
        # One token more than all of them cost, so that a balance of 0 does not hide anything.
        await world.start_over(jobs * COST_TOKENS * row.outputs + 1)
        job_ids = [await world.accept(row.words, outputs=row.outputs) for _ in range(jobs)]
        await row.script(world, job_ids)
        await check_end(world, row, job_ids)
