"""The service in one event loop of its own, step by step: no runner, no time but the one that the test lets pass.

The API is called through ASGI; PostgreSQL and the fal simulator are real. A queue item is taken and given back as
the runner does it, so that a job without one is a lost job here too.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import asyncpg
import httpx
import structlog

from app.application.cancel import CancelJob
from app.application.execution.breaker import Breaker
from app.application.execution.copy_outputs import CopyOutputs
from app.application.execution.follow import FollowJob
from app.application.execution.hand_over import HandOverFiles
from app.application.execution.orphans import CancelOrphans
from app.application.execution.steps import CANCEL_ORPHANS, COPY_OUTPUTS, FOLLOW_JOB, SUBMIT_JOB, RetryLater, Step
from app.application.execution.submit import SubmitJob
from app.application.ports.ledger import Adjustments
from app.application.ports.media import ProviderMedia
from app.application.ports.provider import Provider, ProviderRequest
from app.bootstrap import build
from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.jobs.execution import PostgresJobExecution
from app.infrastructure.postgres.media.copies import PostgresOutputCopies
from app.infrastructure.postgres.media.deletion import PostgresMediaDeletion
from app.infrastructure.settings import load_settings
from app.presentation.http.api import create_api
from simulator.signing import SigningKey
from tests.builders import BUILT_IN, STEPS, TABLES, Connection
from tests.media import MEDIA_DAYS
from tests.simulator_server import running_simulator

T = TypeVar("T")

FAL_USER_ID = "simulator-user"
AUTHORIZATION = {"Authorization": "Key test:key"}
QUEUE_SECONDS, RUN_SECONDS = 10, 10

JOBS = """
SELECT id, status, attempts, attempt_token, fal_request_id, cost_tokens, refunded_tokens,
       md5(concat_ws('|', account_id, kind, model_id, parameters, cost_tokens, created_at)) AS identity,
       md5(concat_ws('|', status, refunded_tokens, result, error_code, error_message, fal_request_id)) AS ending
  FROM jobs
"""
BALANCES = "SELECT external_user_id, balance_tokens FROM accounts"
VIOLATIONS = """
SELECT invariant, subject FROM ledger_violations
UNION ALL SELECT 'a result and a full refund exclude each other', id::text FROM jobs
 WHERE result IS NOT NULL AND refunded_tokens >= cost_tokens
UNION ALL SELECT 'an idempotency key leads to a job of its own account', k.key FROM idempotency_keys k
  JOIN jobs j ON j.id = k.job_id WHERE j.account_id <> k.account_id
UNION ALL SELECT 'a job has one idempotency key at most', job_id::text FROM idempotency_keys
 GROUP BY job_id HAVING count(*) > 1
UNION ALL SELECT 'a key has one live secret at most', key_id::text FROM api_keys
 WHERE revoked_at IS NULL AND expires_at IS NULL GROUP BY key_id HAVING count(*) > 1
UNION ALL SELECT 'an unfinished job has a queue item that takes it on', j.id::text FROM jobs j
 WHERE NOT j.is_final AND NOT EXISTS (
       SELECT FROM pgqueuer q WHERE q.dedupe_key = j.id::text OR q.dedupe_key LIKE '%:' || j.id::text)
UNION ALL SELECT 'an orphan has a queue item that sees to it', j.token::text FROM attempts j
 WHERE orphaned_at IS NOT NULL AND closed_at IS NULL AND NOT EXISTS (
       SELECT FROM pgqueuer q WHERE q.dedupe_key = 'attempt.cancel:' || j.job_id)
UNION ALL SELECT 'every attempt has its row', j.id::text FROM jobs j
 WHERE j.attempts <> (SELECT count(*) FROM attempts a WHERE a.job_id = j.id)
UNION ALL SELECT 'no job follows an orphan', j.id::text FROM jobs j JOIN attempts a USING (fal_request_id)
 WHERE a.orphaned_at IS NOT NULL
UNION ALL SELECT 'a job follows the request of its attempt', j.id::text FROM jobs j
    JOIN attempts a ON a.token = j.attempt_token WHERE j.fal_request_id <> a.fal_request_id
UNION ALL SELECT 'a request at fal belongs to one job', fal_request_id FROM jobs
 WHERE fal_request_id IS NOT NULL GROUP BY fal_request_id HAVING count(*) > 1
UNION ALL SELECT 'what an account keeps is the sum of its files', a.id::text FROM accounts a
 WHERE files_bytes <> (SELECT coalesce(sum(size_bytes), 0) FROM files f
                        WHERE f.account_id = a.id AND deleted_at IS NULL AND origin <> 'output')
UNION ALL SELECT 'no job is claimed without the URLs of its files', j.id::text FROM jobs j
 WHERE attempts > 0 AND EXISTS (SELECT FROM files f WHERE f.id = ANY (j.file_ids) AND sent_url IS NULL)
