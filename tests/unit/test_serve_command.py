"""What the processes read before they start: `serve` the catalogue, once, and `worker` nothing of what is sold."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app import serving
from app.bootstrap import catalogue as bootstrap_catalogue
from app.cli import app, serve
from app.domain.catalogue import Catalogue
from app.infrastructure.settings import SettingsError, WorkerSettings, load_settings
from tests.builders import BUILT_IN
from tests.unit.settings_environment import PRODUCTION, production_with, set_all

pytestmark = pytest.mark.usefixtures("bare_environment")

NOTHING_SOLD: Mapping[str, str] = {"CATALOGUE_DIR": "/nowhere", "TOKEN_PRICES_JSON": "{"}


def test_serve_reads_the_catalogue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path | None] = []

    def read(directory: Path | None) -> Catalogue:
        reads.append(directory)
        return BUILT_IN

    async def nothing(*_: Any, sockets: Sequence[socket.socket] = ()) -> None:
        for listener in sockets:
            listener.close()

    monkeypatch.setattr(bootstrap_catalogue, "read_catalogue", read)
    monkeypatch.setattr(serve, "migrate_database", nothing)
    monkeypatch.setattr(serving.Server, "serve", nothing)
    set_all(monkeypatch, {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "FAL_KEY": "test:key", "PORT": "0"})

    result = CliRunner().invoke(app, ["serve"])

    assert "the service could not start" in result.output
    assert reads == [None]


def test_a_worker_needs_nothing_of_what_is_sold(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, {**PRODUCTION, **NOTHING_SOLD})
    settings = load_settings(WorkerSettings)

    assert settings.is_production
    assert (settings.catalogue_dir, settings.token_prices_json) == (None, {})
    with pytest.raises(SettingsError, match="TOKEN_PRICES_JSON: is not valid JSON"):
        load_settings()


@pytest.mark.parametrize("name", sorted(PRODUCTION.keys() - {"APP_ENV", "FAL_ADMIN_KEY"}))
def test_production_asks_a_worker_for_everything_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    set_all(monkeypatch, production_with(name, None))

    with pytest.raises(SettingsError, match=f"APP_ENV=production: {name} must be set"):
        load_settings(WorkerSettings)
