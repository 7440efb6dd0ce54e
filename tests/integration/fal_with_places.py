"""A fal that knows how many of our jobs it runs at once, and services in front of it."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine

from app.application.ports.provider import (
    InProgress,
    NotSubmitted,
    Observation,
    ProviderRequest,
    SubmitOutcomeUnknown,
    SubmitRefused,
)
from app.bootstrap import Runtime, build
from app.domain.jobs import Outcome
from app.domain.terms import ResultShape
from app.infrastructure.settings import load_settings
from tests.builders import OUTCOMES, Connection, jobs_of, provider_request, until

# How a job goes, by its prompt.
RUN, REFUSED, RELEASED, UNKNOWN, FAILED, CANCELED = "run", "refused", "released", "unknown", "failed", "canceled"


@dataclass
class CountingFal:
    """Ends each run by itself, as an event of fal would, and counts those that are there."""

    engine: AsyncEngine
    run_seconds: float
    spacing_seconds: float = 0
    """One run ends after the other in this rhythm, some before their time and some after it."""
    may_end: asyncio.Event | None = None
    """Where there is one, no run ends before it is set."""
    running: dict[UUID, float] = field(default_factory=dict)
    most: int = 0
    begun: list[tuple[UUID, float]] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    _seen: dict[UUID, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    _next_end: float = 0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def submit(
        self,
        model_id: str,
        parameters: Mapping[str, Any],
        *,
        webhook_url: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ProviderRequest:
        assert tags is not None
        job_id, how = UUID(tags["job"]), str(parameters["prompt"])
        now = asyncio.get_running_loop().time()
        self.begun.append((job_id, now))
        self._seen[job_id].set()
        if how == RELEASED and int(tags["attempt"]) == 1:
            raise NotSubmitted("busy", is_unreachable=False)
        if how == REFUSED:
            raise SubmitRefused("refused", "The input was refused.")
        if how == UNKNOWN:
            raise SubmitOutcomeUnknown("no answer")
        self.running[job_id] = now
        self.most = max(self.most, len(self.running))
        task = asyncio.create_task(self._run(job_id, how))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return provider_request()

    async def begun_at(self, job_id: UUID) -> float:
        """When it came, by the clock of the loop."""
        await self._seen[job_id].wait()
        return next(at for begun_id, at in self.begun if begun_id == job_id)

    async def _run(self, job_id: UUID, how: str) -> None:
        await asyncio.sleep(self._seconds())
        if self.may_end is not None:
            await self.may_end.wait()
        self.running.pop(job_id)
        self.ended.append(asyncio.get_running_loop().time())
        assert await jobs_of(self.engine).settle(job_id, _OUTCOMES.get(how, OUTCOMES_OF_RUN))

    def _seconds(self) -> float:
        if not self.spacing_seconds:
            return self.run_seconds
        now = asyncio.get_running_loop().time()
        self._next_end = max(now + self.run_seconds / 2, self._next_end + self.spacing_seconds)
        return self._next_end - now

    def input_digest(self, parameters: Mapping[str, Any]) -> bytes:
        return bytes(32)

    def request_of(self, model_id: str, request_id: str) -> ProviderRequest:
        return provider_request(request_id)

    async def observe(self, request: ProviderRequest, shape: ResultShape) -> Observation:
        return InProgress()

    async def cancel(self, request: ProviderRequest) -> None:
        pass


OUTCOMES_OF_RUN: Outcome = next(outcome for outcome in OUTCOMES.values() if outcome.result is not None)
_OUTCOMES: Mapping[str, Outcome] = {
    FAILED: Outcome.failed("refused", "The input was refused."),
    CANCELED: Outcome.canceled(),
}


@asynccontextmanager
async def service(database: str, fal: CountingFal, places: int) -> AsyncIterator[Runtime]:
    settings = load_settings(
        _env_file=None,
        database_url=SecretStr(database),
        fal_key=SecretStr("test:key"),
        fal_concurrency=places,
        public_url="http://127.0.0.1:1",
    )
    async with build(settings, provider=fal) as runtime:
        runtime.runner.start()
        try:
            yield runtime
        finally:
            await runtime.runner.stop()


@asynccontextmanager
async def services(database: str, fal: CountingFal, *places: int) -> AsyncIterator[Sequence[Runtime]]:
    """As many as there are bounds, each with a pool, a breaker and a runner of its own."""
    async with AsyncExitStack() as stack:
        runtimes = [await stack.enter_async_context(service(database, fal, bound)) for bound in places]
        for runtime in runtimes:
            await until(_is_working(runtime))
        yield runtimes


def _is_working(runtime: Runtime) -> Callable[[], Awaitable[bool]]:
    async def is_working() -> bool:
        return (await runtime.runner.check()).ok

    return is_working


async def taken_places(sql: Connection) -> int:
    taken: int = await sql.fetchval("SELECT count(*) FROM places WHERE job_id IS NOT NULL")
    return taken
