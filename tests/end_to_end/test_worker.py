"""`serve` with RUNNER=external only accepts; `worker` processes do the work, and may come and go."""

import os
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

from tests.builders import database_copy
from tests.service_process import PROJECT_DIR, WITHOUT_LIMITS, ServiceProcess
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)

JOBS = 100
PRICE_TOKENS = 5
STARTED = "runner_started"


class Fleet:
    """One API that does not work on jobs, a simulator, and as many workers as a test asks for."""

    def __init__(self, directory: Path, database: str, simulator: str) -> None:
        self.settings = {
            "DATABASE_URL": database,
            "FAL_KEY": "test:key",
            **WITHOUT_LIMITS,
            "FAL_QUEUE_URL": simulator,
            "DATA_DIR": str(directory),
        }
        self.api = ServiceProcess(directory / "api.log", {**self.settings, "RUNNER": "external"})
        self.http = httpx.Client(base_url=self.api.url, timeout=30, trust_env=False)
        self.fal = httpx.Client(base_url=simulator, timeout=30, trust_env=False)
        self.workers: list[ServiceProcess] = []
        self._directory = directory

    def run_workers(self, count: int) -> list[ServiceProcess]:
        """Exactly this many, ready to work."""
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        while len(self.workers) > count:
            self.workers.pop().stop()
        while len(self.workers) < count:
            log = self._directory / f"worker-{uuid4()}.log"
            self.workers.append(ServiceProcess(log, self.settings, "worker").start())
        deadline = time.monotonic() + 120
        while not all(STARTED in worker.output() for worker in self.workers):
            assert time.monotonic() < deadline, [worker.output() for worker in self.workers]
            time.sleep(0.05)
        return self.workers

    def register(self, tokens: int) -> str:
        user = str(uuid4())
        self.http.post(
            "/webhook/topup",
            json={"external_user_id": user, "amount": tokens},
            headers={"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user},
        ).raise_for_status()
        answer = self.http.post("/auth", json={"external_user_id": user}).raise_for_status()
        return str(answer.json()["api_key"])

    def start_jobs(self, key: str, prompts: list[str]) -> None:
        def start(prompt: str) -> None:
            body, headers = {"prompt": prompt}, {"X-API-Key": key}
            answer = self.http.post("/generations/images/text-to-image", json=body, headers=headers)
            assert answer.status_code == 202, answer.text

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(start, prompts))

    def jobs(self, key: str) -> list[dict[str, Any]]:
        answer = self.http.get("/generations", params={"limit": 100}, headers={"X-API-Key": key})
        return list(answer.raise_for_status().json()["items"])

    def until_all(self, key: str, status: str) -> None:
        deadline = time.monotonic() + 120
        while (found := Counter(job["status"] for job in self.jobs(key))).keys() != {status}:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def balance(self, key: str) -> int:
        answer = self.http.get("/balance", headers={"X-API-Key": key}).raise_for_status()
        return int(answer.json()["balance_tokens"])

    def submits(self, word: str) -> Counter[str]:
        """How often each prompt with this word came to the simulator."""
        requests = self.fal.get("/_sim/requests").raise_for_status().json()["requests"]
        return Counter(request["input"]["prompt"] for request in requests if word in request["input"]["prompt"])

    def close(self) -> None:
        for process in (*self.workers, self.api):
            process.__exit__(None, None, None)
        self.http.close()
        self.fal.close()


@pytest.fixture(scope="module")
def fleet(postgres_dsn: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with (
        database_copy(postgres_dsn, template_database) as database,
        running_simulator(queue_seconds=0.1, run_seconds_image=0.2) as simulator,
    ):
        fleet = Fleet(tmp_path_factory.mktemp("fleet"), database, simulator)
        try:
            fleet.api.start().wait_until_ready()
            yield fleet
        finally:
            fleet.close()


def test_an_api_without_a_runner_accepts_but_does_not_work(fleet: Fleet) -> None:
    fleet.run_workers(0)
    key = fleet.register(PRICE_TOKENS)

    fleet.start_jobs(key, ["left-alone"])
    # Long enough for an embedded runner, which takes a job within milliseconds.
    time.sleep(2)

    assert [job["status"] for job in fleet.jobs(key)] == ["QUEUED"]
    assert fleet.submits("left-alone") == {}


def test_one_worker_does_what_was_accepted_before_it_came(fleet: Fleet) -> None:
    fleet.run_workers(0)
    key = fleet.register(10 * PRICE_TOKENS)
    fleet.start_jobs(key, [f"early-bird {number}" for number in range(10)])

    fleet.run_workers(1)

    fleet.until_all(key, "COMPLETED")
    assert fleet.submits("early-bird").total() == 10
    assert fleet.balance(key) == 0


def test_two_workers_share_a_hundred_jobs_and_submit_each_once(fleet: Fleet) -> None:
    workers = fleet.run_workers(2)
    key = fleet.register(JOBS * PRICE_TOKENS)

    fleet.start_jobs(key, [f"shared {number}" for number in range(JOBS)])
    fleet.until_all(key, "COMPLETED")

    assert fleet.submits("shared") == {f"shared {number}": 1 for number in range(JOBS)}
    assert all("generation_submitted" in worker.output() for worker in workers), "one of them did everything"
    assert fleet.balance(key) == 0


def test_the_other_worker_finishes_everything_when_one_is_killed(fleet: Fleet) -> None:
    victim, _ = fleet.run_workers(2)
    key = fleet.register(20 * PRICE_TOKENS)
    fleet.start_jobs(key, [f"orphaned {number} [slow:600]" for number in range(20)])
    # At fal: what happens to a job whose very submission is cut off is the subject of test_kill.
    fleet.until_all(key, "IN_PROGRESS")

    victim.kill()
    # None of them ends before all run, however slow the machine is.
    fleet.fal.post("/_sim/clock", json={"advance_seconds": 600}).raise_for_status()

    fleet.until_all(key, "COMPLETED")
    assert fleet.submits("orphaned") == {f"orphaned {number} [slow:600]": 1 for number in range(20)}
    assert fleet.balance(key) == 0


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_with_success_in_a_few_seconds(fleet: Fleet, number: signal.Signals) -> None:
    (worker,) = fleet.run_workers(1)
    key = fleet.register(PRICE_TOKENS)
    fleet.start_jobs(key, ["[stuck]"])
    fleet.until_all(key, "IN_QUEUE")
    began = time.monotonic()

    exit_code = worker.stop(number)

    assert exit_code == 0, worker.output()
    assert time.monotonic() - began < 5


def test_a_worker_without_a_key_of_fal_says_so_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    settings = {name: value for name, value in fleet.settings.items() if name != "FAL_KEY"}

    outcome = subprocess.run(
        [sys.executable, "-m", "app", "worker"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT_DIR), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert outcome.returncode == 1
    assert len(outcome.stderr.splitlines()) == 1
    assert outcome.stderr.startswith("error: set FAL_KEY ")


def test_a_worker_goes_on_with_what_was_accepted_though_nothing_can_be_sold(fleet: Fleet, tmp_path: Path) -> None:
    fleet.run_workers(0)
    key = fleet.register(PRICE_TOKENS)
    fleet.start_jobs(key, ["broken-shop"])
    broken = {"CATALOGUE_DIR": str(tmp_path / "absent"), "TOKEN_PRICES_JSON": "{"}

    with ServiceProcess(tmp_path / "worker.log", {**fleet.settings, **broken}, "worker") as worker:
        fleet.until_all(key, "COMPLETED")
        assert worker.process.poll() is None

    assert fleet.submits("broken-shop").total() == 1
