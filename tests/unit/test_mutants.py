"""That the mutants of the catalogue still change something; whether the suite catches them takes minutes."""

from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.changes import Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_changes_is_there_once(project_dir: Path, mutant: Mutant) -> None:
    for change in mutant.changes:
        assert (project_dir / change.file).read_text().count(change.old) == 1, change.old
