"""The service is killed with -9 while it works; what it accepted still comes to the right end."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.infrastructure.postgres.database import open_engine
from app.infrastructure.postgres.ledger import PostgresLedger
from tests.service_process import WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator

JOBS = 60
USERS = 4
KILLS = 3
TOPUP_TOKENS = 10_000
PRICE_TOKENS = 5
# A job whose submission was cut off waits for this before it is refunded.
TIME_LIMIT_SECONDS = 20
SETTLED_SECONDS_MAX = 120
FINAL = {"COMPLETED", "FAILED", "CANCELED"}
HEADERS = {"X-Webhook-Secret": "development-webhook-secret"}

# What the prompt asks of the simulator, and how the job may end: a submission that the kill cut off fails.
OUTCOMES = {
    "": {"COMPLETED"},
    "[slow:4]": {"COMPLETED"},
    "[flaky:3]": {"COMPLETED"},
    "[submit:429x2]": {"COMPLETED"},
    "[fail]": {"FAILED"},
    "[fail:500]": {"FAILED"},
    "[no-error-field]": {"FAILED"},
    "[submit:422]": {"FAILED"},
    "[slow:6] cancel": {"CANCELED", "COMPLETED"},
}


@dataclass
class User:
    id: str
    key: str
    jobs: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def simulator() -> Iterator[str]:
    with running_simulator(queue_seconds=0.3, run_seconds_image=1.0) as url:
        yield url


@pytest.fixture
def service(database: str, simulator: str, tmp_path: Path) -> Iterator[ServiceProcess]:
    settings = {
        "DATABASE_URL": database,
        "FAL_KEY": "test:key",
        **WITHOUT_LIMITS,
        "FAL_QUEUE_URL": simulator,
        "IMAGE_TIME_LIMIT_SECONDS": str(TIME_LIMIT_SECONDS),
        "DATA_DIR": str(tmp_path),
    }
    with ServiceProcess(tmp_path / "service.log", settings) as process:
        yield process.wait_until_ready()


async def register(client: httpx.AsyncClient) -> User:
    user_id = str(uuid4())
    topup = {"external_user_id": user_id, "amount": TOPUP_TOKENS}
    (await client.post("/webhook/topup", json=topup, headers=HEADERS | {"X-Event-Id": user_id})).raise_for_status()
    key = (await client.post("/auth", json={"external_user_id": user_id})).raise_for_status().json()["api_key"]
    return User(user_id, key)


async def until_answered(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> httpx.Response:
    """The caller's view of a kill: no answer, so ask again."""
    for _ in range(400):
        try:
            return await client.request(method, path, **request)
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    raise AssertionError(f"{method} {path} was never answered")


async def start_jobs(client: httpx.AsyncClient, users: Sequence[User]) -> None:
    """Not repeated when it gets no answer: such a job may or may not have been accepted, and both are right."""
    words = [word for word in OUTCOMES for _ in range(JOBS // len(OUTCOMES) + 1)][:JOBS]
    random.shuffle(words)
    for number, word in enumerate(words):
        user = users[number % len(users)]
        body = {"prompt": f"job {number} {word}"}
        while True:
            try:
                answer = await client.post(
                    "/generations/images/text-to-image", json=body, headers={"X-API-Key": user.key}
                )
            except httpx.TransportError:
                await asyncio.sleep(0.2)
                body = {"prompt": f"job {number} again {uuid4()} {word}"}
                continue
            assert answer.status_code == 202, answer.text
            break
        user.jobs[answer.json()["job_id"]] = word
        if "cancel" in word:
            await until_answered(
                client, "POST", f"/generations/{answer.json()['job_id']}/cancel", headers={"X-API-Key": user.key}
            )
        await asyncio.sleep(random.uniform(0, 0.1))


async def kill_now_and_then(service: ServiceProcess) -> None:
    for _ in range(KILLS):
        await asyncio.sleep(random.uniform(1.0, 2.5))
        service.kill()
        service.start()
        await asyncio.to_thread(service.wait_until_ready)


async def all_jobs(client: httpx.AsyncClient, user: User) -> list[dict[str, Any]]:
    answer = await client.get("/generations", params={"limit": 100}, headers={"X-API-Key": user.key})
    return list(answer.raise_for_status().json()["items"])


async def until_settled(client: httpx.AsyncClient, users: Sequence[User]) -> None:
    async with asyncio.timeout(SETTLED_SECONDS_MAX):
        while True:
            jobs = [job for user in users for job in await all_jobs(client, user)]
            if all(job["status"] in FINAL for job in jobs):
                return
            await asyncio.sleep(0.5)


@pytest.mark.timeout(300)
async def test_sixty_jobs_end_rightly_when_the_service_is_killed_three_times(
    service: ServiceProcess, simulator: str, database: str
) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as client:
        users = [await register(client) for _ in range(USERS)]

        await asyncio.gather(start_jobs(client, users), kill_now_and_then(service))
        await until_settled(client, users)

        for user in users:
            jobs = {job["job_id"]: job for job in await all_jobs(client, user)}
            assert user.jobs.keys() <= jobs.keys(), "an accepted job is gone"
            for job_id, word in user.jobs.items():
                job = jobs[job_id]
                lost_submit = job["status"] == "FAILED" and job["error_code"] == "submit_unknown"
                assert job["status"] in OUTCOMES[word] or lost_submit, (word, job)
            charged = sum(job["cost_tokens"] for job in jobs.values() if job["status"] == "COMPLETED")
            balance = (await client.get("/balance", headers={"X-API-Key": user.key})).json()["balance_tokens"]
            assert balance == TOPUP_TOKENS - charged

    async with httpx.AsyncClient(base_url=simulator, trust_env=False, timeout=60) as fal:
        requests = (await fal.get("/_sim/requests")).json()["requests"]
    submits = Counter(request["input"]["prompt"] for request in requests)
    assert submits.total() >= JOBS * 0.8
    assert [prompt for prompt, count in submits.items() if count > 1] == []
    async with open_engine(database) as engine:
        assert list(await PostgresLedger(engine).violations()) == []
