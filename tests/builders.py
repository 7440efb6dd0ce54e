"""Accounts, jobs and connections as tests need them, made by the service's own operations."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from app.application.execution.steps import (
    CANCEL_ORPHANS,
    COPY_OUTPUTS,
    ERASE_FILE,
    ERASE_MEDIA,
    FOLLOW_JOB,
    FORGET_INPUT,
    SUBMIT_JOB,
    Step,
)
from app.application.execution.sweep import Sweep
from app.application.jobs import Wish
from app.application.keys import new_key
from app.application.ports.execution import Wait
from app.application.ports.provider import ProviderRequest
from app.bootstrap.steps import lost_steps
from app.domain.accounts import ALL_SCOPES, Account, Caller, Scope
from app.domain.budgets import Budget
from app.domain.jobs import JobStatus, NewJob, Outcome, WaitingFor
from app.domain.keys import digest_of, stored_form
from app.domain.kinds import GenerationKind
from app.domain.payments import PaymentEvent
from app.domain.pricing import PriceLine, Unit
from app.domain.terms import ResultShape, Terms
from app.infrastructure.catalogue.reading import read_catalogue
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.events import PostgresEventLog
from app.infrastructure.postgres.jobs.desk import PostgresJobDesk
from app.infrastructure.postgres.jobs.execution import PostgresJobExecution
from app.infrastructure.postgres.jobs.inputs import PostgresJobInputs
from app.infrastructure.postgres.jobs.records import PostgresJobRecords
from app.infrastructure.postgres.keys.issuing import PostgresKeys, add_secret
from app.infrastructure.postgres.payments import PostgresPayments
from app.infrastructure.postgres.restores import PostgresRestoredJobs
from app.infrastructure.postgres.tables import keys
from app.infrastructure.postgres.webhooks.upkeep import PostgresDeliveryUpkeep


class PostgresJobs(PostgresJobDesk, PostgresJobExecution, PostgresJobRecords):
    """All that the adapters of jobs do, in one object: tests lead a job through several hands."""

    def __init__(self, engine: AsyncEngine) -> None:
        PostgresJobDesk.__init__(self, engine)
        PostgresJobExecution.__init__(self, engine)
        PostgresJobRecords.__init__(self, engine)

    async def requeue_lost(self, job_id: UUID | None = None) -> Sequence[UUID]:
        requeued = await lost_steps(self.engine).requeue_lost(job_id)
        return [found for subject_ids in requeued.values() for found in subject_ids]


T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# The models that come with the service, and by type the one that makes what names no model.
BUILT_IN = read_catalogue()
MODEL_IDS: Mapping[GenerationKind, str] = {kind: BUILT_IN.default_of(kind).id for kind in GenerationKind}

COST_TOKENS = 5
EVENT_DAYS = 30
LINE = "text_to_image"
IMAGES_SHAPE = ResultShape(outputs="images", flags="has_nsfw_concepts")
VIDEO_SHAPE = ResultShape(outputs="video", flags="has_nsfw_concepts")
RESULT: Mapping[str, Any] = {"images": [{"url": "https://fal.media/files/picture.png"}]}
OUTCOMES: Mapping[JobStatus, Outcome] = {
    JobStatus.COMPLETED: Outcome.completed(RESULT),
    JobStatus.FAILED: Outcome.failed("refused", "The input was refused."),
    JobStatus.CANCELED: Outcome.canceled(),
}
# By the names that the queue knows them by.
STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (SUBMIT_JOB, FOLLOW_JOB, FORGET_INPUT, CANCEL_ORPHANS, COPY_OUTPUTS, ERASE_MEDIA, ERASE_FILE)
}
OWN_PAUSE = Wait(reason="no answer", waiting_for=WaitingFor.YOUR_LIMIT, is_providers=True)
TABLES = (
    "accounts",
    "keys",
    "api_keys",
    "key_windows",
    "payment_events",
    "refused_payments",
    "reversal_events",
    "adjustments",
    "jobs",
    "attempts",
    "outputs",
    "files",
    "ledger_entries",
    "pgqueuer",
)


# When a key was last used is written beside whatever is done with it.
CONTENTS = "SELECT (to_jsonb(row) - 'last_used_at')::text FROM {table} AS row ORDER BY 1"


@dataclass(frozen=True, slots=True)
class Customer:
    """An account from outside: who it belongs to, and the key that opens it."""

    account_id: UUID
    external_user_id: UUID
    api_key: str


def payment(
    external_user_id: UUID, amount: int, *, event_id: str | None = None, source: str = "webhook"
) -> PaymentEvent:
    return PaymentEvent(
        source=source,
        event_id=event_id or f"event-{uuid4()}",
        external_user_id=external_user_id,
        amount=amount,
    )


async def open_account(engine: AsyncEngine, balance_tokens: int = 0) -> Customer:
    """An account with a live key and, where it has a balance, one payment event for all of it."""
    external_user_id, api_key = uuid4(), new_key()
    assert await PostgresKeys(engine).add_first_key(external_user_id, stored_form(api_key))
    if balance_tokens:
        assert await PostgresPayments(engine).credit(payment(external_user_id, balance_tokens))
    account = await find_account(engine, api_key)
    return Customer(account.id, external_user_id, api_key)


async def find_account(engine: AsyncEngine, api_key: str) -> Account:
    return (await find_caller(engine, api_key)).account


async def find_caller(engine: AsyncEngine, api_key: str) -> Caller:
    caller = await PostgresKeys(engine).find_by_key(digest_of(api_key))
    assert caller is not None
    return caller


async def open_key(
    engine: AsyncEngine, customer: Customer, *, scopes: Iterable[Scope] = ALL_SCOPES, budget: Budget | None = None
) -> str:
    """A further key of the customer, which may do less than the first one."""
    secret, key_id = new_key(), uuid4()
    async with engine.begin() as connection:
        await connection.execute(
            insert(keys).values(
                id=key_id,
                account_id=customer.account_id,
                name="a further key",
                scopes=sorted(scopes),
                budget_tokens=None if budget is None else budget.tokens,
                budget_per=None if budget is None else budget.per,
            )
        )
        await add_secret(connection, key_id, customer.account_id, stored_form(secret), is_hidden=True)
    return secret


async def balance_of(engine: AsyncEngine, customer: Customer) -> int:
    return (await find_account(engine, customer.api_key)).balance_tokens


async def begin_minute_of_writes(sql: Connection, *, writes: int = 0) -> None:
    """Count the writes of all accounts in the next minute, which holds already: so no minute is over in a test."""
    next_minute = "date_trunc('minute', now()) + interval '1 minute'"
    await sql.execute(f"UPDATE accounts SET writes = $1, writes_minute = {next_minute}", writes)


def sweep_of(engine: AsyncEngine) -> Sweep:
    jobs = jobs_of(engine)
    return Sweep(
        lost_steps(engine),
        jobs,
        PostgresJobInputs(engine),
        PostgresRestoredJobs(engine, jobs),
        event_log_of(engine),
        PostgresDeliveryUpkeep(engine, EVENT_DAYS),
    )


def event_log_of(engine: AsyncEngine) -> PostgresEventLog:
    return PostgresEventLog(engine, days_kept=EVENT_DAYS)


def jobs_of(engine: AsyncEngine) -> PostgresJobs:
    return PostgresJobs(engine)


def terms_of(cost_tokens: int, outputs: int = 1) -> Terms:
    """One line for so many images, which cost the same each."""
    line = PriceLine(line=LINE, unit=Unit.IMAGE, unit_tokens=cost_tokens // outputs, quantity=outputs)
    return Terms(lines=(line,), shape=IMAGES_SHAPE, outputs_max=outputs)


def wish(parameters: Mapping[str, Any], kind: GenerationKind = GenerationKind.TEXT_TO_IMAGE) -> Wish:
    """For the default model of the kind."""
    return Wish(model=BUILT_IN.default_of(kind), parameters=parameters)


def new_job(
    customer: Customer,
    *,
    cost_tokens: int = COST_TOKENS,
    outputs: int = 1,
    time_limit_seconds: int = 1200,
    expected_seconds: int = 10,
) -> NewJob:
    kind = GenerationKind.TEXT_TO_IMAGE
    return NewJob(
        id=uuid7(),
        account_id=customer.account_id,
        kind=kind,
        model_id=MODEL_IDS[kind],
        parameters={"prompt": "a lighthouse at dawn"},
        cost_tokens=cost_tokens,
        outputs_requested=outputs,
        time_limit_seconds=time_limit_seconds,
        expected_seconds=expected_seconds,
        terms=terms_of(cost_tokens, outputs),
    )


def provider_request(request_id: str | None = None) -> ProviderRequest:
    request_id = request_id or str(uuid4())
    url = f"https://queue.fal.run/fal-ai/wan-25-preview/requests/{request_id}"
    return ProviderRequest(id=request_id, status_url=f"{url}/status", response_url=url, cancel_url=f"{url}/cancel")


def provider_wait(reason: str, *, seconds_max: int | None = None) -> Wait:
    """That of a job whose submission fal did not take."""
    return Wait(reason=reason, waiting_for=WaitingFor.PROVIDER, is_providers=True, seconds_max=seconds_max)


async def accept_job(engine: AsyncEngine, customer: Customer, *, cost_tokens: int = COST_TOKENS) -> UUID:
    return (await jobs_of(engine).accept(new_job(customer, cost_tokens=cost_tokens))).job.id


async def claimed_job(engine: AsyncEngine, customer: Customer) -> tuple[UUID, UUID]:
    """The id of a job that is SUBMITTING, and its attempt token."""
    job_id, attempt_token = await accept_job(engine, customer), uuid4()
    assert await jobs_of(engine).claim(job_id, attempt_token) is not None
    return job_id, attempt_token


async def job_in(engine: AsyncEngine, customer: Customer, status: JobStatus) -> UUID:
    """A job that went the usual way to `status`."""
    jobs = jobs_of(engine)
    if status is JobStatus.QUEUED:
        return await accept_job(engine, customer)
    job_id, attempt_token = await claimed_job(engine, customer)
    if status is not JobStatus.SUBMITTING:
        assert await jobs.record_submission(job_id, attempt_token, provider_request())
    if status in (JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS):
        assert await jobs.record_progress(job_id, status)
    if status.is_final:
        assert await jobs.settle(job_id, OUTCOMES[status])
    return job_id


@asynccontextmanager
async def connect(dsn: str) -> AsyncIterator[Connection]:
    """A connection past the service, for what its operations do not show or allow."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "test"})
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def database_copy(postgres_dsn: str, template: str) -> Iterator[str]:
    """The DSN of a database for tests that share one, because each of them leaves it as it was."""
    name = f"test_{uuid4().hex}"

    async def run(statement: str) -> None:
        async with connect(postgres_dsn) as connection:
            await connection.execute(statement)

    asyncio.run(run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    yield urlunsplit(urlsplit(postgres_dsn)._replace(path=f"/{name}"))
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


def run_with_engine(dsn: str, work: Callable[[AsyncEngine], Coroutine[None, None, T]]) -> T:
    """For fixtures that live longer than the event loop of one test."""

    async def run() -> T:
        async with open_engine(dsn) as engine:
            return await work(engine)

    return asyncio.run(run())


@asynccontextmanager
async def open_crowd(dsn: str, size: int) -> AsyncIterator[AsyncEngine]:
    """An engine whose connections are all open already, so that calls started together meet in the database."""
    async with open_engine(dsn, pool_size=size) as engine:
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(engine.connect()) for _ in range(size)))
        yield engine


async def contents(connection: Connection, *others: str) -> dict[str, list[str]]:
    """Every row of every table, and of the others, to see that nothing was written."""
    tables = (*TABLES, *others)
    return {table: [row[0] for row in await connection.fetch(CONTENTS.format(table=table))] for table in tables}


async def dump(connection: Connection) -> bytes:
    """Every table as PostgreSQL exports it."""
    exported = BytesIO()
    for table in TABLES:
        await connection.copy_from_table(table, output=exported)
    return exported.getvalue()


async def queue_items(connection: Connection) -> set[tuple[Step, UUID]]:
    """The step and the job of every item in the queue."""
    rows = await connection.fetch("SELECT entrypoint, payload FROM pgqueuer")
    items = [(STEPS[row["entrypoint"]], UUID(bytes=row["payload"])) for row in rows]
    assert len(items) == len(set(items)), "an item is there twice"
    return set(items)


async def until(condition: Callable[[], Awaitable[object]], *, seconds: float = 60) -> None:
    """Wait for what happens in the database or on another task; the limit is only there to fail."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the database sets no asyncio.Event
            await asyncio.sleep(0.02)


async def blocked(sql: Connection) -> None:
    """Until somebody waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    await until(lambda: sql.fetchval(query))
