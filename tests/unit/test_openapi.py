"""The committed document is the one that the code makes: `make openapi` writes it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app as command_line

DOCUMENT: dict[str, Any] = json.loads(CliRunner().invoke(command_line, ["openapi"]).stdout)
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def has_example(content: dict[str, Any]) -> bool:
    return any("example" in medium or "examples" in medium or is_file(medium) for medium in content.values())


def is_file(medium: dict[str, Any]) -> bool:
    return bool(medium["schema"].get("format") == "binary")


def test_the_committed_document_is_up_to_date(project_dir: Path) -> None:
    printed = CliRunner().invoke(command_line, ["openapi"]).stdout

    assert (project_dir / "docs" / "openapi.json").read_text() == printed, "run `make openapi`"


def test_the_document_has_the_routes_of_the_service() -> None:
    assert OPERATIONS.keys() >= {
        "POST /auth",
        "GET /balance",
        "POST /webhook/topup",
        "POST /generations/images/text-to-image",
        "POST /generations/images/image-to-image",
        "POST /generations/videos/text-to-video",
        "POST /generations/videos/image-to-video",
        "GET /generations",
        "GET /generations/{job_id}",
        "POST /generations/{job_id}/cancel",
        "GET /healthz",
        "GET /readyz",
    }


@pytest.mark.parametrize("route", OPERATIONS)
def test_a_route_has_a_summary_and_a_description(route: str) -> None:
    assert OPERATIONS[route]["summary"].strip()
    assert OPERATIONS[route]["description"].strip()


@pytest.mark.parametrize("route", OPERATIONS)
def test_a_route_has_an_example_of_its_answer(route: str) -> None:
    successes = {status: it for status, it in OPERATIONS[route]["responses"].items() if status.startswith("2")}

    assert successes
    assert all(status == "204" or has_example(answer["content"]) for status, answer in successes.items())


@pytest.mark.parametrize("route", [route for route, operation in OPERATIONS.items() if "requestBody" in operation])
def test_a_route_with_a_body_has_an_example_of_it(route: str) -> None:
    assert has_example(OPERATIONS[route]["requestBody"]["content"])
