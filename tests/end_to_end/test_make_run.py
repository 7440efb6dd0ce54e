"""`make run` on a bare machine: without DATABASE_URL and FAL_KEY the service brings its own PostgreSQL and fal."""

import base64
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from PIL import Image

from tests.service_process import PROJECT_DIR, ServiceProcess, free_port

pytestmark = [
    pytest.mark.timeout(300),
    # Such a file reaches the service, and its FAL_KEY would turn these jobs into paid ones.
    pytest.mark.skipif((PROJECT_DIR / ".env").exists(), reason="there is a .env file: move it away to run these tests"),
]

STOP_SECONDS_MAX = 20
FINAL = {"COMPLETED", "FAILED", "CANCELED"}
LOOPBACK = "127.0.0.1"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")


@contextmanager
def data_dir() -> Iterator[Path]:
    # Short and open to the user as whom PostgreSQL runs for root, which pytest's own directory is not.
    with tempfile.TemporaryDirectory(prefix="tollgate-run-", dir="/tmp") as directory:
        yield Path(directory) / "data"


def processes_of(directory: Path) -> list[psutil.Process]:
    """What works on the directory: it is in the command line, or (PostgreSQL's children) the working directory."""
    found = []
    for process in psutil.process_iter():
        try:
            texts = [*process.cmdline(), process.cwd()]
            if any(str(directory) in text for text in texts) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def names_of(processes: Sequence[psutil.Process]) -> set[str]:
    return {"postgres" if "postgres" in process.name() else "simulator" for process in processes}


class Run:
    """The service as `make run` starts it, on files of its own."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.service = ServiceProcess(
            directory.parent / "service.log", {"DATA_DIR": str(directory), "PORT": str(port or free_port())}
        )
        self._http = httpx.Client(base_url=self.service.url, timeout=60, trust_env=False)

    def begin(self) -> None:
        self.service.start().wait_until_ready()

    def ensure_running(self) -> None:
        if not self.is_running():
            self.begin()

    def is_running(self) -> bool:
        try:
            return self.service.process.poll() is None
        except AssertionError:
            return False

    def welcome(self) -> str:
        """What the newest start printed."""
        return self.service.output().rpartition("Tollgate is ready")[2]

    def printed_key(self) -> str:
        match = re.search(r"API key with 1000 tokens:  (tgk_\w+)", self.welcome())
        assert match is not None, self.welcome()
        return match[1]

    def register(self, tokens: int) -> str:
        """The key of a new user."""
        user = str(uuid4())
        self._http.post(
            "/webhook/topup",
            json={"external_user_id": user, "amount": tokens},
            headers={"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user},
        ).raise_for_status()
        answer = self._http.post("/auth", json={"external_user_id": user}).raise_for_status()
        return str(answer.json()["api_key"])

    def balance(self, key: str) -> int:
        answer = self._http.get("/balance", headers={"X-API-Key": key}).raise_for_status()
        return int(answer.json()["balance_tokens"])

    def start_job(self, key: str, path: str, **body: Any) -> str:
        answer = self._http.post(f"/generations/{path}", json=body, headers={"X-API-Key": key})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def job(self, key: str, job_id: str) -> dict[str, Any]:
        answer = self._http.get(f"/generations/{job_id}", headers={"X-API-Key": key}).raise_for_status()
        return dict(answer.json())

    def until_at_fal(self, key: str, job_id: str) -> None:
        deadline = time.monotonic() + 60
        while not self.job(key, job_id)["fal_request_id"]:
            assert time.monotonic() < deadline, self.job(key, job_id)
            time.sleep(0.05)

    def until_final(self, key: str, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while (job := self.job(key, job_id))["status"] not in FINAL:
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
        return job

    def end(self, number: signal.Signals) -> None:
        """Stop it and see that it was quick, successful, and left nothing."""
        began = time.monotonic()
        assert self.service.stop(number) == 0, self.service.output()
        assert time.monotonic() - began < STOP_SECONDS_MAX
        assert processes_of(self.directory) == []

    def close(self) -> None:
        self._http.close()
        if self.is_running():
            self.service.__exit__(None, None, None)


@pytest.fixture(scope="module")
def shared_run() -> Iterator[Run]:
    with data_dir() as directory:
        run = Run(directory)
        try:
            run.begin()
            yield run
        finally:
            run.close()


@pytest.fixture
def run(shared_run: Run) -> Run:
    shared_run.ensure_running()
    return shared_run


def serve(directory: Path, port: int) -> subprocess.CompletedProcess[str]:
    """A start that is expected to give up."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory.parent),
        "DATA_DIR": str(directory),
        "PORT": str(port),
    }
    return subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        cwd=PROJECT_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def picture() -> str:
    file = io.BytesIO()
    Image.new("RGB", (512, 512), "teal").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@needs_curl
def test_prints_a_key_with_a_balance_and_a_curl_line_that_works_when_pasted(run: Run) -> None:
    key = run.printed_key()
    before = run.balance(key)
    lines = "\n".join(run.welcome().partition("Try it:\n")[2].splitlines()[:2])

    pasted = subprocess.run(
        ["bash", "-c", lines], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=True
    )

    job = json.loads(pasted.stdout)
    assert pasted.stderr == ""
    assert run.until_final(key, job["job_id"])["status"] == "COMPLETED"
    assert run.balance(key) == before - job["cost_tokens"] == before - 5


def test_says_loudly_that_a_simulator_stands_in_and_what_is_open(run: Run) -> None:
    welcome = run.welcome()

    assert f" at {run.service.url} " in welcome
    assert "FAL_KEY is not set: a SIMULATOR stands in for fal.ai." in welcome
    assert "no model runs" in welcome
    assert "AUTH_SECRET is not set: anybody" in welcome
    assert "PAYMENT_WEBHOOK_SECRET is not set: top-ups are open with 'development-webhook-secret'" in welcome


