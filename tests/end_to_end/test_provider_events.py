"""fal's webhooks, good and bad, over HTTP from the simulator to a running service."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.builders import connect, database_copy
from tests.service_process import WITHOUT_LIMITS, ServiceProcess, free_port
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)

USER_ID = "simulator-user"
TEXT_TO_IMAGE = "/generations/images/text-to-image"
FINAL = {"COMPLETED", "FAILED", "CANCELED"}
TIME_LIMIT_SECONDS = 12
# Far beyond it: a run so long ends when a test sets the clock of the simulator.
RUN_SECONDS = 600
# Without an event the first look comes after five seconds.
BACKSTOP_SECONDS = 4.0
EVENT_SECONDS_MAX = 3.5


class World:
    def __init__(self, service: httpx.Client, fal: httpx.Client, database: str) -> None:
        self.service = service
        self.fal = fal
        self.database = database
        user_id = str(uuid4())
        secret = {"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user_id}
        service.post("/webhook/topup", json={"external_user_id": user_id, "amount": 1000}, headers=secret)
        key = service.post("/auth", json={"external_user_id": user_id}).json()["api_key"]
        self.headers = {"X-API-Key": key}

    def start(self, prompt: str) -> str:
        answer = self.service.post(TEXT_TO_IMAGE, json={"prompt": prompt}, headers=self.headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.service.get(f"/generations/{job_id}", headers=self.headers).json()
        return job

    def until_final(self, job_id: str, seconds_max: float = 60) -> tuple[dict[str, Any], float]:
        start = time.monotonic()
        while (job := self.job(job_id))["status"] not in FINAL:
            assert time.monotonic() - start < seconds_max, job
            time.sleep(0.05)
        return job, time.monotonic() - start

    def submits(self, prompt: str) -> int:
        requests = self.fal.get("/_sim/requests").json()["requests"]
        return sum(request["input"]["prompt"] == prompt for request in requests)

    def balance(self) -> int:
        return int(self.service.get("/balance", headers=self.headers).json()["balance_tokens"])


@pytest.fixture(scope="module")
def world(postgres_dsn: str, template_database: str) -> Iterator[World]:
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as directory,
        database_copy(postgres_dsn, template_database) as database,
        running_simulator(run_seconds_image=0.3) as simulator,
    ):
        settings = {
            "PORT": str(port),
            "DATABASE_URL": database,
            "DATA_DIR": directory,
            "FAL_KEY": "test:key",
            **WITHOUT_LIMITS,
            "FAL_QUEUE_URL": simulator,
            "FAL_REST_URL": simulator,
            "FAL_USER_ID": USER_ID,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "IMAGE_TIME_LIMIT_SECONDS": str(TIME_LIMIT_SECONDS),
        }
        with (
            ServiceProcess(Path(directory) / "service.log", settings) as service,
            httpx.Client(base_url=service.wait_until_ready().url, timeout=30, trust_env=False) as http,
            httpx.Client(base_url=simulator, timeout=30, trust_env=False) as fal,
        ):
            yield World(http, fal, database)


@pytest.mark.alone
@pytest.mark.parametrize("word", ["", "[webhook:duplicate:10]", "[webhook:early]", "[webhook:null]"])
def test_an_event_delivers_the_result_before_any_look_would(world: World, word: str) -> None:
    prompt = f"{uuid4()} {word}"
    before = world.balance()

    job, seconds = world.until_final(world.start(prompt))

    assert job["status"] == "COMPLETED", job
    assert seconds < EVENT_SECONDS_MAX
    assert before - world.balance() == 5
    assert world.submits(prompt) == 1


@pytest.mark.alone
def test_an_event_of_a_failure_refunds(world: World) -> None:
    before = world.balance()

    job, seconds = world.until_final(world.start(f"{uuid4()} [fail]"))

    assert (job["status"], job["error_code"]) == ("FAILED", "content_policy_violation")
    assert seconds < EVENT_SECONDS_MAX
    assert world.balance() == before


@pytest.mark.parametrize(
    "word",
    [
        "[webhook:never]",
        "[webhook:forged]",
        "[webhook:stale]",
        "[webhook:foreign-user]",
        "[webhook:wrong-request]",
        "[webhook:unknown-key]",
    ],
)
def test_what_is_no_event_of_ours_changes_nothing_and_a_look_finds_the_result(world: World, word: str) -> None:
    before = world.balance()

    job, seconds = world.until_final(world.start(f"{uuid4()} {word}"))

    assert job["status"] == "COMPLETED"
    assert seconds > BACKSTOP_SECONDS
    assert before - world.balance() == 5


def test_an_event_finds_the_job_whose_submission_was_never_answered(world: World) -> None:
    prompt = f"{uuid4()} [submit:drop]"
    before = world.balance()

    job, _ = world.until_final(world.start(prompt))

    assert job["status"] == "COMPLETED", job
    assert job["fal_request_id"]
    assert before - world.balance() == 5
    assert world.submits(prompt) == 1


async def test_a_result_that_comes_after_the_refund_is_kept_for_the_operator_and_not_charged(world: World) -> None:
    before = world.balance()

    job_id = world.start(f"{uuid4()} [submit:drop] [slow:{RUN_SECONDS}]")
    job, _ = world.until_final(job_id)
    world.fal.post("/_sim/clock", json={"advance_seconds": RUN_SECONDS}).raise_for_status()

    assert (job["status"], job["error_code"]) == ("FAILED", "submit_unknown")
    async with connect(world.database) as sql:
        for _ in range(400):
            late = await sql.fetchval("SELECT late_result FROM jobs WHERE id = $1", job_id)
            if late is not None:
                break
            await asyncio.sleep(0.1)
    assert late is not None
    assert world.job(job_id)["result"] is None
    assert world.balance() == before


@pytest.mark.parametrize("token", [pytest.param(str(uuid4()), id="unknown"), "nonsense", "%00"])
def test_refuses_unsigned_events_for_any_token(world: World, token: str) -> None:
    answer = world.service.post(f"/webhooks/fal/{token}", json={"request_id": "x", "status": "OK", "payload": {}})

    assert answer.status_code == 401
    assert answer.json()["code"] == "invalid_provider_event"