UNION ALL SELECT 'what was never claimed was never sent', id::text FROM jobs
 WHERE attempts = 0 AND (fal_request_id IS NOT NULL OR attempt_token IS NOT NULL)
"""
AGE = """
UPDATE jobs SET claimed_at = claimed_at - $1::interval, deadline_at = deadline_at - $1::interval,
       cancel_sent_at = cancel_sent_at - $1::interval, overdue_noticed_at = overdue_noticed_at - $1::interval
 WHERE NOT is_final
"""


class ProcessDied(BaseException):
    """What `kill -9` is to the code that runs: nothing after it happens."""


@dataclass(frozen=True)
class DyingProvider:
    """Ends the process in the middle of a submission, before the POST or after fal took it."""

    provider: Provider
    is_posted: bool

    async def submit(
        self,
        model_id: str,
        parameters: Mapping[str, Any],
        *,
        webhook_url: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ProviderRequest:
        if self.is_posted:
            await self.provider.submit(model_id, parameters, webhook_url=webhook_url, tags=tags)
        raise ProcessDied

    def __getattr__(self, name: str) -> Any:
        return getattr(self.provider, name)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = time.time()

    def __call__(self) -> float:
        return self.seconds


@dataclass
class World:
    loop: asyncio.AbstractEventLoop
    http: httpx.AsyncClient
    fal: httpx.AsyncClient
    sql: Connection
    follow: FollowJob
    fal_key: SigningKey
    clock: Clock
    submit: SubmitJob
    hand_over: HandOverFiles
    cancel_orphans: CancelOrphans
    copy_outputs: CopyOutputs
    adjustments: Adjustments

    def start_over(self) -> None:
        """As after a migration: no rows, and no request at fal."""
        self.submit = self._submitter(self.submit.provider, Breaker(self.clock))
        # The tables refuse it otherwise, as they should.
        empty = "".join(f"DELETE FROM {table};" for table in (*TABLES, "idempotency_keys", "pgqueuer_log"))
        self.run(
            self.sql.execute(f"SET session_replication_role = replica; {empty} SET session_replication_role = DEFAULT")
        )
        self.run(self.fal.post("/_sim/reset"))
        self.run(self.fal.post("/_sim/clock", json={"is_held": True}))

    def _submitter(self, provider: Provider, breaker: Breaker) -> SubmitJob:
        return SubmitJob(self.submit.jobs, provider, breaker, hand_over=self.hand_over)

    def let_fal_work(self, seconds: int) -> None:
        self.run(self.fal.post("/_sim/clock", json={"advance_seconds": seconds}))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def call(self, method: str, path: str, api_key: str | None = None, **request: Any) -> httpx.Response:
        headers = request.pop("headers", {}) | ({} if api_key is None else {"X-API-Key": api_key})
        answer = self.run(self.http.request(method, path, headers=headers, **request))
        assert answer.status_code < 500, f"{method} {path}: {answer.text}"
        return answer

    def rows(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return self.run(self.sql.fetch(query, *arguments))

    def queue_items(self) -> list[tuple[Step, UUID]]:
        rows = self.rows("SELECT entrypoint, payload FROM pgqueuer ORDER BY id")
        return [(STEPS[row["entrypoint"]], UUID(bytes=row["payload"])) for row in rows]

    def run_step(self, step: Step, job_id: UUID) -> None:
        """Like the runner: an item is done with when its step returns, and comes back when that asks for it."""
        works: Mapping[Step, Callable[[UUID], Coroutine[Any, Any, None]]] = {
            SUBMIT_JOB: self.submit,
            FOLLOW_JOB: self.follow,
            CANCEL_ORPHANS: self.cancel_orphans,
            COPY_OUTPUTS: self.copy_outputs,
        }
        # In the runner, too, another process may have put the same item back meanwhile: the one that ran is gone.
        item = self.rows("SELECT id FROM pgqueuer WHERE entrypoint = $1 AND payload = $2", step.name, job_id.bytes)
        try:
            self.run(works[step](job_id))
        except RetryLater:
            return
        if item:
            self.rows("DELETE FROM pgqueuer WHERE id = $1", item[0]["id"])

    def die_while_submitting(self, job_id: UUID, *, is_posted: bool) -> bool:
        """False: the step did not come to the POST."""
        provider = cast(Provider, DyingProvider(self.submit.provider, is_posted))
        dying = self._submitter(provider, self.submit.breaker)
        try:
            self.run(dying(job_id))
        except ProcessDied:
            return True
        except RetryLater:
            pass
        return False

    def fal_requests(self) -> list[dict[str, Any]]:
        return list(self.run(self.fal.get("/_sim/requests")).json()["requests"])

    def token_of(self, job_id: UUID, request: Mapping[str, Any]) -> UUID | None:
        """Of the attempt that the request is tagged with. None: the process died before it was known."""
        number = int(request["attempt"]["tags"]["attempt"])
        rows = self.rows("SELECT token FROM attempts WHERE job_id = $1 AND number = $2", job_id, number)
        return rows[0]["token"] if rows else None

    def event_of(self, request: Mapping[str, Any]) -> bytes | None:
        """What fal's webhook says of a request; None while it runs."""
        app = "/".join(request["endpoint_id"].split("/")[:2])
        result = self.run(self.fal.get(f"/{app}/requests/{request['request_id']}", headers=AUTHORIZATION))
        if result.status_code == 400:
            return None
        status = {"status": "OK"} if result.status_code == 200 else {"status": "ERROR", "error": "failed"}
        return json.dumps({"request_id": request["request_id"], "payload": result.json(), **status}).encode()

    def deliver(
        self, attempt_token: UUID, request_id: str, body: bytes, *, signed: bytes | None = None, age_seconds: int = 0
    ) -> httpx.Response:
        timestamp = str(int(time.time()) - age_seconds)
        signature = self.fal_key.signature(request_id, FAL_USER_ID, timestamp, body if signed is None else signed)
        headers = {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": FAL_USER_ID,
            "X-Fal-Webhook-Timestamp": timestamp,
            "X-Fal-Webhook-Signature": signature,
        }
        return self.call("POST", f"/webhooks/fal/{attempt_token}", content=body, headers=headers)

    def let_time_pass(self, seconds: int) -> None:
        self.clock.seconds += seconds
        self.run(self.sql.execute(AGE.replace("$1", f"'{seconds} seconds'")))


