"""A backup is restored: what waits in it has run since, or has not, and is not submitted before somebody has looked."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import httpx
import pytest

from devtools.embedded_postgres.server import _find_binaries
from tests.builders import connect, database_copy
from tests.service_process import PROJECT_DIR, ServiceProcess
from tests.simulator_server import running_simulator

pytestmark = pytest.mark.timeout(300)

BIN = _find_binaries()
TEXT_TO_IMAGE = "/generations/images/text-to-image"
FINAL = {"COMPLETED", "FAILED", "CANCELED"}


@dataclass(frozen=True)
class Stage:
    directory: Path
    database: str
    restored: str
    fal: str

    def settings(self, database: str, **more: str) -> Mapping[str, str]:
        return {
            "DATABASE_URL": database,
            "FAL_KEY": "test:key",
            "FAL_QUEUE_URL": self.fal,
            "FAL_ADMIN_KEY": "admin:any",
            "FAL_API_URL": f"{self.fal}/v1",
            "DATA_DIR": str(self.directory),
            **more,
        }

    @contextmanager
    def service(self, database: str, **more: str) -> Iterator[httpx.Client]:
        with ServiceProcess(self.directory / "service.log", self.settings(database, **more)) as process:
            process.wait_until_ready()
            with httpx.Client(base_url=process.url, timeout=60, trust_env=False) as http:
                yield http

    def command(self, database: str, *arguments: str) -> str:
        environment = {"PYTHONPATH": str(PROJECT_DIR), "LANG": "C.UTF-8", **self.settings(database)}
        done = subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def posts(self, prompt: str) -> int:
        requests = httpx.get(f"{self.fal}/_sim/requests", params={"limit": 1000}, trust_env=False, timeout=60).json()[
            "requests"
        ]
        return sum(request["input"]["prompt"] == prompt for request in requests)


def sql(database: str, statement: str) -> list[Any]:
    async def run() -> list[Any]:
        async with connect(database) as connection:
            return [row[0] for row in await connection.fetch(statement)]

    return asyncio.run(run())


def dump(database: str, file: Path, *options: str) -> None:
    subprocess.run([BIN / "pg_dump", *options, "--file", file, database], check=True, timeout=60)


def load(database: str, file: Path) -> None:
    command: list[str | Path] = [
        BIN / "psql",
        "--quiet",
        "--set",
        "ON_ERROR_STOP=1",
        "--output",
        "/dev/null",
        "--file",
        file,
        database,
    ]
    subprocess.run(command, check=True, timeout=60)


@dataclass(frozen=True)
class Customer:
    http: httpx.Client
    headers: Mapping[str, str]
    user_id: str

    def start(self, prompt: str, **body: Any) -> str:
        answer = self.http.post(TEXT_TO_IMAGE, json={"prompt": prompt, **body}, headers=self.headers)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.http.get(f"/generations/{job_id}", headers=self.headers).raise_for_status().json())

    def until_final(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while (job := self.job(job_id))["status"] not in FINAL:
            assert time.monotonic() < deadline, job
            time.sleep(0.1)
        return job

    def balance(self) -> int:
        return int(self.http.get("/balance", headers=self.headers).json()["balance_tokens"])


def register(http: httpx.Client) -> Customer:
    user_id = str(uuid4())
    secret = {"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": user_id}
    http.post("/webhook/topup", json={"external_user_id": user_id, "amount": 100}, headers=secret).raise_for_status()
    key = http.post("/auth", json={"external_user_id": user_id}).json()["api_key"]
    return Customer(http, {"X-API-Key": key}, user_id)


@pytest.fixture
def stage(postgres_dsn: str, template_database: str, tmp_path: Path) -> Iterator[Stage]:
    empty = f"restored_{uuid4().hex}"
    restored = urlunsplit(urlsplit(postgres_dsn)._replace(path=f"/{empty}"))
    with (
        database_copy(postgres_dsn, template_database) as database,
        running_simulator(queue_seconds=0.1, run_seconds_image=0.1) as fal,
    ):
        sql(postgres_dsn, f"CREATE DATABASE {empty} TEMPLATE template0")
        yield Stage(tmp_path, database, restored, fal)
        sql(postgres_dsn, f"DROP DATABASE {empty} WITH (FORCE)")


@dataclass(frozen=True)
class Backup:
    customer: Customer
    ran: str
    """Submitted and completed since the backup."""
    waits: str
    """Canceled since the backup, and never submitted."""
    file: Path


def backed_up(stage: Stage, *options: str) -> Backup:
    """A backup in which two jobs wait, and what became of them since."""
    with stage.service(stage.database):
        pass
    with stage.service(stage.database, RUNNER="external") as http:
        customer = register(http)
        ran, waits = customer.start("it ran"), customer.start("it waits")
        dump(stage.database, stage.directory / "backup.sql", *options)
        http.post(f"/generations/{waits}/cancel", headers=customer.headers).raise_for_status()
    with stage.service(stage.database) as http:
        assert Customer(http, customer.headers, customer.user_id).until_final(ran)["status"] == "COMPLETED"
    assert (stage.posts("it ran"), stage.posts("it waits")) == (1, 0)
    return Backup(customer, ran, waits, stage.directory / "backup.sql")


def test_nothing_of_a_restored_backup_is_submitted_before_the_operator_says_so(stage: Stage) -> None:
    backup = backed_up(stage)
    load(stage.restored, backup.file)

    with stage.service(stage.restored) as http:
        customer = Customer(http, backup.customer.headers, backup.customer.user_id)
        # Who comes now waits for nothing.
        assert customer.until_final(customer.start("a new one"))["status"] == "COMPLETED"
        time.sleep(2)
        held = [customer.job(job_id) for job_id in (backup.ran, backup.waits)]
        assert [job["status"] for job in held] == ["QUEUED", "QUEUED"]
        assert all("restored from a backup" in job["status_reason"] for job in held)
        assert (stage.posts("it ran"), stage.posts("it waits")) == (1, 0)

        told = stage.command(stage.restored, "restore-check")
        (request_id,) = re.findall(r"fal has run its input, for this job or for another one: (\S+)", told)
        assert customer.job(backup.ran)["status"] == "QUEUED"
        told = stage.command(stage.restored, "restore-check", "--adopt", f"{backup.ran}={request_id}")
        assert "it goes on from there" in told
        assert "fal's history has no such request" in told
        assert customer.until_final(backup.ran)["status"] == "COMPLETED"
        assert customer.job(backup.waits)["status"] == "QUEUED"

        assert "1 job(s) go on" in stage.command(stage.restored, "restore-release")
        assert customer.until_final(backup.waits)["status"] == "COMPLETED"
        assert (stage.posts("it ran"), stage.posts("it waits")) == (1, 1)
        assert customer.balance() == 85
        # A payment of before the backup is known, and delivered again it changes nothing.
        secret = {"X-Webhook-Secret": "development-webhook-secret", "X-Event-Id": customer.user_id}
        body = {"external_user_id": customer.user_id, "amount": 100}
        http.post("/webhook/topup", json=body, headers=secret).raise_for_status()
        assert customer.balance() == 85
    assert sql(stage.restored, "SELECT invariant FROM ledger_violations") == []
    assert "no job is held" in stage.command(stage.restored, "restore-check")


def test_a_backup_that_was_loaded_into_the_same_database_is_noticed(stage: Stage) -> None:
    backup = backed_up(stage, "--clean", "--if-exists")
    load(stage.database, backup.file)

    with stage.service(stage.database) as http:
        customer = Customer(http, backup.customer.headers, backup.customer.user_id)
        time.sleep(2)
        assert [customer.job(job_id)["status"] for job_id in (backup.ran, backup.waits)] == ["QUEUED", "QUEUED"]
        assert stage.posts("it ran") == 1
        # A user need not wait for the operator.
        http.post(f"/generations/{backup.waits}/cancel", headers=customer.headers).raise_for_status()
        assert customer.job(backup.waits)["status"] == "CANCELED"

        assert "1 job(s) ended" in stage.command(stage.database, "restore-release", "--refund")
        job = customer.job(backup.ran)
        assert (job["status"], job["error_code"], customer.balance()) == ("FAILED", "restored", 100)
    assert stage.posts("it ran") == 1
    assert sql(stage.database, "SELECT invariant FROM ledger_violations") == []


def test_a_restart_on_the_same_database_holds_nothing(stage: Stage) -> None:
    with stage.service(stage.database):
        pass
    with stage.service(stage.database, RUNNER="external") as http:
        customer = register(http)
        job_id = customer.start("it goes on")
        # A table that was rewritten is the same table.
        sql(stage.database, "VACUUM FULL jobs")
    with stage.service(stage.database) as http:
        assert Customer(http, customer.headers, customer.user_id).until_final(job_id)["status"] == "COMPLETED"
