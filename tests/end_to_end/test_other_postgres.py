"""The service on a PostgreSQL that the machine brings along, of another version than the embedded one."""

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.service_process import PROJECT_DIR, ServiceProcess
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)

# README.md: PostgreSQL 14 or newer.
VERSION_MIN = 14
UNPRIVILEGED = "nobody"


def installed_servers() -> list[Path]:
    """The directories with server programs, one for each version that is new enough."""
    candidates = set(Path("/usr/lib/postgresql").glob("*/bin"))
    if pg_config := shutil.which("pg_config"):
        printed = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, timeout=20, check=False)
        candidates.add(Path(printed.stdout.strip()))
    return sorted(
        {path.resolve() for path in candidates if (path / "initdb").exists() and version_of(path) >= VERSION_MIN}
    )


def version_of(programs: Path) -> int:
    printed = subprocess.run(
        [programs / "postgres", "--version"], capture_output=True, text=True, timeout=20, check=False
    )
    match = re.search(r"\(PostgreSQL\) (\d+)", printed.stdout)
    return int(match[1]) if match else 0


SERVERS = installed_servers()


@contextmanager
def running_server(programs: Path) -> Iterator[str]:
    """Its DSN. PostgreSQL refuses to run as root: for root it runs as a user without any rights."""
    as_whom: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            os.chown(directory, user.pw_uid, user.pw_gid)
            as_whom = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        cluster = Path(directory) / "cluster"
        subprocess.run(
            [programs / "initdb", f"--pgdata={cluster}", "--username=postgres", "--auth=trust", "--no-sync"],
            cwd=directory,
            capture_output=True,
            timeout=120,
            check=True,
            **as_whom,
        )
        options = {"listen_addresses": "", "unix_socket_directories": directory, "fsync": "off"}
        with subprocess.Popen(
            [programs / "postgres", "-D", cluster, *(f"--{name}={value}" for name, value in options.items())],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **as_whom,
        ) as server:
            try:
                wait_until_ready(server, cluster)
                yield f"postgresql://postgres@/postgres?host={directory}"
            finally:
                server.terminate()
                with suppress(subprocess.TimeoutExpired):
                    server.wait(20)
                server.kill()


def wait_until_ready(server: "subprocess.Popen[bytes]", cluster: Path) -> None:
    deadline = time.monotonic() + 60
    pid_file = cluster / "postmaster.pid"
    # https://www.postgresql.org/docs/current/storage-file-layout.html: the last line is the state.
    while not (pid_file.exists() and pid_file.read_text().rstrip().endswith("ready")):
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(not SERVERS, reason=f"no PostgreSQL {VERSION_MIN} or newer is installed on this machine")
@pytest.mark.parametrize("programs", SERVERS, ids=str)
def test_serves_and_keeps_the_books_on_an_installed_postgresql(programs: Path, tmp_path: Path) -> None:
    with running_server(programs) as dsn, running_simulator() as simulator:
        settings = {
            "DATABASE_URL": dsn,
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": simulator,
            "DATA_DIR": str(tmp_path),
        }
        with ServiceProcess(tmp_path / "service.log", settings) as service:
            service.wait_until_ready()

            job = finished_job(service.url)

        verified = subprocess.run(
            [sys.executable, "-m", "app", "ledger", "verify"],
            cwd=PROJECT_DIR,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (job["status"], len(job["result"]["images"])) == ("COMPLETED", 1)
    assert (verified.returncode, verified.stdout) == (0, "the ledger is right: every token is accounted for\n")


def finished_job(url: str) -> dict[str, Any]:
    user = str(uuid4())
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        http.post(
            "/webhook/topup",
            json={"external_user_id": user, "amount": 10},
            headers={"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user},
        ).raise_for_status()
        key = http.post("/auth", json={"external_user_id": user}).raise_for_status().json()["api_key"]
        headers = {"X-API-Key": key}
        body = {"prompt": "A lighthouse"}
        started = http.post("/generations/images/text-to-image", json=body, headers=headers).raise_for_status().json()
        deadline = time.monotonic() + 120
        while True:
            job: dict[str, Any] = http.get(f"/generations/{started['job_id']}", headers=headers).json()
            if job["status"] in ("COMPLETED", "FAILED", "CANCELED"):
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
