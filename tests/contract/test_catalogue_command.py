"""`python -m app catalogue`: what it says of our files, and of what fal tells over HTTP, true or not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from tests.fal_stub import NGINX_PAGE, Behaviour, FalStub, drop, raw, reply, running_stub
from tests.simulator_server import running_simulator
from tests.unit.catalogue_files import MODEL

KEY = "key:secret"


@pytest.fixture(scope="module")
def simulator_url() -> Iterator[str]:
    with running_simulator() as url:
        yield url


def run(monkeypatch: pytest.MonkeyPatch, *words: str, **environment: str) -> Result:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(app, ["catalogue", *words], terminal_width=200)


def test_x(simulator_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, "compare", FAL_KEY=KEY, FAL_API_URL=f"{simulator_url}/v1")
    Path("/tmp/compare.txt").write_text(result.output + repr(result.exception))
