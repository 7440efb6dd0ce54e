"""`make demo` against a running service, with the simulator as fal."""

import asyncio
import io
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from app.infrastructure.settings import Settings
from devtools.demo import run_demo
from tests.end_to_end.test_api import running_service
from tests.property.parameter_sets import CATALOGUE

# A PNG, and the first box of an MP4.
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x20ftyp")

pytestmark = pytest.mark.timeout(300)


def test_the_demo_saves_what_a_model_of_each_family_made(
    postgres_dsn: str, template_database: str, tmp_path: Path
) -> None:
    shown = io.StringIO()
    with running_service(postgres_dsn, template_database, tmp_path) as service:
        settings = Settings.model_construct(port=urlsplit(str(service.http.base_url)).port, data_dir=tmp_path)

        user = asyncio.run(run_demo(settings, Console(file=shown, width=200)))

        entries = service.query(
            "SELECT entry.amount FROM ledger_entries AS entry JOIN accounts AS account ON account.id = entry.account_id"
            " WHERE account.external_user_id = $1 ORDER BY entry.id",
            str(user),
        )
        models = service.query("SELECT DISTINCT model_id FROM jobs WHERE status = 'COMPLETED'")

    families = {CATALOGUE.get(model_id).family for model_id in models}  # type: ignore[union-attr]
    assert families == {model.family for model in CATALOGUE}, shown.getvalue()
    files = list((tmp_path / "demo").iterdir())
    # One picture more than there are jobs: the first order is for two.
    assert len(files) == len(entries) == len(models) + 1
    assert {path.suffix for path in files} == {".png", ".mp4"}
    assert all(path.read_bytes()[:8] in SIGNATURES for path in files)
    assert 0 <= entries[0] - sum(entries[1:]) < 100
