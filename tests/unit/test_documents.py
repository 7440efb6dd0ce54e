"""Documents name files that are there."""

import re
from pathlib import Path

import pytest

PROJECT_DIR = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted((PROJECT_DIR / "docs").rglob("*.md")), PROJECT_DIR / "README.md", PROJECT_DIR / "CONTRIBUTING.md"]
FILE = re.compile(r"`((?:app|alembic|benchmarks|devtools|docs|simulator|tests|torture)/[\w./-]+)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_a_document_names_exist(document: Path) -> None:
    named = set(FILE.findall(document.read_text()))

    assert [name for name in sorted(named) if not (PROJECT_DIR / name).exists()] == []


def test_the_guides_name_files() -> None:
    guides = [PROJECT_DIR / "docs" / name for name in ("follow-a-request.md", "how-to-add.md")]

    assert all(len(FILE.findall(guide.read_text())) >= 15 for guide in guides)
