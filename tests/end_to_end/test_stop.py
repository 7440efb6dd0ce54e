"""One process is told to stop while it works; the next one goes on."""

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.application.execution.places import SHARE
from app.application.execution.steps import SUBMISSIONS
from app.serving import STOP_SECONDS_MAX
from tests.builders import connect
from tests.service_process import PROJECT_DIR, WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator

pytestmark = [pytest.mark.timeout(300), pytest.mark.alone]

DRAIN_SECONDS = 2.0
PRICE_TOKENS = 5
TOPUP_TOKENS = 5_000
TEXT_TO_IMAGE = "/generations/images/text-to-image"
# Far below the 10 s after which a dead process's queue items are taken over.
TAKE_UP_SECONDS_MAX = 3.0


class Stage:
    """One database, a simulator, and the settings with which processes come and go."""

    def __init__(self, directory: Path, database: str, simulator: str) -> None:
        self.database = database
        self.settings = {
            "DATABASE_URL": database,
            "FAL_KEY": "test:key",
            **WITHOUT_LIMITS,
            "FAL_QUEUE_URL": simulator,
            "FAL_JWKS_URL": f"{simulator}/.well-known/jwks.json",
            "DRAIN_SECONDS": str(DRAIN_SECONDS),
            "DATA_DIR": str(directory),
        }
        self.fal = httpx.Client(base_url=simulator, timeout=30, trust_env=False)
        self._directory = directory
        self._processes: list[ServiceProcess] = []
        self._users: list[User] = []

    def user(self, service: ServiceProcess) -> "User":
        self._users.append(User(service))
        return self._users[-1]

    def start(self, command: str = "serve", **settings: str) -> ServiceProcess:
        log = self._directory / f"{command}-{len(self._processes)}.log"
        process = ServiceProcess(log, self.settings | settings, command).start()
        self._processes.append(process)
        if command == "serve":
            process.wait_until_ready()
        else:
            self._until_working(process)
        return process

    @staticmethod
    def _until_working(worker: ServiceProcess) -> None:
        deadline = time.monotonic() + 60
        while "runner_started" not in worker.output():
            assert time.monotonic() < deadline, worker.output()
            time.sleep(0.02)

    def submits(self, word: str = "") -> Counter[str]:
        """How often each prompt with this word came to the simulator."""
        requests = self.fal.get("/_sim/requests").raise_for_status().json()["requests"]
        return Counter(request["input"]["prompt"] for request in requests if word in request["input"]["prompt"])

    def until_submitted(self, count: int, word: str = "", *, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.submits(word).total()) < count:
            assert time.monotonic() < deadline, f"{found} of {count} after {seconds} s"
            time.sleep(0.02)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        async def fetch() -> list[tuple[Any, ...]]:
            async with connect(self.database) as connection:
                return [tuple(row) for row in await connection.fetch(query)]

        return asyncio.run(fetch())

    def until_all_completed(self, *, seconds: float = 40) -> None:
        """Once each at fal, and the books are right."""
        deadline = time.monotonic() + seconds
        while (found := Counter(status for (status,) in self.rows("SELECT status FROM jobs"))).keys() != {"COMPLETED"}:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        prompts = [prompt for (prompt,) in self.rows("SELECT parameters ->> 'prompt' FROM jobs")]
        assert self.submits() == dict.fromkeys(prompts, 1)
        assert self.rows("SELECT * FROM ledger_violations") == []
        assert self.rows("SELECT * FROM ledger_entries WHERE kind = 'REFUND'") == []

    def close(self) -> None:
        for process in self._processes:
            if process.process.poll() is None:
                process.kill()
        for client in (self.fal, *(user.http for user in self._users)):
            client.close()