@contextmanager
def open_world(database: str, directory: Path) -> Iterator[World]:
    with (
        # Thousands of lines a second about what a failing example prints anyhow.
        _quiet_logging(),
        asyncio.Runner() as runner,
        running_simulator(
            state_dir=directory,
            queue_seconds=QUEUE_SECONDS,
            run_seconds_image=RUN_SECONDS,
            run_seconds_video=RUN_SECONDS,
            result_seconds_kept=10**6,
            large_result_seconds_kept=10**6,
        ) as simulator,
    ):
        loop = runner.get_loop()
        opened = _connected(loop, database, simulator, directory)
        world = runner.run(opened.__aenter__())
        try:
            yield world
        finally:
            runner.run(opened.__aexit__(None, None, None))


@contextmanager
def _quiet_logging() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        yield
    finally:
        structlog.configure(**before)


class OneLook(CancelJob):
    """Asks fal once, and does not wait for what only time would bring."""

    async def _look(self, job_id: UUID) -> None:
        try:
            await self._follow(job_id)
        except RetryLater as error:
            raise TimeoutError from error


@asynccontextmanager
async def _connected(
    loop: asyncio.AbstractEventLoop, database: str, simulator: str, directory: Path
) -> AsyncIterator[World]:
    settings = load_settings(
        jobs_unfinished_max=0,
        writes_per_minute=0,
        _env_file=None,
        database_url=database,
        data_dir=directory,
        fal_key="test:key",
        fal_queue_url=simulator,
        fal_rest_url=simulator,
        fal_user_id=FAL_USER_ID,
    )
    async with build(settings) as runtime, open_engine(database) as engine:
        api = create_api(BUILT_IN, version="1.2.3", allow_private_media_urls=True)
        customers = runtime.customers(BUILT_IN)
        cancel = customers.jobs.cancel
        follow = cancel._follow
        hand_over = cast(SubmitJob, runtime.runner._steps[SUBMIT_JOB])._hand_over
        assert hand_over is not None
        api.state.use_cases = replace(customers, jobs=replace(customers.jobs, cancel=OneLook(cancel._jobs, follow)))
        connection = await asyncpg.connect(database)
        clock = Clock()
        async with (
            httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://tollgate") as http,
            httpx.AsyncClient(base_url=simulator, trust_env=False, timeout=60) as fal,
        ):
            yield World(
                loop=loop,
                http=http,
                fal=fal,
                sql=connection,
                follow=follow,
                fal_key=SigningKey.kept_in(directory / "webhook-key.pem"),
                clock=clock,
                submit=SubmitJob(PostgresJobExecution(engine), follow.provider, Breaker(clock), hand_over=hand_over),
                hand_over=hand_over,
                cancel_orphans=CancelOrphans(PostgresJobExecution(engine), follow.provider),
                # Without a store: what fal made stays there.
                copy_outputs=CopyOutputs(
                    PostgresOutputCopies(engine, MEDIA_DAYS),
                    PostgresMediaDeletion(engine),
                    cast(ProviderMedia, None),
                    None,
                ),
                adjustments=runtime.operator.adjustments,
            )
        await connection.close()
