"""Dockerfile and docker-compose.yml fit the service, and each other."""

import os
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from typer.testing import CliRunner

from app.cli import app as command_line
from app.serving import STOP_SECONDS_MAX
from tests.service_process import PROJECT_DIR

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT_DIR / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (PROJECT_DIR / "Dockerfile").read_text()
OWN = ("api", "worker")


@pytest.mark.parametrize("name", OWN)
def test_a_service_of_the_compose_file_runs_a_command_that_exists(name: str) -> None:
    python, *arguments = SERVICES[name]["command"]

    assert (python, arguments[:2]) == ("python", ["-m", "app"])
    assert CliRunner().invoke(command_line, [*arguments[2:], "--help"]).exit_code == 0


def test_the_image_runs_the_entrypoint_and_serves() -> None:
    assert 'ENTRYPOINT ["./entrypoint.sh"]' in DOCKERFILE
    assert 'CMD ["python", "-m", "app", "serve"]' in DOCKERFILE
    assert os.access(PROJECT_DIR / "entrypoint.sh", os.X_OK)
    assert re.search(r"^USER \d+$", DOCKERFILE, re.MULTILINE)


def test_whoever_waits_for_a_healthy_service_waits_for_one_with_a_health_check() -> None:
    awaited = {
        name: condition["condition"]
        for service in SERVICES.values()
        for name, condition in service.get("depends_on", {}).items()
    }

    assert awaited == {"db": "service_healthy"}
    assert "healthcheck" in SERVICES["db"]
    assert SERVICES["db"]["healthcheck"]["test"][1].startswith("pg_isready ")


def test_every_volume_that_is_mounted_is_declared() -> None:
    mounted = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}

    assert mounted == COMPOSE["volumes"].keys() == {"database", "media"}


def test_every_variable_of_the_compose_file_is_in_the_example() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (PROJECT_DIR / "docker-compose.yml").read_text()))
    listed = set(re.findall(r"^(?:# )?([A-Z_]+)=", (PROJECT_DIR / ".env.example").read_text(), re.MULTILINE))

    assert {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"} <= used <= listed


@pytest.mark.parametrize("name", OWN)
def test_a_service_of_the_compose_file_runs_as_production_with_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]

    assert service["environment"]["APP_ENV"] == "production"
    assert service["environment"]["DATABASE_URL"].startswith("postgresql://")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]
    assert int(service["stop_grace_period"].removesuffix("s")) > STOP_SECONDS_MAX


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_of_the_compose_file_fills_the_disk_with_its_log(name: str) -> None:
    logging = SERVICES[name]["logging"]

    assert logging["driver"] == "json-file"
    assert int(logging["options"]["max-size"].removesuffix("m")) * int(logging["options"]["max-file"]) <= 100


def test_the_worker_is_healthy_while_it_beats() -> None:
    kind, *command = SERVICES["worker"]["healthcheck"]["test"]

    assert (kind, command) == ("CMD", [*SERVICES["worker"]["command"], "--check"])