class User:
    """A user with tokens, as a client of one process."""

    def __init__(self, service: ServiceProcess) -> None:
        self.http = httpx.Client(base_url=service.url, timeout=20, trust_env=False)
        user = str(uuid4())
        self.http.post(
            "/webhook/topup",
            json={"external_user_id": user, "amount": TOPUP_TOKENS},
            headers={"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user},
        ).raise_for_status()
        answer = self.http.post("/auth", json={"external_user_id": user}).raise_for_status()
        self.http.headers["X-API-Key"] = answer.json()["api_key"]

    def start_jobs(self, prompts: list[str]) -> None:
        with ThreadPoolExecutor(10) as pool:
            for answer in pool.map(lambda prompt: self.http.post(TEXT_TO_IMAGE, json={"prompt": prompt}), prompts):
                assert answer.status_code == 202, answer.text


@pytest.fixture
def stage(database: str, tmp_path: Path) -> Iterator[Stage]:
    with running_simulator(queue_seconds=0.1, run_seconds_image=0.2) as simulator:
        stage = Stage(tmp_path, database, simulator)
        try:
            yield stage
        finally:
            stage.close()


def end(process: ServiceProcess, *numbers: signal.Signals) -> float:
    """How many seconds it took to end with success."""
    began = time.monotonic()
    for number in numbers or (signal.SIGTERM,):
        process.process.send_signal(number)
        # Two pending signals of one kind would be one.
        time.sleep(0.2)
    assert process.process.wait(STOP_SECONDS_MAX) == 0, process.output()
    return time.monotonic() - began


def test_while_it_drains_it_serves_says_that_it_is_not_ready_and_takes_no_step(stage: Stage) -> None:
    service = stage.start()
    user = stage.user(service)
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    while (ready := httpx.get(f"{service.url}/readyz", trust_env=False, timeout=60)).status_code == 200:
        assert time.monotonic() - began < 0.5

    answers = [user.http.get("/balance"), user.http.get("/balance")]
    user.start_jobs(["accepted while it drains"])
    answered_seconds = time.monotonic() - began
    exit_code = service.process.wait(STOP_SECONDS_MAX)
    stopped_seconds = time.monotonic() - began

    assert (ready.status_code, ready.json()["checks"]) == (
        503,
        [{"name": "process", "ok": False, "detail": "stopping"}],
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.headers["connection"] for answer in (ready, *answers)} == {"close"}
    assert answered_seconds < DRAIN_SECONDS <= stopped_seconds < DRAIN_SECONDS + 5
    assert exit_code == 0
    assert stage.submits().total() == 0
    stage.start()
    stage.until_all_completed(seconds=5)


def test_an_answer_keeps_the_connection_as_long_as_nobody_stops_the_process(stage: Stage) -> None:
    answer = stage.user(stage.start()).http.get("/balance")

    assert "connection" not in answer.headers


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_post_that_hangs_is_waited_for_and_its_id_stored(stage: Stage, command: str) -> None:
    """With two signals close together, which is what `make` makes of one that its process group gets."""
    service = stage.start(RUNNER="external" if command == "worker" else "embedded")
    working = service if command == "serve" else stage.start(command)
    stage.user(service).start_jobs(["[submit:hang:8]"])
    stage.until_submitted(1)

    seconds = end(working, signal.SIGTERM, signal.SIGTERM)

    assert 5 < seconds < STOP_SECONDS_MAX
    ((status, request_id),) = stage.rows("SELECT status, fal_request_id FROM jobs")
    assert status == "SUBMITTED"
    assert request_id is not None
    stage.start(command)
    stage.until_all_completed(seconds=10)


def test_the_next_process_goes_at_once_on_with_a_long_queue(stage: Stage) -> None:
    user = stage.user(stage.start(RUNNER="external"))
    # All of them are of one account, and these are its share of the places.
    at_once = SUBMISSIONS.provider_calls_max * SHARE // (SHARE + 1)
    user.start_jobs([f"job {number} [submit:hang:2]" for number in range(4 * at_once)])
    worker = stage.start("worker")
    stage.until_submitted(8)

    seconds = end(worker)

    assert seconds < 5
    submitted = stage.submits().total()
    assert submitted <= 2 * at_once, "it went on with the queue"
    assert stage.rows("SELECT count(*) FROM pgqueuer WHERE status = 'picked'") == [(0,)]
    stage.start("worker")
    stage.until_submitted(submitted + at_once, seconds=TAKE_UP_SECONDS_MAX)
    stage.until_all_completed()


def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(stage: Stage) -> None:
    """Without webhooks nobody could tell the end of the job whose submission is cut off."""
    port = str(ServiceProcess(Path("unused"), {}).port)
    hears = {"PORT": port, "PUBLIC_URL": f"http://127.0.0.1:{port}"}
    service = stage.start(**hears)
    prompts = ["[submit:hang:12]", *(f"at fal {number} [slow:3]" for number in range(10))]
    stage.user(service).start_jobs(prompts)
    stage.until_submitted(len(prompts))

    service.process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    was_waiting = service.process.poll() is None
    seconds = end(service)

    assert was_waiting
    assert seconds < 2
    assert "stop_forced" in service.output()
    stage.start(**hears)
    stage.until_all_completed()


def test_what_a_second_signal_cuts_off_is_taken_up_by_the_process_that_runs_already(stage: Stage) -> None:
    """Not only by the sweep of a new one."""
    user = stage.user(stage.start(RUNNER="external"))
    worker = stage.start("worker")
    prompts = [f"job {number} [submit:hang:25]" for number in range(4)]
    user.start_jobs(prompts)
    stage.until_submitted(len(prompts))
    stage.start("worker")

    worker.process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    assert end(worker) < 2

    items = stage.rows("SELECT count(*) FROM pgqueuer WHERE entrypoint = 'generation.submit'")
    assert items == [(len(prompts),)]
    assert stage.submits() == dict.fromkeys(prompts, 1)


HANGS = """
import asyncio, os, signal, time
from app import serving

serving.STOP_SECONDS_MAX = 1
async def hang():
    serving.handle_stop_signals(lambda: time.sleep(60), lambda: None)
    print("stopping", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)
asyncio.run(hang())
"""


def test_a_process_that_hangs_ends_itself() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGS], cwd=PROJECT_DIR, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            began = time.monotonic()
            output, _ = process.communicate(timeout=30)
            seconds = time.monotonic() - began
        finally:
            process.kill()

    assert first == "stopping\n"
    assert process.returncode == 1
    assert "stop_overdue" in output
    assert seconds < 10
