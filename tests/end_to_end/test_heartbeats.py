"""An API that works on no jobs, its worker, and a container's health check: who hangs or is missing is named."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.infrastructure.postgres.health import WORKER_GRACE_SECONDS
from app.infrastructure.postgres.heartbeats import DEAD_SECONDS
from tests.service_process import PROJECT_DIR, ServiceProcess
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def settings(database: str, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    with running_simulator() as simulator:
        yield {
            "DATABASE_URL": database,
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "DATA_DIR": str(tmp_path),
            "DATABASE_CONNECTIONS_MAX": "6",
        }


def readiness(api: ServiceProcess) -> tuple[int, str]:
    with httpx.Client(timeout=30, trust_env=False) as http:
        answer = http.get(f"{api.url}/readyz")
    checks: list[dict[str, Any]] = answer.json()["checks"]
    return answer.status_code, next(check["detail"] for check in checks if check["name"] == "runner")


def health_check(settings: Mapping[str, str], tmp_path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app", "worker", "--check"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(PROJECT_DIR), **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def until(happens: Callable[[], bool], seconds_max: float) -> float:
    """How long it took."""
    began = time.monotonic()
    while not happens():
        assert time.monotonic() < began + seconds_max
        time.sleep(0.2)
    return time.monotonic() - began


def test_a_worker_that_hangs_or_is_gone_is_named_and_one_that_is_replaced_is_not(
    settings: Mapping[str, str], tmp_path: Path
) -> None:
    api = ServiceProcess(tmp_path / "api.log", {**settings, "RUNNER": "external"})
    with api, ServiceProcess(tmp_path / "worker.log", settings, "worker") as worker:
        # While it comes up nothing flaps.
        api.wait_until_ready()
        until(lambda: health_check(settings, tmp_path).returncode == 0, 60)
        assert health_check(settings, tmp_path).stdout == "the worker beats\n"
        until(lambda: readiness(api) == (200, "external: worker processes work on jobs"), 30)

        worker.process.send_signal(signal.SIGSTOP)
        try:
            noticed_seconds = until(lambda: readiness(api)[0] == 503, DEAD_SECONDS + 30)
            status, detail = readiness(api)
            hanging = health_check(settings, tmp_path)
        finally:
            worker.process.send_signal(signal.SIGCONT)
        until(lambda: readiness(api)[0] == 200, 60)
        until(lambda: health_check(settings, tmp_path).returncode == 0, 60)

        worker.stop()
        assert readiness(api)[0] == 200
        gone = health_check(settings, tmp_path)
        until(lambda: readiness(api)[0] == 503, WORKER_GRACE_SECONDS + 30)
        status_without, without = readiness(api)

    assert noticed_seconds > DEAD_SECONDS - 10
    assert status == status_without == 503
    assert "no worker works" in detail
    assert all(duty in detail for duty in ("looks", "submissions", "housekeeping"))
    assert (hanging.returncode, gone.returncode) == (1, 1)
    assert "hangs: " in hanging.stderr
    assert "looks has been silent for" in hanging.stderr
    assert gone.stderr.startswith("error: no worker beats on ")
    assert without == "external: no worker works on jobs; start python -m app worker"


def test_the_check_says_what_keeps_it_from_the_database(tmp_path: Path) -> None:
    outcome = health_check({"DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/none"}, tmp_path)

    assert outcome.returncode == 1
    assert "nobody listens at 127.0.0.1:1" in outcome.stderr
    assert "hidden" not in outcome.stderr


def test_an_api_with_its_own_runner_beats_for_it(settings: Mapping[str, str], tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "service.log", settings) as service:
        service.wait_until_ready()
        until(lambda: readiness(service) == (200, "working"), 10)
        # It is no worker: a container that should run one has none.
        assert health_check(settings, tmp_path).returncode == 1
