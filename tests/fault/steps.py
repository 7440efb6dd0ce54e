"""The use cases in this process, on a real database and with fal's real events: what races and failing commits need."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx
from pydantic import SecretStr

from app.application.execution.steps import FOLLOW_JOB, SUBMIT_JOB
from app.application.use_cases import CustomerUseCases
from app.bootstrap import Runtime, build
from app.infrastructure.settings import load_settings
from app.presentation.http.api import create_api
from tests.builders import BUILT_IN, Customer, wish
from tests.fal_stub import FalStub, reply, running_stub

EVENT_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Event:
    attempt_token: UUID
    headers: Mapping[str, str]
    body: bytes
    path: str


@dataclass(frozen=True)
class Steps:
    runtime: Runtime
    use_cases: CustomerUseCases
    http: httpx.AsyncClient
    postbox: FalStub
    fal_url: str

    async def start(self, customer: Customer, prompt: str) -> UUID:
        asked_for = wish({"prompt": prompt, "num_images": 1})
        return (await self.use_cases.jobs.start(customer.account_id, asked_for)).job.id

    async def submit(self, job_id: UUID) -> None:
        await self.runtime.runner._steps[SUBMIT_JOB](job_id)

    async def follow(self, job_id: UUID) -> None:
        await self.runtime.runner._steps[FOLLOW_JOB](job_id)

    async def events(self, count: int) -> dict[UUID, Event]:
        """What fal delivered, by attempt token; it got its receipt, and nobody has looked at them yet."""
        async with asyncio.timeout(EVENT_SECONDS_MAX):
            while len(self.postbox.seen) < count:  # noqa: ASYNC110 - the stub sets no event for each
                await asyncio.sleep(0.02)
        found = [
            Event(UUID(seen.target.rpartition("/")[2]), seen.headers, seen.body, seen.target)
            for seen in self.postbox.seen
        ]
        return {event.attempt_token: event for event in found}


@asynccontextmanager
async def open_steps(database: str, simulator: str) -> AsyncIterator[Steps]:
    async with running_stub() as postbox:
        postbox.then(*[reply(200, {"ok": True})] * 20_000)
        settings = load_settings(
            jobs_unfinished_max=0,
            writes_per_minute=0,
            _env_file=None,
            database_url=SecretStr(database),
            fal_key=SecretStr("test:key"),
            fal_queue_url=simulator,
            fal_rest_url=simulator,
            public_url=postbox.url,
        )
        async with build(settings) as runtime:
            api = create_api(BUILT_IN, version="1.2.3")
            api.state.use_cases = use_cases = runtime.customers(BUILT_IN)
            transport = httpx.ASGITransport(api, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://tollgate", timeout=60) as http:
                yield Steps(runtime, use_cases, http, postbox, simulator)