def test_listens_on_this_machine_only(run: Run) -> None:
    processes = [psutil.Process(run.service.process.pid), *processes_of(run.directory)]

    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    # The API and the simulator; PostgreSQL has a socket in its directory only.
    assert listening == [LOOPBACK, LOOPBACK]


def test_sigint_ends_it_and_all_it_started_while_a_job_runs(run: Run) -> None:
    key = run.register(10)
    run.until_at_fal(key, run.start_job(key, "images/text-to-image", prompt="[slow:60]"))
    assert names_of(processes_of(run.directory)) == {"postgres", "simulator"}

    run.end(signal.SIGINT)


def test_sigterm_ends_it_and_a_second_start_finds_keys_balances_and_jobs_again(run: Run) -> None:
    key = run.register(100)
    job = run.until_final(key, run.start_job(key, "images/text-to-image", prompt="a lighthouse"))

    run.end(signal.SIGTERM)
    run.begin()

    assert run.balance(key) == 95
    assert run.job(key, job["job_id"]) == job
    assert httpx.get(job["result"]["images"][0]["url"], trust_env=False, timeout=60).content.startswith(b"\x89PNG")


def test_jobs_in_flight_finish_after_kill_9_and_the_next_stop_leaves_nothing(run: Run) -> None:
    key = run.register(100)
    from_text = run.start_job(key, "images/text-to-image", prompt="[slow:3]")
    from_image = run.start_job(key, "images/image-to-image", prompt="[slow:3]", image_urls=[picture()])
    for job_id in (from_text, from_image):
        run.until_at_fal(key, job_id)

    run.service.kill()
    run.begin()

    jobs = [run.until_final(key, job_id) for job_id in (from_text, from_image)]
    assert [job["status"] for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert run.balance(key) == 100 - 5 - 6
    for job in jobs:
        assert httpx.get(job["result"]["images"][0]["url"], trust_env=False, timeout=60).content.startswith(b"\x89PNG")
    run.end(signal.SIGTERM)


def test_two_at_once_on_two_ports_and_data_directories(run: Run) -> None:
    with data_dir() as directory:
        second = Run(directory)
        try:
            second.begin()

            keys = (run.register(10), second.register(10))
            jobs = [
                each.until_final(key, each.start_job(key, "images/text-to-image", prompt="a lighthouse"))
                for each, key in zip((run, second), keys, strict=True)
            ]
            second.end(signal.SIGINT)
        finally:
            second.close()

    assert [job["status"] for job in jobs] == ["COMPLETED", "COMPLETED"]
    assert run.balance(keys[0]) == 5


def test_a_port_in_use_is_one_clear_line_and_starts_nothing(run: Run) -> None:
    with data_dir() as directory:
        outcome = serve(directory, run.service.port)

        assert outcome.returncode == 1
        assert outcome.stdout == ""
        assert outcome.stderr == (
            f"error: cannot listen on 127.0.0.1:{run.service.port} (Address already in use);"
            " choose another PORT or HOST\n"
        )
        assert not directory.exists()
        assert processes_of(directory) == []


def test_of_two_starts_at_once_on_one_port_one_serves_and_the_other_says_one_clear_line() -> None:
    port = free_port()
    with data_dir() as first, data_dir() as second:
        runs = [Run(first, port), Run(second, port)]
        try:
            services = [each.service.start() for each in runs]
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                exit_codes = {service.process.poll() for service in services}
                if exit_codes != {None} or all("service_ready" in service.output() for service in services):
                    break
                time.sleep(0.05)
            outputs = [service.output() for service in services if service.process.poll() is not None]
        finally:
            for each in runs:
                each.close()

    assert exit_codes == {None, 1}, "both say that they are ready"
    assert len(outputs) == 1
    assert re.fullmatch(
        rf"error: cannot listen on 127\.0\.0\.1:{port} \(.*\); choose another PORT or HOST\n", outputs[0]
    )


def test_a_data_directory_in_use_is_one_clear_line_and_disturbs_nobody(run: Run) -> None:
    outcome = serve(run.directory, free_port())

    assert outcome.returncode == 1
    assert outcome.stdout == ""
    assert outcome.stderr == (
        f"error: {run.directory} is in use by process {run.service.process.pid}:"
        " stop that process or choose another DATA_DIR\n"
    )
    assert run.balance(run.printed_key()) > 0


def test_sigint_during_an_import_that_passes_over_exceptions_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(5)\n"
        "except BaseException:\n"
        "    print('it went on')\n"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT_DIR)])}

    outcome = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environment,
    )

    assert (outcome.returncode, outcome.stdout) == (-signal.SIGINT, "")


def test_sigint_at_any_early_moment_leaves_nothing_behind() -> None:
    """Half of the moments are counted from the launch, half from when the first file is there."""

    def interrupt(directory: Path, *, after_first_file: bool, delay_seconds: float) -> None:
        service = ServiceProcess(directory.parent / "service.log", {"DATA_DIR": str(directory)}).start()
        while after_first_file and not directory.exists() and service.process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay_seconds)
        began = time.monotonic()
        service.stop(signal.SIGINT)
        assert time.monotonic() - began < STOP_SECONDS_MAX
        assert processes_of(directory) == []

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        attempts = [
            pool.submit(
                interrupt,
                stack.enter_context(data_dir()),
                after_first_file=number % 2 == 1,
                delay_seconds=random.uniform(0.1, 2.0),
            )
            for number in range(4)
        ]
        for attempt in attempts:
            attempt.result()
